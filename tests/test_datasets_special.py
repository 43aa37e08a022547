"""Plant-6, RS8 and Fashion-20, on miniature trees in the layout of the official files, with all class folders."""

import json
import shutil
from collections import Counter
from math import ceil
from pathlib import Path

import pytest

from common.images import read_image
from dassl.data.datasets import build_dataset
from datasets.rs8 import words_of
from runs.config import read_yaml
from tests.helpers import REPOSITORY, call, make_cfg, results, train_args
from tests.miniature import (
    FASHION,
    ONE_TASK,
    POOLED,
    SUITES,
    fashion_classes,
    make_class_folders as make,
    make_fashion20,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All datasets; splits and draws are stored in it."""
    root = tmp_path_factory.mktemp("data")
    for config in ONE_TASK:
        make(root, config)
    make_fashion20(root)
    return root


def build(root, config, **options):
    """The dataset that `configs/datasets/<config>.yaml` names, with all training images unless options say else."""
    declared = {key: value for key, value, _ in read_yaml(str(REPOSITORY / "configs" / "datasets" / f"{config}.yaml"))}
    return build_dataset(make_cfg(root, {"DATASET.NUM_SHOTS": -1, **declared, **options}))


def counts(dataset):
    return [Counter(datum.label for datum in part) for part in (dataset.train_x, dataset.val, dataset.test)]


def all_paths(dataset):
    return [datum.impath for part in (dataset.train_x, dataset.val, dataset.test) for datum in part]


# ------------------------------------------------------------------ datasets of one task
@pytest.mark.parametrize("config", ONE_TASK)
def test_declaration_and_split(config, root):
    (folder, folders), _, name, task_name, template, some_names = ONE_TASK[config]
    dataset = build(root, config)
    assert type(dataset).__name__ == name
    task, = dataset.tasks
    assert (task.name, task.template, task.metric) == (task_name, template, "overall_acc")
    assert {label: task.classnames[label] for label in some_names} == some_names
    n = len(folders)
    assert len(set(task.classnames)) == n
    assert counts(dataset) == [{label: size for label in range(n)} for size in (5, 2, 3)]
    paths = all_paths(dataset)
    assert len(set(paths)) == 10 * n and all(Path(path).is_relative_to(root / folder) for path in paths)
    # every class has the images of one folder (in each part), labels in the order of the folders' names
    in_order = sorted((Path(name).name for name in folders))
    assert all(Path(datum.impath).parent.name == in_order[datum.label] for datum in dataset.test)
    assert read_image(paths[0]).size == (8, 8)
    # the split is stored and read back
    stored = json.loads((root / Path(folder).parts[0] / "split_fewshot" / "split.json").read_text())
    assert {part: len(stored[part]) for part in stored} == {"train": 5 * n, "val": 2 * n, "test": 3 * n}
    assert all_paths(build(root, config, SEED=2)) == paths


@pytest.mark.parametrize("config", ONE_TASK)
def test_few_shots_and_halves(config, root):
    n = len(ONE_TASK[config][0][1])
    whole = build(root, config)
    few = build(root, config, **{"DATASET.NUM_SHOTS": 3})
    assert counts(few) == [{label: size for label in range(n)} for size in (3, 2, 3)]
    assert {datum.impath for datum in few.train_x} < {datum.impath for datum in whole.train_x}
    half = ceil(n / 2)
    for which, first, last in (("base", 0, half), ("new", half, n)):
        part = build(root, config, **{"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": which})
        assert part.tasks[0].classnames == whole.tasks[0].classnames[first:last]
        assert counts(part) == [{label: size for label in range(last - first)} for size in (1, 1, 3)]


@pytest.mark.parametrize("config", ["fruit_vegetable", "kaggle_vegetable"])
def test_the_three_parts_are_put_together(config, root):
    dataset = build(root, config)
    parents = Counter(Path(path).parent.parent.name for path in all_paths(dataset))
    assert parents == {part: count * dataset.num_classes for part, count in POOLED.items()}
    assert {Path(datum.impath).parent.parent.name for datum in dataset.train_x} == set(POOLED)  # split anew


def test_folder_names_become_words():
    names = ["BareLand", "baseball_diamond", "footballField", "Airport", "city-road"]
    assert [words_of(name) for name in names] == [
        "bare land", "baseball diamond", "football field", "airport", "city-road"]


# ------------------------------------------------------------------ suites
@pytest.mark.parametrize("config", SUITES)
def test_suites_join_their_members(config, root):
    name, members, n_classes = SUITES[config]
    few = build(root, config, **{"DATASET.NUM_SHOTS": 2})
    assert type(few).__name__ == name
    assert [task.name for task in few.tasks] == [ONE_TASK[member][3] for member in members]
    assert len({task.name for task in few.tasks}) == len(members)  # SoftCPT tells tasks apart by their names
    assert few.num_classes == len(few.classnames) == n_classes
    assert counts(few) == [{label: size for label in range(n_classes)} for size in (2, 2, 3)]
    # a member alone sees the images that it has in the suite
    last = build(root, config, **{"DATASET.NUM_SHOTS": 2, "DATASET.SUBSAMPLE_TASKS": f"task{len(members) - 1}"})
    alone = build(root, members[-1], **{"DATASET.NUM_SHOTS": 2})
    assert all_paths(last) == all_paths(alone) and last.tasks == alone.tasks
    sizes = [len(task.classnames) for task in few.tasks]
    base = build(root, config, **{"DATASET.SUBSAMPLE_CLASSES": "base"})
    assert [len(task.classnames) for task in base.tasks] == [ceil(n / 2) for n in sizes]


def test_suite_names_the_missing_member(tmp_path):
    make(tmp_path, "fruit_vegetable")
    with pytest.raises(FileNotFoundError, match="KaggleFlower: the folder .*/kaggle_flower_recognition does not exist"):
        build(tmp_path, "plant6")


# ------------------------------------------------------------------ missing and superfluous folders
@pytest.mark.parametrize("config", ["kaggle_flower", "kaggle_vegetable", "rsscn7"])
def test_missing_images_are_named(config, tmp_path):
    folder = tmp_path / Path(ONE_TASK[config][0][0])
    folder.parent.mkdir()
    with pytest.raises(FileNotFoundError, match=f"{folder}.* does not exist: unpack the dataset's images there"):
        build(tmp_path, config)
    make(tmp_path, config)
    emptied = next(path for path in sorted(folder.rglob("*")) if path.is_file()).parent
    for path in emptied.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=f"the class folder {emptied} holds no image .*: unpack"):
        build(tmp_path, config)


@pytest.mark.parametrize("config, removed, count", [
    ("kaggle_flower", "tulip", "5 classes, but .*/flowers has 4"), ("aid", "Viaduct", "30 classes, but .*/AID has 29"),
    ("eurosat", "River", "10 classes, but .*/2750 has 9"),
    ("rsi_cb128", "woodland", "45 classes, but .*/RSI-CB128 has 35")])
def test_half_unpacked_classes_are_an_error(config, removed, count, tmp_path):
    shutil.rmtree(make(tmp_path, config) / removed)
    with pytest.raises(ValueError, match=f"{count} class folders .*: unpack"):
        build(tmp_path, config)


def test_folders_that_are_no_classes_are_an_error(tmp_path):
    folder = make(tmp_path, "kaggle_flower")
    shutil.copytree(folder / "rose", folder / "flowers" / "rose")
    with pytest.raises(ValueError, match=r"5 classes, but .* has 6 class folders \(daisy, dandelion, flowers, rose"):
        build(tmp_path, "kaggle_flower")


def test_parts_must_have_the_same_classes(tmp_path):
    folder = make(tmp_path, "kaggle_vegetable")
    (folder / "validation" / "Papaya").rename(folder / "validation" / "papaya")
    with pytest.raises(ValueError, match="train and .*validation must have the same class folders, but Papaya is in"):
        build(tmp_path, "kaggle_vegetable")


def test_another_release_of_plant_village_is_an_error(tmp_path):
    folder = make(tmp_path, "plant_village")
    (folder / "Corn___healthy").rename(folder / "Corn_(maize)___healthy")
    with pytest.raises(ValueError, match=r"'Corn_\(maize\)___healthy' is no class folder of PlantVillage: use"):
        build(tmp_path, "plant_village")


# ------------------------------------------------------------------ Fashion-20
def test_fashion20(root):
    dataset = build(root, "fashion20")
    assert type(dataset).__name__ == "Fashion20" and len(dataset.tasks) == 20 and dataset.num_classes == 78
    for number, (task, (name, _, garment)) in enumerate(zip(dataset.tasks, FASHION)):
        assert (task.name, task.metric) == (name, "mean_acc")
        assert task.template == f"a photo of {{}}, a type of {garment}."
        assert task.classnames == tuple(name.replace("_", " ") for name in fashion_classes(number))
    assert counts(dataset) == [{label: size for label in range(78)} for size in (5, 2, 3)]
    assert len(set(all_paths(dataset))) == 780
    first = [sum(n for _, n, _ in FASHION[:t]) for t in range(20)]
    for datum in dataset.test:
        task = dataset.task_of_class[datum.label]
        assert Path(datum.impath).parts[-3:-1] == (str(task), str(datum.label - first[task]))
    few = build(root, "fashion20", **{"DATASET.NUM_SHOTS": 4})
    assert counts(few) == [{label: size for label in range(78)} for size in (4, 2, 3)]
    assert all_paths(few) == all_paths(build(root, "fashion20", **{"DATASET.NUM_SHOTS": 4}))


def test_fashion20_with_one_task(root):
    whole = build(root, "fashion20", **{"DATASET.NUM_SHOTS": 2})
    for number in (0, 9, 19):
        one = build(root, "fashion20", **{"DATASET.NUM_SHOTS": 2, "DATASET.SUBSAMPLE_TASKS": f"task{number}"})
        assert one.tasks == [whole.tasks[number]]
        assert one.task_of_class == [0] * FASHION[number][1] == [0] * one.num_classes
        assert [datum.impath for datum in one.train_x] == [
            datum.impath for datum in whole.train_x if whole.task_of_class[datum.label] == number]


@pytest.mark.parametrize("trainer, extra", [("MTCoOp", []), ("ZeroshotCLIP", ["--eval-only"])])
def test_a_run_on_one_task_of_fashion20(trainer, extra, root, backbone, tmp_path):
    options = {"DATASET.NAME": "Fashion20", "DATASET.SUBSAMPLE_TASKS": "task10", "OPTIM.MAX_EPOCH": 1}
    arguments = train_args(root, backbone, tmp_path / "run", trainer, *extra, **options)
    call(arguments)
    task, = results(tmp_path / "run")["tasks"]
    assert task["name"] == "heel thickness" and task["total"] == 6
    assert task["metric"] == task["mean_acc"] and 0 <= task["metric"] <= 100


@pytest.mark.parametrize("which", ["base", "new"])
def test_fashion20_has_no_halves(which, root):
    with pytest.raises(ValueError, match="Fashion20 has no base and new classes: leave DATASET.SUBSAMPLE_CLASSES"):
        build(root, "fashion20", **{"DATASET.SUBSAMPLE_CLASSES": which})


def test_fashion20_names_what_is_missing(tmp_path):
    folder = make_fashion20(tmp_path)
    (folder / "images" / "3" / "6").mkdir()
    with pytest.raises(ValueError, match="images/3 has the class folder 6, but task_info.csv names 6 classes"):
        build(tmp_path, "fashion20")
    shutil.rmtree(folder / "images" / "3" / "6")
    shutil.rmtree(folder / "images" / "2" / "1")
    with pytest.raises(FileNotFoundError, match="the class folder .*/images/2/1 does not exist"):
        build(tmp_path, "fashion20")
    shutil.rmtree(folder / "images" / "1")
    with pytest.raises(FileNotFoundError, match="the folder .*/images/1 does not exist: unpack"):
        build(tmp_path, "fashion20")
    (folder / "task_info.csv").unlink()
    with pytest.raises(FileNotFoundError, match="task_info.csv does not exist: put the dataset's official file"):
        build(tmp_path, "fashion20")


@pytest.mark.parametrize("line, wrong, message", [
    (3, "2 waist type x low,high", "line 4: not the id of another task, its name, a third column and class names"),
    (3, "2\twaist type\tlow,high", "line 4: not the id"),
    (3, "two\twaist type\t\tlow,high", "line 4: not the id"),
    (3, "1\twaist type\t\tlow,high", "line 4: not the id of another task"),
    (3, "2\twaist type\t\tlow,,high", "line 4: not the id"),
    (3, "2\t\t\tlow,high", "line 4: not the id"),
    (3, "2\twaist type\t\tr\xe9sum\xe9", "is not UTF-8 text: fetch the official file again"),  # but Latin-1
    (20, "20\tunderwear style\t\ta,b,c", "must describe the tasks 0 to 19, but describes 0, 1, .*18, 20: fetch"),
    (20, "", "must describe the tasks 0 to 19, but describes 0, .*18: fetch"),
])
def test_malformed_task_info_is_named(line, wrong, message, tmp_path):
    (tmp_path / "fashion20" / "images").mkdir(parents=True)
    path = tmp_path / "fashion20" / "task_info.csv"
    lines = ["id\tname\tname_cn\tclasses", *(f"{t}\t{name}\t\ta,b" for t, (name, *_) in enumerate(FASHION))]
    path.write_text("\n".join([*lines[:line], wrong, *lines[line + 1:]]), encoding="latin-1")
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        build(tmp_path, "fashion20")


def test_task_info_as_spreadsheets_write_it(root, tmp_path):
    folder = shutil.copytree(root / "fashion20", tmp_path / "fashion20",
                             ignore=shutil.ignore_patterns("split_fewshot"))
    header, *rows = (folder / "task_info.csv").read_text().splitlines()
    quoted = ['\t'.join(f'"{cell}"' for cell in row.split("\t")) for row in reversed(rows)]
    (folder / "task_info.csv").write_bytes("\r\n".join([header, *quoted, ""]).encode("utf-8-sig"))
    assert build(tmp_path, "fashion20").tasks == build(root, "fashion20").tasks
