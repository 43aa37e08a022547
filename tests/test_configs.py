"""The config files that the commands name: all are there, load, and say what the published settings are."""

from types import SimpleNamespace

import pytest

from clip.clip import available_models
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from tests.helpers import REPOSITORY
from train import build_parser, extend_cfg, setup_cfg

CONFIGS = REPOSITORY / "configs"
DATASETS = {
    "general10": "General10", "plant6": "Plant6", "rs8": "RS8", "fashion20": "Fashion20", "shapes8": "Shapes8",
    "folder_tasks": "FolderTasks",
    "caltech101": "Caltech101", "dtd": "DescribableTextures", "eurosat": "EuroSAT", "fgvc_aircraft": "FGVCAircraft",
    "food101": "Food101", "oxford_flowers": "OxfordFlowers", "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars", "sun397": "SUN397", "ucf101": "UCF101",
    "fruit_vegetable": "FruitVegetable", "kaggle_flower": "KaggleFlower", "kaggle_mushroom": "KaggleMushroom",
    "kaggle_vegetable": "KaggleVegetable", "plant_seedling": "PlantSeedlingV1", "plant_village": "PlantVillage",
    "aid": "AID", "nwpu_resisc45": "RESISC45", "optimal31": "OPTIMAL31", "rsi_cb128": "RSICB128", "rsscn7": "RSSCN7",
    "uc_merced": "UCMerced", "whu_rs19": "WHURS19",
    "imagenet": "ImageNet", "imagenetv2": "ImageNetV2", "imagenet_sketch": "ImageNetSketch",
    "imagenet_a": "ImageNetA", "imagenet_r": "ImageNetR",
}
BACKBONES = {"rn50": "RN50", "rn101": "RN101", "vit_b32": "ViT-B/32", "vit_b16": "ViT-B/16"}
TRAINERS = {"MTCoOp": "{}_ep50", "MTCoOpHard": "{}_ep50", "ZeroShot": "{}", "LP": "{}_val"}


def load(**flags):
    return setup_cfg(SimpleNamespace(**{**vars(build_parser().parse_args(["--seed", "1"])), **flags}))


def defaults():
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def changed(cfg, other, prefix=""):
    """{key: value} of the leaves of `cfg` that differ from those of `other`."""
    found = {}
    for key, value in cfg.items():
        if isinstance(value, dict):
            found.update(changed(value, other[key], f"{prefix}{key}."))
        elif value != other[key]:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_configs(name):
    cfg = load(dataset_config_file=str(CONFIGS / "datasets" / f"{name}.yaml"))
    assert changed(cfg, defaults()) == {"DATASET.NAME": DATASETS[name], "SEED": 1}
    assert DATASET_REGISTRY.get(cfg.DATASET.NAME).__name__ == DATASETS[name]


def load_trainer(folder, backbone):
    return load(config_file=str(CONFIGS / "trainers" / folder / f"{TRAINERS[folder].format(backbone)}.yaml"))


@pytest.mark.parametrize("folder", TRAINERS)
def test_trainer_configs_of_the_tiny_backbone(folder):
    cfg = load_trainer(folder, "tiny")
    assert cfg.MODEL.BACKBONE.NAME == "tiny" and tuple(cfg.INPUT.SIZE) == (64, 64)


@pytest.mark.parametrize("backbone, name", BACKBONES.items())
@pytest.mark.parametrize("folder", TRAINERS)
def test_trainer_configs_are_the_published_settings(folder, backbone, name):
    cfg = load_trainer(folder, backbone)
    assert cfg.MODEL.BACKBONE.NAME == name in available_models()
    assert tuple(cfg.INPUT.SIZE) == (224, 224) and cfg.INPUT.INTERPOLATION == "bicubic"
    assert list(cfg.INPUT.PIXEL_MEAN) == [0.48145466, 0.4578275, 0.40821073]
    assert list(cfg.INPUT.PIXEL_STD) == [0.26862954, 0.26130258, 0.27577711]
    assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == (16 if folder == "LP" else 32)
    assert (cfg.DATALOADER.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS) == (100, 8) and cfg.TEST.PER_TASK_RESULT
    if folder in ("ZeroShot", "LP"):
        assert list(cfg.INPUT.TRANSFORMS) == ["normalize"]
        return
    assert list(cfg.INPUT.TRANSFORMS) == ["random_resized_crop", "random_flip", "normalize"]
    optim = cfg.OPTIM
    assert (optim.NAME, optim.LR, optim.MAX_EPOCH, optim.LR_SCHEDULER) == ("sgd", 0.002, 50, "cosine")
    assert (optim.WARMUP_EPOCH, optim.WARMUP_TYPE, optim.WARMUP_CONS_LR) == (1, "constant", 1e-5)
    assert cfg.TRAIN.PRINT_FREQ == 5 and cfg.TEST.FINAL_MODEL == "last_step"


def test_no_dataset_config_is_untested():
    assert {path.stem for path in (CONFIGS / "datasets").iterdir()} == set(DATASETS)
