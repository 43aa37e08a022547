"""LP-CLIP: logistic regression on the image tower's output, for one task and several shots and seeds.

    python -m lpclip.linear_probe [--shots 1 2 4 8 16] [--seeds 1 2 3] --root R --dataset-config-file F \
        --config-file F --output-dir O DATASET.SUBSAMPLE_TASKS task0 ...

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, with CoOp's search
for the regularisation. Every (shots, seed) is a run folder like those of `train.py`.
"""

import os.path as osp
import sys
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader

import trainers  # noqa: F401  registers the evaluator
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from dassl.evaluation import build_evaluator
from dassl.utils import setup_logger, write_json
from train import build_parser, one_sentence, setup_cfg
from trainers.multitask import RESULTS_FILE, load_clip, to_plain

COARSE = (1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6)
FINE_STEPS = 8


def search_c(accuracy):
    """CoOp's search for C: the best of a coarse list, then binary search between C/10 and 10C in log space.

    Args:
        accuracy: function from C to validation accuracy.

    Returns:
        The C of the last step's better end.
    """
    peak = COARSE[int(np.argmax([accuracy(c) for c in COARSE]))]
    left, right = np.log10(peak) - 1, np.log10(peak) + 1
    for _ in range(FINE_STEPS):
        middle = (left + right) / 2
        if accuracy(10**left) < accuracy(10**right):
            best, left = right, middle
        else:
            best, right = left, middle
    return 10**best


class Features:
    """Features of images by path, float32, each image encoded once, without augmentation."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.encoder = load_clip(cfg).visual.to(self.device)
        self.transform = build_transform(cfg, is_train=False)
        self.known = {}

    @torch.no_grad()
    def __call__(self, datums):
        """(features (n, dim), labels (n,)) of a list of `Datum`."""
        new = [datum for datum in datums if datum.impath not in self.known]
        loader = DataLoader(DatasetWrapper(self.cfg, new, self.transform), self.cfg.DATALOADER.TEST.BATCH_SIZE,
                            num_workers=self.cfg.DATALOADER.NUM_WORKERS)
        for batch in loader if new else ():
            features = self.encoder(batch["img"].to(self.device)).float().cpu().numpy()
            self.known.update(zip(batch["impath"], features))
        return np.stack([self.known[datum.impath] for datum in datums]), np.array([datum.label for datum in datums])


def probe(features, dataset):
    """Fit on the training images with the C that is best on the validation images.

    Returns:
        (classifier, C).

    Raises:
        ValueError: the dataset has more than one task, or no validation images.
    """
    if len(dataset.tasks) != 1:
        raise ValueError(f"the linear probe works on one task, but {len(dataset.tasks)} are chosen: set "
                         "DATASET.SUBSAMPLE_TASKS task<i>")
    if not dataset.val:
        raise ValueError("the linear probe needs validation images to choose its regularisation")
    x, y = features(dataset.train_x)
    x_val, y_val = features(dataset.val)

    def fit(c):
        return LogisticRegression(solver="lbfgs", max_iter=1000, C=c).fit(x, y)

    c = search_c(lambda c: fit(c).score(x_val, y_val))
    return fit(c), c


def run(cfg, features, folder):
    """One (shots, seed): fit, test, log and `results.json`."""
    start = time.time()
    setup_logger(folder)
    dataset = build_dataset(cfg)
    evaluator = build_evaluator(cfg, tasks=dataset.tasks)
    classifier, c = probe(features, dataset)
    print(f"C = {c:.3g} by {len(dataset.val)} validation images\nFinished training")
    x, y = features(dataset.test)
    scores = torch.zeros(len(y), dataset.num_classes).scatter_(1, torch.from_numpy(classifier.predict(x))[:, None], 1.0)
    evaluator.process(scores, torch.from_numpy(y))
    metric = evaluator.evaluate()["overall_metric"]
    write_json({
        "trainer": "LP-CLIP", "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED, "overall_metric": metric, "tasks": evaluator.per_task,
        "n_tasks": 1, "n_classes": dataset.num_classes, "n_train": len(dataset.train_x), "n_val": len(dataset.val),
        "n_test": len(dataset.test), "n_params": (x.shape[1] + 1) * dataset.num_classes, "C": float(c),
        "wall_seconds": round(time.time() - start, 2), "config": to_plain(cfg),
    }, osp.join(folder, RESULTS_FILE))


def main():
    parser = build_parser()
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    try:
        cfg = setup_cfg(args)
        features = None
        for shots in args.shots:
            for seed in args.seeds:
                folder = osp.join(cfg.OUTPUT_DIR, f"{shots}shots", f"seed{seed}")
                if osp.isfile(osp.join(folder, RESULTS_FILE)):
                    print(f"Skipping {folder}: it is finished")
                    continue
                features = features or Features(cfg)
                run_cfg = cfg.clone()
                run_cfg.merge_from_list(["DATASET.NUM_SHOTS", shots, "SEED", seed])
                run(run_cfg, features, folder)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {one_sentence(error)}")


if __name__ == "__main__":
    main()
