"""General-10, ImageNet and its shifted test sets, on miniature trees in the layout of the official files."""

import json
import re
from collections import Counter
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from open_clip import IMAGENET_CLASSNAMES
from scipy.io import savemat

from dassl.data.datasets import build_dataset
from runs.config import read_yaml
from tests.helpers import REPOSITORY, call, make_cfg, results, train_args
from tests.miniature import EUROSAT_NAMES, GENERAL, WHOLE, make_general as make, write_images, write_lines

pytestmark = pytest.mark.usefixtures("few_classes")

# config name: (class, task name, metric, template)
DECLARED = {
    "caltech101": ("Caltech101", "object category recognition", "mean_acc", "a photo of a {}."),
    "dtd": ("DescribableTextures", "texture recognition", "overall_acc", "{} texture."),
    "eurosat": ("EuroSAT", "satellite land use recognition", "overall_acc", "a centered satellite photo of {}."),
    "fgvc_aircraft": ("FGVCAircraft", "aircraft model recognition", "mean_acc",
                      "a photo of a {}, a type of aircraft."),
    "food101": ("Food101", "food recognition", "overall_acc", "a photo of {}, a type of food."),
    "oxford_flowers": ("OxfordFlowers", "flower species recognition", "mean_acc",
                       "a photo of a {}, a type of flower."),
    "oxford_pets": ("OxfordPets", "pet breed recognition", "mean_acc", "a photo of a {}, a type of pet."),
    "stanford_cars": ("StanfordCars", "car model recognition", "overall_acc", "a photo of a {}."),
    "sun397": ("SUN397", "scene recognition", "overall_acc", "a photo of a {}."),
    "ucf101": ("UCF101", "human action recognition", "overall_acc", "a photo of a person doing {}."),
}


def build(root, config, **options):
    """The dataset that `configs/datasets/<config>.yaml` names, with all training images unless options say else."""
    declared = {key: value for key, value, _ in read_yaml(str(REPOSITORY / "configs" / "datasets" / f"{config}.yaml"))}
    return build_dataset(make_cfg(root, {"DATASET.NUM_SHOTS": -1, **declared, **options}))


def counts(dataset):
    return [Counter(datum.label for datum in part) for part in (dataset.train_x, dataset.val, dataset.test)]


@pytest.fixture(scope="module")
def general_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("general10")
    for config, (_, _, n, *_) in GENERAL.items():
        make(root, config, n)
    return root


# ------------------------------------------------------------------ General-10
@pytest.mark.parametrize("config", GENERAL)
def test_official_files(config, general_root):
    folder, _, n, names, sizes = GENERAL[config]
    name, task_name, metric, template = DECLARED[config]
    dataset = build(general_root, config)
    assert type(dataset).__name__ == name
    task, = dataset.tasks
    assert (task.name, task.metric, task.template) == (task_name, metric, template)
    assert len(task.classnames) == n and {label: task.classnames[label] for label in names} == names
    assert counts(dataset) == [{label: size for label in range(n)} for size in sizes]
    paths = [datum.impath for part in (dataset.train_x, dataset.val, dataset.test) for datum in part]
    assert len(set(paths)) == len(paths) and all(Path(path).is_relative_to(general_root / folder) for path in paths)
    # every drawn split is stored, every official one is not
    stored = general_root / folder / "split_fewshot" / "split.json"
    if config == "fgvc_aircraft":
        assert not stored.exists()
    else:
        drawn = json.loads(stored.read_text())
        assert {part: len(drawn[part]) for part in drawn} == dict(
            zip(("train", "val", "test"), [n * size for size in sizes[:3 if sizes == WHOLE else 2]]))


@pytest.mark.parametrize("config, image, name", [
    ("fgvc_aircraft", "images/0000201.jpg", "F-16A/B"),
    ("oxford_flowers", "jpg/image_00104.jpg", "hard-leaved pocket orchid"),
    ("oxford_pets", "images/american_bulldog_101.jpg", "american bulldog"),
    ("stanford_cars", "cars_test/00198.jpg", "2012 Ram C/V Cargo Van Minivan"),
    ("sun397", "SUN397/a/apse/indoor/sun_testing1.jpg", "indoor apse"),
    ("ucf101", "UCF-101-midframes/Handstand_Pushups/v_HandStandPushups_g02_c01.jpg", "Handstand Pushups"),
    ("eurosat", "2750/SeaLake/image_0002.jpg", "Sea or Lake"),
])
def test_an_image_has_its_class(config, image, name, general_root):
    dataset = build(general_root, config)
    found = {datum.impath: datum.classname for part in (dataset.train_x, dataset.val, dataset.test) for datum in part}
    assert found[str(general_root / GENERAL[config][0] / image)] == name


@pytest.mark.parametrize("config, of_test", [
    ("fgvc_aircraft", r"/2\d{6}\.jpg"), ("oxford_pets", r"_10[12]\.jpg"), ("stanford_cars", "/cars_test/"),
    ("sun397", "/sun_testing"), ("ucf101", "_g0[12]_")])
def test_official_lists_keep_test_images_apart(config, of_test, general_root):
    dataset = build(general_root, config)
    assert all(re.search(of_test, datum.impath) for datum in dataset.test)
    assert not any(re.search(of_test, datum.impath) for datum in dataset.train_x + dataset.val)


def test_general10_joins_ten_tasks(general_root):
    dataset = build(general_root, "general10", **{"DATASET.NUM_SHOTS": 2})
    assert [task.name for task in dataset.tasks] == [declared[1] for declared in DECLARED.values()]
    assert dataset.num_classes == 1191 and len(dataset.tasks) == 10
    assert [len(task.classnames) for task in dataset.tasks] == [row[2] for row in GENERAL.values()]
    assert dataset.task_of_class[-1] == 9 and dataset.task_of_class.count(8) == 397
    # min(shots, 4) of the one or two validation images there are
    in_val = {label: 2 if dataset.task_of_class[label] == 3 else 1 for label in range(1191)}
    assert counts(dataset)[:2] == [{label: 2 for label in range(1191)}, in_val]
    again = build(general_root, "general10", **{"DATASET.NUM_SHOTS": 2})
    assert [datum.impath for datum in again.train_x] == [datum.impath for datum in dataset.train_x]
    # each member stores its own draw, so a task alone sees the same images
    pets = build(general_root, "oxford_pets", **{"DATASET.NUM_SHOTS": 2})
    assert [datum.impath for datum in pets.train_x] == [
        datum.impath for datum in dataset.train_x if dataset.task_of_class[datum.label] == 6]


def test_general10_halves(general_root):
    base = build(general_root, "general10", **{"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": "base"})
    new = build(general_root, "general10", **{"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": "new"})
    sizes = [row[2] for row in GENERAL.values()]
    assert [len(task.classnames) for task in base.tasks] == [ceil(n / 2) for n in sizes] and base.num_classes == 598
    assert [len(task.classnames) for task in new.tasks] == [n // 2 for n in sizes] and new.num_classes == 593
    assert base.tasks[2].classnames == EUROSAT_NAMES[:5] and new.tasks[2].classnames == EUROSAT_NAMES[5:]
    assert [len(part.train_x) for part in (base, new)] == [598, 593]
    assert set(counts(new)[2]) == set(range(593))


# ------------------------------------------------------------------ CoOp's split files
def write_split_zhou(folder, image_dir, name, entries=None):
    """Images and CoOp's split file of two classes, and nothing else of the dataset."""
    split = entries or {part: [[f"{label}/{part}{i}.jpg", label, ("old_oak", "Ash")[label]] for label in (0, 1)
                               for i in range(count)] for part, count in (("train", 6), ("val", 5), ("test", 1))}
    for items in split.values():
        for image, *_ in items:
            write_images((folder / image_dir / image).parent, [Path(image).name])
    (folder / f"split_zhou_{name}.json").write_text(json.dumps(split))


@pytest.mark.parametrize("config, image_dir", [
    ("caltech101", "101_ObjectCategories"), ("dtd", "images"), ("eurosat", "2750"), ("food101", "images"),
    ("oxford_flowers", "jpg"), ("oxford_pets", "images"), ("stanford_cars", ""), ("sun397", "SUN397"),
    ("ucf101", "UCF-101-midframes")])
def test_split_zhou_is_used_where_it_is(config, image_dir, tmp_path):
    folder = tmp_path / GENERAL[config][0]
    write_split_zhou(folder, image_dir, DECLARED[config][0])
    dataset = build(tmp_path, config)
    assert dataset.tasks[0].classnames == ("old oak", "Ash")
    assert counts(dataset) == [{0: size, 1: size} for size in (6, 5, 1)]
    assert {Path(datum.impath).name for datum in dataset.test} == {"test0.jpg"}
    assert not (folder / "split_fewshot" / "split.json").exists()
    few = build(tmp_path, config, **{"DATASET.NUM_SHOTS": 5})
    assert counts(few) == [{0: size, 1: size} for size in (5, 4, 1)]
    assert {datum.impath for datum in few.train_x} < {datum.impath for datum in dataset.train_x}


def test_split_zhou_goes_before_the_official_files(tmp_path):
    folder = make(tmp_path, "oxford_pets")
    assert counts(build(tmp_path, "oxford_pets"))[2] == {0: 2, 1: 2, 2: 2}
    write_split_zhou(folder, "images", "OxfordPets")
    assert build(tmp_path, "oxford_pets").tasks[0].classnames == ("old oak", "Ash")


@pytest.mark.parametrize("split, message", [
    ({"train": [["a.jpg", 0, "oak"]], "val": []}, "has no list 'test'"),
    ({"train": [["a.jpg", 0]], "val": [], "test": []}, r"train\[0\]\[2\] is missing"),
    ({"train": [["a.jpg", 0, "oak"]], "val": [], "test": [["b.jpg", 0, "ash"]]}, "one class name"),
    ({"train": [["a.jpg", 1, "oak"]], "val": [], "test": [["b.jpg", 2, "ash"]]}, "one class name"),
])
def test_malformed_split_zhou(split, message, tmp_path):
    write_split_zhou(tmp_path / "dtd", "images", "DescribableTextures", split)
    with pytest.raises(ValueError, match=f"split_zhou_DescribableTextures.json.*{message}.*or delete it"):
        build(tmp_path, "dtd")


def test_split_zhou_that_is_no_json(tmp_path):
    write_lines(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", ["<html>"])
    with pytest.raises(ValueError, match="split_zhou_DescribableTextures.json.*not valid JSON"):
        build(tmp_path, "dtd")


# ------------------------------------------------------------------ missing and malformed files
@pytest.mark.parametrize("config, missing", [
    ("fgvc_aircraft", "variants.txt"), ("fgvc_aircraft", "images_variant_val.txt"),
    ("fgvc_aircraft", "images/0000001.jpg"),
    ("oxford_flowers", "imagelabels.mat"), ("oxford_flowers", "cat_to_name.json"),
    ("oxford_flowers", "jpg/image_00007.jpg"),
    ("oxford_pets", "annotations/trainval.txt"), ("oxford_pets", "annotations/test.txt"),
    ("stanford_cars", "devkit/cars_meta.mat"), ("stanford_cars", "devkit/cars_train_annos.mat"),
    ("stanford_cars", "cars_test_annos_withlabels.mat"), ("stanford_cars", "cars_train/00002.jpg"),
    ("sun397", "ClassName.txt"), ("sun397", "Training_01.txt"), ("sun397", "Testing_01.txt"),
    ("ucf101", "ucfTrainTestlist/classInd.txt"), ("ucf101", "ucfTrainTestlist/trainlist01.txt"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt"),
])
def test_a_missing_file_is_named(config, missing, tmp_path):
    folder = make(tmp_path, config)
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder / missing}.*(put|check)"):
        build(tmp_path, config)


@pytest.mark.parametrize("config", ["caltech101", "dtd", "eurosat", "food101"])
def test_missing_and_empty_folders_are_named(config, tmp_path):
    folder = tmp_path / GENERAL[config][0]
    with pytest.raises(FileNotFoundError, match=f"{folder} does not exist, check --root"):
        build(tmp_path, config)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist: unpack the dataset's images there"):
        build(tmp_path, config)
    make(tmp_path, config)
    images, = folder.iterdir()
    (images / "zebra").mkdir()
    with pytest.raises(ValueError, match="class folder .*zebra holds no image"):
        build(tmp_path, config)


@pytest.mark.parametrize("config, path, line", [
    ("fgvc_aircraft", "images_variant_train.txt", "0000000"),
    ("fgvc_aircraft", "images_variant_test.txt", "0000000 Zeppelin"),
    ("oxford_pets", "annotations/trainval.txt", "Abyssinian_7 cat 1 1"),
    ("oxford_pets", "annotations/test.txt", "zebra_7 3 1 1"),
    ("sun397", "ClassName.txt", "abbey"),
    ("sun397", "Testing_01.txt", "/z/zoo/sun_a.jpg"),
    ("ucf101", "ucfTrainTestlist/classInd.txt", "ApplyEyeMakeup"),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", "v_YoYo_g08_c01.avi 3"),
])
def test_a_malformed_line_is_named(config, path, line, tmp_path):
    path = make(tmp_path, config) / path
    lines = path.read_text().splitlines()
    write_lines(path, [lines[0], "", line, *lines[1:]])
    with pytest.raises(ValueError, match=f"{path}, line 3: '{line}' is malformed or names an unknown class: fetch"):
        build(tmp_path, config)


@pytest.mark.parametrize("config, path, content, message", [
    ("oxford_flowers", "imagelabels.mat", None, "is a web page: fetch the official file again"),
    ("oxford_flowers", "imagelabels.mat", {"other": [1]}, "is not a MATLAB file with the array 'labels': fetch"),
    ("oxford_flowers", "imagelabels.mat", {"labels": [1, 2, 9]}, "does not name all 9 classes"),
    ("stanford_cars", "cars_test_annos_withlabels.mat", {"annotations": {"fname": "00001.jpg"}},
     "the array 'annotations' with the fields fname, class: fetch"),
    ("stanford_cars", "devkit/cars_meta.mat", {"class_names": np.array(["A B 2000"], dtype=object)},
     "cars_train_annos.mat has classes that devkit/cars_meta.mat does not name: fetch"),
])
def test_a_malformed_mat_file_is_named(config, path, content, message, tmp_path):
    path = make(tmp_path, config) / path
    if content is None:
        path.write_bytes(b"<html>Not found</html>" * 20)
    else:
        savemat(path, content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, config)


def test_a_stored_split_must_fit(tmp_path):
    folder = make(tmp_path, "oxford_pets")
    first = build(tmp_path, "oxford_pets")
    assert {d.impath for d in build(tmp_path, "oxford_pets").val} == {d.impath for d in first.val}
    lines = (folder / "annotations" / "trainval.txt").read_text().splitlines()
    write_lines(folder / "annotations" / "trainval.txt", lines[:-1])
    with pytest.raises(ValueError, match=r"lacks 1 that it does \(one is .*_5.jpg\): delete that file"):
        build(tmp_path, "oxford_pets")


# ------------------------------------------------------------------ ImageNet
# Some of CLIP's names, among them the two that stand for two classes each.
NAMES = [name for i, name in enumerate(IMAGENET_CLASSNAMES) if i < 36 or IMAGENET_CLASSNAMES.count(name) > 1]
WORDNET_IDS = [f"n{1440764 + i:08d}" for i in range(len(NAMES))]
RENDITIONS = WORDNET_IDS[2::5]  # the classes of the made-up ImageNet-A and -R
SHIFTED = {"imagenetv2": ("imagenetv2", "imagenetv2-matched-frequency-format-val"),
           "imagenet_sketch": ("imagenet-sketch", "images"),
           "imagenet_a": ("imagenet-adversarial", "imagenet-a"), "imagenet_r": ("imagenet-rendition", "imagenet-r")}


def make_shifted(root, config, ids=WORDNET_IDS, folders=None, images=1):
    folder, image_dir = SHIFTED[config]
    for name in folders if folders is not None else ids:
        write_images(root / folder / image_dir / str(name), [f"{i}.JPEG" for i in range(images)])
    write_lines(root / folder / "classnames.txt", map(" ".join, zip(ids, NAMES)))
    return root / folder


def make_imagenet(root, n):
    for wordnet_id in WORDNET_IDS[:n]:
        for part, count in (("train", 5), ("val", 1)):
            write_images(root / "imagenet" / "images" / part / wordnet_id,
                         [f"{wordnet_id}_{i}.JPEG" for i in range(count)])
    write_lines(root / "imagenet" / "classnames.txt", map(" ".join, zip(WORDNET_IDS[:n], NAMES)))


@pytest.fixture(scope="module")
def imagenet_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    make_imagenet(root, len(NAMES))
    make_shifted(root, "imagenetv2", folders=range(len(NAMES)))
    make_shifted(root, "imagenet_sketch")
    for config, readme in (("imagenet_a", "imagenet-adversarial/imagenet-a"),
                           ("imagenet_r", "imagenet-rendition/imagenet-r")):
        make_shifted(root, config, folders=RENDITIONS)
        (root / readme / "README.txt").write_text("About this set\n")
    return root


def test_imagenet(imagenet_root):
    dataset = build(imagenet_root, "imagenet")
    task, = dataset.tasks
    assert (task.name, task.metric, task.template) == ("object recognition", "overall_acc", "a photo of a {}.")
    assert list(task.classnames) == NAMES and dataset.num_classes == 40
    assert counts(dataset) == [{label: size for label in range(40)} for size in (4, 1, 1)]
    assert all("/images/val/" in datum.impath for datum in dataset.test)
    assert all(f"/images/train/{WORDNET_IDS[datum.label]}/" in datum.impath for datum in dataset.train_x + dataset.val)


def test_imagenet_draws_for_classes_of_the_same_name(imagenet_root):
    twins = [label for label, name in enumerate(NAMES) if NAMES.count(name) > 1]
    assert len(twins) == 4
    for _ in range(2):  # drawn, then read back
        dataset = build(imagenet_root, "imagenet", **{"DATASET.NUM_SHOTS": 2})
        assert counts(dataset) == [{label: size for label in range(40)} for size in (2, 1, 1)]
        assert all(f"/train/{WORDNET_IDS[datum.label]}/" in datum.impath for datum in dataset.train_x)
    new = build(imagenet_root, "imagenet", **{"DATASET.NUM_SHOTS": 2, "DATASET.SUBSAMPLE_CLASSES": "new"})
    assert list(new.tasks[0].classnames) == NAMES[20:] and len(new.train_x) == 40


@pytest.mark.parametrize("config, name", [("imagenetv2", "ImageNetV2"), ("imagenet_sketch", "ImageNetSketch"),
                                          ("imagenet_a", "ImageNetA"), ("imagenet_r", "ImageNetR")])
def test_shifted_test_sets(config, name, imagenet_root):
    dataset = build(imagenet_root, config, **{"DATASET.NUM_SHOTS": 16})
    assert type(dataset).__name__ == name and dataset.tasks[0].name == "object recognition"
    expected = NAMES[2::5] if config in ("imagenet_a", "imagenet_r") else NAMES
    assert dataset.classnames == expected
    assert counts(dataset) == [{}, {}, {label: 1 for label in range(len(expected))}]
    folders = {"imagenetv2": list(map(str, range(40))), "imagenet_sketch": WORDNET_IDS}.get(config, RENDITIONS)
    assert all(Path(datum.impath).parent.name == folders[datum.label] for datum in dataset.test)
    assert not (imagenet_root / SHIFTED[config][0] / "split_fewshot").exists()
    base = build(imagenet_root, config, **{"DATASET.SUBSAMPLE_CLASSES": "base"})
    assert base.classnames == expected[:len(expected) // 2] and len(base.test) == len(expected) // 2


@pytest.mark.parametrize("config", SHIFTED)
def test_shifted_test_sets_need_classnames(config, tmp_path):
    folders = range(3) if config == "imagenetv2" else WORDNET_IDS[:3]
    path = make_shifted(tmp_path, config, WORDNET_IDS[:3], folders) / "classnames.txt"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} does not exist: put"):
        build(tmp_path, config)
    write_lines(path, ["n00000001"])
    with pytest.raises(ValueError, match=f"{path}, line 1: 'n00000001' is malformed"):
        build(tmp_path, config)


@pytest.mark.parametrize("config, absent", [("imagenetv2", "2"), ("imagenet_sketch", WORDNET_IDS[2])])
def test_a_missing_class_folder_is_named(config, absent, tmp_path):
    folders = [name for name in (range(3) if config == "imagenetv2" else WORDNET_IDS[:3]) if str(name) != absent]
    make_shifted(tmp_path, config, WORDNET_IDS[:3], folders)
    with pytest.raises(FileNotFoundError, match=f"class folder .*/{absent} does not exist"):
        build(tmp_path, config)


def test_a_class_folder_without_name_is_named(tmp_path):
    make_shifted(tmp_path, "imagenet_a", WORDNET_IDS[:3], [*WORDNET_IDS[:3], "n99999999"])
    with pytest.raises(ValueError, match="imagenet-a/n99999999 is no class of .*classnames.txt"):
        build(tmp_path, "imagenet_a")


def test_imagenet_without_training_folder(tmp_path):
    make_imagenet(tmp_path, 2)
    (tmp_path / "imagenet" / "images" / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"images/train/{WORDNET_IDS[0]} does not exist"):
        build(tmp_path, "imagenet")


def test_a_model_of_imagenet_is_tested_on_a_shifted_set(backbone, tmp_path):
    make_imagenet(tmp_path, 4)
    make_shifted(tmp_path, "imagenet_r", WORDNET_IDS[:4], WORDNET_IDS[:2], images=3)
    options = {"DATASET.NUM_SHOTS": 2, "TRAINER.MTCOOPH.N_CTX": 2, "TRAINER.MTCOOPH.PREC": "fp32",
               "OPTIM.MAX_EPOCH": 1}

    def call_on(name, output, *flags):
        call(train_args(tmp_path, backbone, tmp_path / output, "MTCoOpHard", *flags,
                        **{**options, "DATASET.NAME": name}))

    call_on("ImageNet", "trained")
    call_on("ImageNetR", "tested", "--eval-only", "--model-dir", str(tmp_path / "trained"))
    written = results(tmp_path / "tested")
    assert (written["n_classes"], written["n_train"], written["tasks"][0]["total"]) == (2, 0, 6)
    with pytest.raises(ValueError, match="ImageNetR has no training images: use --eval-only"):
        call_on("ImageNetR", "refused")
