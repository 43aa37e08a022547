"""The config files that the commands name: all are there, load, and say what the published settings are."""

import hashlib
import subprocess
from collections import defaultdict
from types import SimpleNamespace

import pytest

from clip.clip import available_models
from common.errors import MissingFile, UserError
from dassl.data.datasets import DATASET_REGISTRY
from runs.config import BASE, build_parser, make_cfg, read_yaml, setup_cfg
from runs.keys import default_cfg
from runs.methods import TRAINERS as METHODS
from tests.helpers import REPOSITORY
from trainers.multitask_clip import load_clip

CONFIGS = REPOSITORY / "configs"
DATASETS = {
    "general10": "General10", "plant6": "Plant6", "rs8": "RS8", "fashion20": "Fashion20", "outfits16": "Outfits16",
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
METHOD_OF = {"MTCoOp": "MTCoOp", "MTCoOpHard": "MTCoOpHard", "ZeroShot": "ZeroshotCLIP", "LP": ""}


def load(**flags):
    return setup_cfg(SimpleNamespace(**{**vars(build_parser().parse_args(["--seed", "1"])), **flags}))


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
    assert changed(cfg, default_cfg()) == {"DATASET.NAME": DATASETS[name], "SEED": 1}
    assert DATASET_REGISTRY.get(cfg.DATASET.NAME).__name__ == DATASETS[name]


def load_trainer(folder, backbone):
    return load(config_file=str(CONFIGS / "trainers" / folder / f"{TRAINERS[folder].format(backbone)}.yaml"))


@pytest.mark.parametrize("folder", TRAINERS)
def test_trainer_configs_of_the_tiny_backbone(folder):
    cfg = load_trainer(folder, "tiny")
    assert cfg.MODEL.BACKBONE.NAME == "tiny"
    load_clip(cfg)
    assert tuple(cfg.INPUT.SIZE) == (64, 64)


@pytest.mark.parametrize("backbone, name", BACKBONES.items())
@pytest.mark.parametrize("folder", TRAINERS)
def test_trainer_configs_are_the_published_settings(folder, backbone, name):
    cfg = load_trainer(folder, backbone)
    assert cfg.MODEL.BACKBONE.NAME == name in available_models() and cfg.TRAINER.NAME == METHOD_OF[folder]
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


@pytest.mark.parametrize("backbone, name", [*BACKBONES.items(), ("tiny", "tiny")])
@pytest.mark.parametrize("method", ["CoCoOp", "KgCoOp", "PLOT", "ProGrad", "ProtoNet"])
def test_other_methods_share_the_schedule(method, backbone, name):
    """`configs/trainers/<cfg>.yaml` with `--trainer`: all but the method and its options are CoOp's."""
    cfg = load(config_file=str(CONFIGS / "trainers" / f"{backbone}_ep50.yaml"), trainer=method)
    coop = load_trainer("MTCoOpHard", backbone)
    assert cfg.MODEL.BACKBONE.NAME == name and changed(cfg, coop) == {"TRAINER.NAME": method}
    assert method in METHODS


def yaml_files():
    found = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.yaml", "*.yml"],
                           cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    return [REPOSITORY / path for path in found if (REPOSITORY / path).exists()]


@pytest.mark.parametrize("folder", ["", "MTCoOp", "MTCoOpHard"])
def test_tiny_ep100_has_twice_the_epochs_and_nothing_else(folder):
    once, twice = ({key: value for key, value, _ in read_yaml(str(CONFIGS / "trainers" / folder / f"tiny_ep{n}.yaml"))}
                   for n in (50, 100))
    assert once.pop("OPTIM.MAX_EPOCH") == 50 and twice.pop("OPTIM.MAX_EPOCH") == 100 and once == twice


def test_no_dataset_config_is_untested():
    assert {path.stem for path in (CONFIGS / "datasets").iterdir()} == set(DATASETS)


def test_no_trainer_config_is_untested():
    ours = [path for path in yaml_files() if path.is_relative_to(CONFIGS / "trainers")]
    tested = {CONFIGS / "trainers" / folder / f"{name.format(backbone)}.yaml"
              for folder, name in TRAINERS.items() for backbone in [*BACKBONES, "tiny"]}
    tested |= {CONFIGS / "trainers" / f"{backbone}_ep50.yaml" for backbone in [*BACKBONES, "tiny"]}
    tested |= {CONFIGS / "trainers" / folder / "tiny_ep100.yaml" for folder in ("", "MTCoOp", "MTCoOpHard")}
    assert set(ours) - tested == {CONFIGS / "trainers" / name for name in ("clip.yaml", "ep50.yaml")}  # all's bases


def test_no_two_files_have_the_same_content():
    """Neither byte for byte, nor in what they set."""
    files, bytes_of, settings_of = yaml_files(), defaultdict(list), defaultdict(list)
    assert len(files) > len(DATASETS)
    for path in files:
        bytes_of[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
        settings = {key: value for key, value, _ in read_yaml(str(path))}
        settings_of[repr(sorted(settings.items()))].append(path)
    assert [paths for found in (bytes_of, settings_of) for paths in found.values() if len(paths) > 1] == []


# ---------------------------------------------------------------- _BASE_
def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_base_is_read_first_and_relative_to_its_file(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    write(tmp_path, lowest="OPTIM:\n  LR: 0.1\n  MAX_EPOCH: 7\nSEED: 3\n",
          middle=f"{BASE}: lowest.yaml\nOPTIM:\n  LR: 0.2\n")
    write(tmp_path / "below", top=f"{BASE}: ../middle.yaml\nSEED: 5\n")
    monkeypatch.chdir("/")
    path = str(tmp_path / "below" / "top.yaml")
    assert [(key, value) for key, value, _ in read_yaml(path)] == [
        ("OPTIM.LR", 0.1), ("OPTIM.MAX_EPOCH", 7), ("SEED", 3), ("OPTIM.LR", 0.2), ("SEED", 5)]
    cfg = make_cfg(read_yaml(path))
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.SEED) == (0.2, 7, 5)
    assert cfg.sources == {"OPTIM.LR": f"in {tmp_path}/below/../middle.yaml:3",
                           "OPTIM.MAX_EPOCH": f"in {tmp_path}/below/../lowest.yaml:3", "SEED": f"in {path}:2"}


def test_every_base_of_ours_leads_to_clip():
    for path in yaml_files():
        if path.is_relative_to(CONFIGS / "trainers") and path.name != "clip.yaml":
            settings = {key: source for key, _, source in read_yaml(str(path))}
            assert f"{CONFIGS}/trainers" in settings["DATALOADER.TEST.BATCH_SIZE"]
            assert "clip.yaml" in settings["DATALOADER.TEST.BATCH_SIZE"], path
            # These are the backbone's own, so that any backbone can be named on the command line.
            assert not {"INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"} & {*settings}, path


@pytest.mark.parametrize("text, error, message", [
    (f"{BASE}: none.yaml\n", MissingFile, "the config file .*none.yaml does not exist"),
    (f"{BASE}: run.yaml\n", UserError, "_BASE_ is 'run.yaml' .set in .*run.yaml:1., but must be .* itself$"),
    (f"{BASE}: other.yaml\n", UserError, "_BASE_ is 'run.yaml' .set in .*other.yaml:1., but must be .* itself"),
    (f"{BASE}: [a.yaml]\n", UserError, "_BASE_ is .'a.yaml'. .set in .*run.yaml:1., but must be the path of .* file$"),
    (f"{BASE}:\n", UserError, "_BASE_ is None .set in .*run.yaml:1., but must be the path of .* file$"),
    (f"{BASE}: base.py\n", UserError, "base.py must be .yaml"),
])
def test_bases_that_make_no_sense(text, error, message, tmp_path):
    write(tmp_path, run=text, other=f"{BASE}: run.yaml\n")
    (tmp_path / "base.py").write_text("SEED = 1\n")
    with pytest.raises(error, match=message):
        read_yaml(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize("text, message", [
    ("OPTIM:\n  LR: 0.1\n  LR: 0.2\n", "run.yaml:3 sets OPTIM.LR again, line 2 did before"),
    ("OPTIM: 3\n", "there is no config key OPTIM .set in .*run.yaml:1"),
    ("OPTIM:\n  LR: fast\n", "OPTIM.LR is 'fast' .set in .*run.yaml:2., but must be a number"),
    ("OPTIM:\n  LRR: 0.1\n", "no config key OPTIM.LRR .set in .*run.yaml:2.: did you mean OPTIM.LR[?]"),
    ("OPTIM:\n  LR:\n", "OPTIM.LR has no value .set in .*run.yaml:2"),
    ("- OPTIM\n", "run.yaml:1 must hold keys and values"),
    ("OPTIM: [\n", "run.yaml is not valid YAML"),
])
def test_wrong_files_are_named_with_their_line(text, message, tmp_path):
    write(tmp_path, run=text)
    with pytest.raises(UserError, match=message):
        load(config_file=str(tmp_path / "run.yaml"))
