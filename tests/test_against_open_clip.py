"""Zero-shot with a folder that open_clip saved, image by image against open_clip alone, which reads and transforms too.

As a program, on any dataset and model: python -m tests.test_against_open_clip ROOT DATASET FOLDER
"""

import json
import sys

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from runs.config import read_yaml
from tests.helpers import REPOSITORY, call, train_args


def logits_of_ours(arguments, batches):
    """Scores (n, n_cls) of all test images, as `train.py` evaluates them; the trainer."""
    from trainers.evaluation import ClassificationMT
    process = ClassificationMT.process

    def keep(self, mo, gt):
        batches.append(mo)
        process(self, mo, gt)

    ClassificationMT.process = keep
    try:
        trainer = call(arguments)
    finally:
        ClassificationMT.process = process
    return torch.cat(batches), trainer


@torch.no_grad()
def logits_of_open_clip(folder, datums, tasks, task_of_class):
    """The same by open_clip's model, tokenizer and preprocessing, an image at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    texts = [task.template.format(name.replace("_", " ")) for task in tasks for name in task.classnames]
    classes = model.encode_text(tokenizer(texts), normalize=True)  # (n_cls, dim)
    tasks_of = torch.tensor(task_of_class)
    rows = []
    for datum in datums:
        with Image.open(datum.impath) as image:
            pixels = preprocess(image)  # converts to RGB
        scores = model.logit_scale.exp() * model.encode_image(pixels[None], normalize=True) @ classes.T
        rows.append(scores[0].masked_fill(tasks_of != tasks_of[datum.label], float("-inf")))
    return torch.stack(rows)


def compare(root, dataset, folder, output, **options):
    """(largest difference of a logit, number of images with another prediction, number of images, accuracy)."""
    declared = {key: value for key, value, _ in read_yaml(str(REPOSITORY / "configs" / "datasets" / f"{dataset}.yaml"))}
    arguments = train_args(root, f"local-dir:{folder}", output, "ZeroshotCLIP", "--eval-only", **declared, **options)
    for key in ("INPUT.SIZE", "DATASET.NUM_SHOTS"):  # the model's own size; all images
        i = arguments.index(key)
        del arguments[i:i + 2]
    ours, trainer = logits_of_ours(arguments, [])
    data = trainer.dataset
    theirs = logits_of_open_clip(folder, data.test, data.tasks, data.task_of_class)
    own = theirs.isfinite()
    assert torch.equal(own, ours.isfinite())
    labels = torch.tensor([datum.label for datum in data.test])
    return (float((ours - theirs)[own].abs().max()), int((ours.argmax(1) != theirs.argmax(1)).sum()), len(labels),
            float((theirs.argmax(1) == labels).float().mean()))


def save_model(folder, preprocess):
    """A small random ViT CLIP in the folder layout of open_clip."""
    folder.mkdir()
    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    save_file({name: value.contiguous() for name, value in model.state_dict().items()},
              folder / "open_clip_model.safetensors")
    return folder


def test_zero_shot_is_open_clips(photo_root, tmp_path):
    for i, preprocess in enumerate(({"size": 32}, {"size": 32, "mean": [.5] * 3, "std": [.4] * 3,
                                                   "interpolation": "bilinear", "resize_mode": "squash"})):
        folder = save_model(tmp_path / f"model{i}", preprocess)
        difference, moved, n, _ = compare(photo_root, "folder_tasks", folder, tmp_path / f"out{i}",
                                          **{"DATASET.SPLIT_DIR": tmp_path / "splits"})
        assert n == 20 and difference < 2e-5 and moved == 0


if __name__ == "__main__":
    import tempfile
    with tempfile.TemporaryDirectory() as place:
        found = compare(*sys.argv[1:4], f"{place}/out", **{"DATASET.SPLIT_DIR": f"{place}/splits"})
    print("largest difference {:.1e}, {} of {:,} predictions differ, accuracy {:.2%}".format(*found))
