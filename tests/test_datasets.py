"""Splits, few-shot draws, halves and selection, on a folder of generated images."""

import json
import shutil

import pytest
import yaml

from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets.base import MultiTaskDataset, Suite, Task, TaskData
from datasets.splits import by_class
from tests.helpers import make_cfg


def build(root, **options):
    return build_dataset(make_cfg(root, {"DATASET.NAME": "FolderTasks", **options}))


@pytest.fixture
def root(photo_root, tmp_path):
    """A fresh copy, since splits and draws are stored beside the images."""
    return shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))


def test_tasks_and_split(root):
    dataset = build(root, **{"DATASET.NUM_SHOTS": -1})
    assert [task.name for task in dataset.tasks] == ["colour naming", "lightness"]
    assert dataset.tasks[0].classnames == ("dark blue", "green", "red")
    assert dataset.task_of_class == [0, 0, 0, 1, 1]
    assert dataset.num_classes == 5 and dataset.lab2cname[4] == "light"
    # 12 images a class: 50/20/30
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (5 * 6, 5 * 2, 5 * 4)
    parts = [{item.impath for item in part} for part in (dataset.train_x, dataset.val, dataset.test)]
    assert len(set.union(*parts)) == 60
    assert all(f"/{item.classname.replace(' ', '_')}/" in item.impath for item in dataset.test)


def test_few_shot_draw_is_stored_and_read_back(root):
    first = build(root, **{"DATASET.NUM_SHOTS": 2})
    assert {label: len(paths) for label, paths in by_class((d.impath, d.label) for d in first.train_x).items()} == {
        label: 2 for label in range(5)}
    assert len(first.val) == 5 * 2
    path = root / "split_fewshot" / "shot_2-seed_1.json"
    stored = json.loads(path.read_text())
    names = stored["tasks"]["lightness"]["train"]["dark"]
    other = next(f"lightness/dark/{i:02d}.png" for i in range(12) if f"lightness/dark/{i:02d}.png" in
                 {"/".join(d.impath.split("/")[-3:]) for d in build(root, **{"DATASET.NUM_SHOTS": -1}).train_x}
                 and f"lightness/dark/{i:02d}.png" not in names)
    stored["tasks"]["lightness"]["train"]["dark"] = [other]
    path.write_text(json.dumps(stored))
    assert [d.impath for d in build(root, **{"DATASET.NUM_SHOTS": 2}).train_x if d.classname == "dark"] == [
        str(root / other)]
    path.unlink()
    again = build(root, **{"DATASET.NUM_SHOTS": 2})
    assert [d.impath for d in again.train_x] == [d.impath for d in first.train_x]


def test_draws_differ_by_seed_but_not_by_other_tasks(root):
    def dark(**options):
        return [d.impath for d in build(root, **{"DATASET.NUM_SHOTS": 3, **options}).train_x if d.classname == "dark"]
    first = dark()
    assert dark(SEED=2) != first
    (root / "split_fewshot" / "shot_3-seed_1.json").unlink()
    shutil.rmtree(root / "colour_naming" / "green")
    (root / "split_fewshot" / "split.json").unlink()
    assert dark() == first


def test_halves_and_task_selection(root):
    base = build(root, **{"DATASET.SUBSAMPLE_CLASSES": "base"})
    new = build(root, **{"DATASET.SUBSAMPLE_CLASSES": "new"})
    assert [task.classnames for task in base.tasks] == [("dark blue", "green"), ("dark",)]
    assert [task.classnames for task in new.tasks] == [("red",), ("light",)]
    assert sorted({d.label for d in new.test}) == [0, 1]
    one = build(root, **{"DATASET.SUBSAMPLE_TASKS": "task1"})
    assert [task.name for task in one.tasks] == ["lightness"] and {d.label for d in one.test} == {0, 1}
    with pytest.raises(ValueError, match="task<i> with i from 0 to 1"):
        build(root, **{"DATASET.SUBSAMPLE_TASKS": "task2"})
    both = build(root, **{"DATASET.SUBSAMPLE_TASKS": "task1,task0"})
    assert [task.name for task in both.tasks] == ["colour naming", "lightness"]  # the dataset's order
    for wrong in ("task0,task0", "task0,", "task0,new", "task0,task2"):
        with pytest.raises(ValueError, match="each once, as task<i>,task<j>"):
            build(root, **{"DATASET.SUBSAMPLE_TASKS": wrong})


def test_tasks_yaml(root):
    tests = ["dark/00.png", "light/01.png"]
    (root / "lightness" / "test.txt").write_text("\n".join(tests))
    (root / "lightness" / "train.txt").write_text("".join(f"{c}/{i:02d}.png\n" for c in ("dark", "light")
                                                          for i in range(2, 12)))
    (root / "tasks.yaml").write_text(yaml.safe_dump({
        "template": "an image of {}.",
        "tasks": [{"folder": "lightness", "name": "brightness recognition", "metric": "mean_acc",
                   "classes": {"light": "bright", "dark": "dark"}, "train": "train.txt", "test": "test.txt"},
                  {"folder": "colour_naming", "classes": ["red", "green"]}]}, sort_keys=False))
    dataset = build(root, **{"DATASET.NUM_SHOTS": -1})
    assert dataset.tasks[0] == Task("brightness recognition", ("bright", "dark"), "an image of {}.", "mean_acc")
    assert dataset.tasks[1].classnames == ("red", "green")
    assert [(d.impath.split("/")[-2], d.label) for d in dataset.test[:2]] == [("dark", 1), ("light", 0)]
    assert len([d for d in dataset.train_x if d.label < 2]) == 2 * 8
    assert len([d for d in dataset.val if d.label < 2]) == 4


def test_changed_folder_is_an_error(root):
    build(root)
    (root / "lightness" / "dark" / "03.png").unlink()
    with pytest.raises(ValueError, match="split.json.*delete that file"):
        build(root)


def test_missing_root():
    with pytest.raises(FileNotFoundError, match="/nowhere does not exist, check --root"):
        build("/nowhere")


def test_path_prefix_is_swapped(root, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    dataset = build(root, **{"DATALOADER.OLD_DATA_PATH": str(root), "DATALOADER.NEW_DATA_PATH": str(moved)})
    assert all(d.impath.startswith(str(moved)) for d in dataset.test)


def test_broken_images_are_looked_for_where_the_prefix_points(root, tmp_path):
    moved = shutil.copytree(root, tmp_path / "moved")
    (root / "lightness" / "dark" / "00.png").write_bytes(b"broken, but not read")
    (moved / "lightness" / "dark" / "01.png").write_bytes(b"broken")
    dataset = build(root, **{"DATASET.NUM_SHOTS": -1, "DATASET.SKIP_BROKEN": True,
                             "DATALOADER.OLD_DATA_PATH": str(root), "DATALOADER.NEW_DATA_PATH": str(moved)})
    kept = {d.name for d in [*dataset.train_x, *dataset.val, *dataset.test]}
    assert len(kept) == 59 and "lightness/dark/00.png" in kept and "lightness/dark/01.png" not in kept


def test_suite_joins_its_members(root):
    class Halves(MultiTaskDataset):
        @classmethod
        def read(cls, folder, cfg):
            image = str(root / "lightness" / "dark" / "00.png")
            return [TaskData(Task(cls.__name__, ("a", "b", "c")), [(image, 1)], [], [(image, 2)])]

    class Others(Halves):
        pass

    @DATASET_REGISTRY.register()
    class PairOfDatasets(Suite):
        members = Halves, Others

    dataset = build_dataset(make_cfg(root, {"DATASET.NAME": "PairOfDatasets", "DATASET.NUM_SHOTS": -1}))
    assert [task.name for task in dataset.tasks] == ["Halves", "Others"]
    assert [d.label for d in dataset.train_x] == [1, 4] and [d.label for d in dataset.test] == [2, 5]
    assert dataset.task_of_class == [0, 0, 0, 1, 1, 1]
