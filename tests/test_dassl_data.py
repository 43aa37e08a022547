"""Datasets, loaders, transforms and evaluation."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dassl.config import get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.samplers import build_sampler
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy
from dassl.utils import set_random_seed

from .coop_style import GreyLevels, make_cfg


@pytest.fixture
def cfg(tmp_path):
    return make_cfg(tmp_path)


def test_data_manager_and_wrapper(cfg, capsys, monkeypatch):
    cfg.DATASET.NUM_SHOTS = 3
    cfg.INPUT.TRANSFORMS = ("normalize",)
    dm = DataManager(cfg)
    out = capsys.readouterr().out
    assert dm.num_classes == 3 and dm.lab2cname[2] == "grey 220"
    assert dm.dataset.classnames == ["grey 40", "grey 120", "grey 220"] and "# train_x  9" in out
    loaders = dm.train_loader_x, dm.val_loader, dm.test_loader
    assert [len(loader.dataset) for loader in loaders] == [9, 6, 12]
    assert len(dm.train_loader_x) == 1  # 9 samples in batches of 6: the rest is dropped
    labels = torch.cat([batch["label"] for batch in dm.test_loader])
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4

    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 10  # more than there are: nothing is dropped
    monkeypatch.setattr(GreyLevels, "val", None)
    dm = DataManager(cfg, custom_tfm_test=[lambda image: torch.zeros(1), lambda image: torch.ones(1)])
    assert dm.val_loader is None and next(iter(dm.train_loader_x))["img"].shape == (9, 3, 8, 8)
    batch = next(iter(dm.test_loader))
    assert batch["img"].sum() == 0 and batch["img2"].sum() == 12
    assert batch["index"].tolist() == list(range(12))
    assert batch["impath"][5] == dm.dataset.test[5].impath and batch["domain"].tolist() == [0] * 12

    cfg.DATALOADER.merge_from_list(["K_TRANSFORMS", 2, "RETURN_IMG0", True])
    item = DatasetWrapper(cfg, dm.dataset.train_x, build_transform(cfg), is_train=True)[0]
    assert len(item["img"]) == 2 and torch.equal(item["img"][0], item["img0"])
    with pytest.raises(ValueError, match="K_TRANSFORMS"):
        DatasetWrapper(cfg, dm.dataset.train_x, None, is_train=True)
    cfg.DATASET.NAME = "GreyLevel"
    with pytest.raises(ValueError, match="GreyLevels"):
        DataManager(cfg)


def test_fewshot_and_dataset_base(cfg):
    dataset = GreyLevels(cfg)
    shots, more = dataset.generate_fewshot_dataset(dataset.train_x, dataset.val, num_shots=4)
    assert [item.label for item in shots] == [0] * 4 + [1] * 4 + [2] * 4 and len(set(shots)) == 12
    assert len(more) == 6  # two a class is all there are
    assert len(dataset.generate_fewshot_dataset(dataset.val, num_shots=4, repeat=True)) == 12
    assert dataset.generate_fewshot_dataset(dataset.val) is dataset.val
    some = [Datum("a", 4, classname="four"), Datum("b", 1, classname="one"), Datum("c", 4, classname="four")]
    assert DatasetBase.get_num_classes(some) == 5
    assert DatasetBase.get_lab2cname(some) == ({1: "one", 4: "four"}, ["one", "four"])
    with pytest.raises(AttributeError):
        dataset.val[0].label = 1
    with pytest.raises(ValueError, match="no training sample"):
        DatasetBase(train_x=[], test=dataset.test)


def test_stored_fewshot_draw_is_taken_again(cfg):
    cfg.merge_from_list(["DATASET.NUM_SHOTS", 2, "SEED", 3])
    set_random_seed(0)
    first = [item.impath for item in GreyLevels(cfg).train_x]
    set_random_seed(1)
    assert [item.impath for item in GreyLevels(cfg).train_x] == first and len(first) == 6
    cfg.SEED = 4
    assert [item.impath for item in GreyLevels(cfg).train_x] != first
    cfg.DATASET.SUBSAMPLE_CLASSES = "base"
    base = GreyLevels(cfg)
    assert (base.num_classes, base.lab2cname, len(base.test)) == (2, {0: "grey 40", 1: "grey 120"}, 8)


def test_samplers():
    random.seed(0)
    source = [Datum(f"{i}", label=i % 5) for i in range(60)]
    sampler = build_sampler("RandomClassSampler", data_source=source, batch_size=6, n_ins=3)
    orders = [list(sampler) for _ in range(20)]
    assert {len(order) for order in orders} == {len(sampler)} and orders[0] != orders[1]
    order = orders[0]
    for i in range(0, len(order), 6):
        labels = [source[j].label for j in order[i : i + 6]]
        assert sorted(labels.count(x) for x in set(labels)) == [3, 3]
    assert list(build_sampler("SequentialSampler", data_source=source)) == list(range(60))
    assert sorted(build_sampler("RandomSampler", data_source=source)) == list(range(60))
    with pytest.raises(ValueError, match="needs 10 classes"):
        build_sampler("RandomClassSampler", data_source=source, batch_size=10, n_ins=1)
    with pytest.raises(ValueError, match="RandomSampler"):
        build_sampler("RandomSampling", data_source=source)


def test_transforms(cfg):
    cfg.INPUT.merge_from_list(["SIZE", (8, 6), "TRANSFORMS", ("normalize",), "INTERPOLATION", "bicubic"])
    image = Image.fromarray(np.full((20, 10, 3), 51, np.uint8))
    expected = (0.2 - torch.tensor(cfg.INPUT.PIXEL_MEAN)) / torch.tensor(cfg.INPUT.PIXEL_STD)
    for is_train in (True, False):
        result = build_transform(cfg, is_train)(image)
        torch.testing.assert_close(result, expected.view(3, 1, 1).expand(3, 8, 6))

    def names(*choices, is_train=True):
        return [type(t).__name__ for t in build_transform(cfg, is_train, choices).transforms]

    flip, colour = names("random_flip", "random_resized_crop"), names("normalize", "colorjitter")
    assert flip == ["RandomResizedCrop", "RandomHorizontalFlip", "ToTensor"]
    assert colour == ["Resize", "ColorJitter", "ToTensor", "Normalize"]
    assert names("random_crop", "randaugment", is_train=False) == ["Resize", "CenterCrop", "ToTensor"]
    cfg.INPUT.GB_K = 3
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 10, 3), np.uint8))
    for choice in AVAI_CHOICES:
        assert build_transform(cfg, True, [choice])(noise).shape == (3, 8, 6), choice
    for unknown in ("flip", "cutout"):
        with pytest.raises(ValueError, match=f"INPUT.TRANSFORMS is '{unknown}', but must be one of .*random_flip"):
            build_transform(cfg, True, [unknown])
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None


def test_classification_evaluator(tmp_path, capsys):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.merge_from_list(["PER_CLASS_RESULT", True, "COMPUTE_CMAT", True])
    evaluator = build_evaluator(cfg, lab2cname={0: "a", 1: "b", 2: "c"})
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluator.evaluate()
    predictions, labels = [0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 1, 1]
    scores = F.one_hot(torch.tensor(predictions), 3).float()
    evaluator.process(scores[:4], torch.tensor(labels[:4]))
    evaluator.process(scores[4:], torch.tensor(labels[4:]))
    results = evaluator.evaluate()
    # F1: class 0 has precision 1 and recall 3/4, class 1 has 1/2 and 1/2; class 2 does not occur
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    expected = [400 / 6, 200 / 6, 100 * (6 / 7 + 1 / 2) / 2, 62.5]
    np.testing.assert_allclose(list(results.values()), expected)
    out = capsys.readouterr().out
    block = "=> result\n* total: 6\n* correct: 4\n* accuracy: 66.7%\n* error: 33.3%\n* macro_f1: 67.9%\n"
    assert block in out and "* class: 1 (b)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n* average: 62.5%" in out
    cmat = torch.load(tmp_path / "cmat.pt", weights_only=True)
    assert cmat.tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]
    evaluator.reset()
    evaluator.process(scores[3:5], torch.tensor([0, 1]))
    assert evaluator.evaluate()["accuracy"] == 50.0


def test_accuracy():
    output = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
    top1, top2 = compute_accuracy(output, torch.tensor([1, 2, 2, 2]), topk=(1, 2))
    assert top1.shape == (1,) and (top1.item(), top2.item()) == (50.0, 75.0)
    assert compute_accuracy((output, None), torch.tensor([1, 2, 2, 2]))[0].item() == 50.0
