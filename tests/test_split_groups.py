"""`split` and `groups` of tasks.yaml: shares of a split, and images that stay together."""

import json
import random

import pytest
import yaml

from common.errors import UserError
from datasets.folder_tasks import FolderTasks
from datasets.splits import split_groups, split_train_val_test
from tests.test_layouts import build, images

THREE = {"train": 0.5, "val": 0.2, "test": 0.3}


def declare(root, **entry):
    (root / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [{"folder": "t", **entry}]}))


def parts_of(dataset):
    return {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}


def folders(dataset):
    """{name of the folder of an image: parts}."""
    found = {}
    for part, datums in parts_of(dataset).items():
        for datum in datums:
            found.setdefault(datum.name.split("/")[-2], set()).add(part)
    return found


def split_of(dataset):
    return {part: sorted(datum.name for datum in datums) for part, datums in parts_of(dataset).items()}


def test_the_default_split_is_what_it_was():
    for n in range(2, 300):
        parts = split_train_val_test([(f"{i:03d}", 0) for i in range(n)])
        train = min(max(1, round(n / 2)), n - 1)
        assert (len(parts["train"]), len(parts["val"])) == (train, min(round(n / 5), n - train - 1))


def test_shares_are_declared_and_another_declaration_has_another_split(tmp_path):
    root = images(tmp_path / "R", {"t/a": 10, "t/b": 20})
    default = split_of(build(root))
    declare(root, split=[0.7, 0.2, 0.1])
    dataset = build(root)
    assert {part: len(datums) for part, datums in parts_of(dataset).items()} == {"train": 21, "val": 6, "test": 3}
    assert split_of(build(root)) == split_of(dataset)
    (root / "tasks.yaml").write_text("split: [0.7, 0, 0.3]")  # of the whole suite
    assert [len(names) for names in split_of(build(root)).values()] == [21, 0, 9]
    (root / "tasks.yaml").unlink()
    assert split_of(build(root)) == default
    assert set(json.loads((root / "split_fewshot" / "split.json").read_text())) == {
        "t", "t; split (0.7, 0.2, 0.1)", "t; split (0.7, 0.0, 0.3)"}


def test_a_group_is_never_divided_and_classes_come_near_the_shares():
    draw = random.Random(1)
    for case in range(20):
        sizes = {(group, label): draw.randint(0, 9) for group in map(str, range(40)) for label in range(3)}
        items = [(f"{group}/{label}/{i}", label) for (group, label), n in sizes.items() for i in range(n)]
        groups = {path: path.split("/")[0] for path, _ in items}
        parts = split_groups(items, groups, THREE, {})
        assert sorted(item for part in parts.values() for item in part) == sorted(items)
        where = {groups[path]: part for part, found in parts.items() for path, _ in found}
        assert all(where[groups[path]] == part for part, found in parts.items() for path, _ in found)
        for part, share in THREE.items():
            for label in range(3):
                n = sum(other == label for _, other in items)
                assert abs(sum(other == label for _, other in parts[part]) / n - share) < 0.06
        draw.shuffle(items)
        assert split_groups(items, groups, THREE, {}) == parts


@pytest.mark.parametrize("shares, expected", [
    (THREE, {"train", "test"}), ({"train": 0.9, "val": 0.05, "test": 0.05}, {"train", "test"}),
    ({"train": 0.5, "val": 0.4, "test": 0.1}, {"train", "test"}), ({"train": 0.8, "val": 0.2}, {"train", "val"})])
def test_a_class_of_two_groups_is_trained_and_tested_on(shares, expected):
    items = [(f"{label}{group}{i}", label) for label in (0, 1) for group in "ab" for i in range(3)]
    parts = split_groups(items, {path: path[:2] for path, _ in items}, shares, {})
    for label in (0, 1):
        assert {part for part, found in parts.items() for _, other in found if other == label} == expected


def test_groups_of_folders(tmp_path):
    root = images(tmp_path / "R", {f"t/{name}/p{i}": 3 for name in ("sick", "well") for i in range(8)})
    declare(root, groups="folder")
    dataset = build(root)
    found = folders(dataset)
    assert len(found) == 8 and all(len(parts) == 1 for parts in found.values())
    assert [task.classnames for task in dataset.tasks] == [("sick", "well")]
    assert {datum.classname for datum in dataset.test} == {"sick", "well"}

    # a class that comes later leaves the others as they are, and its images of a known group go with the group
    before = split_of(dataset)
    images(root, {f"t/worse/p{i}": 2 for i in range(10)})
    after = build(root)
    assert all(len(parts) == 1 for parts in folders(after).values()) and len(folders(after)) == 10
    old = {part: [name for name in names if "/worse/" not in name] for part, names in split_of(after).items()}
    assert old == before

    path = root / "split_fewshot" / "split.json"
    content = json.loads(path.read_text())
    split = content["t; groups folder"]
    split["test"].append(split["train"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="in the stored split .*split.json .* is in train and .* in test, but both are "
                                        "of the group 'p.', which must not be divided"):
        build(root)


def test_groups_of_fixed_parts(tmp_path):
    root = images(tmp_path / "R", {f"t/{part}/{name}/{part}{i}": 2 for part in ("train", "test")
                                   for name in ("x", "y") for i in range(5)})
    declare(root, train="train", test="test", groups="folder")
    found = folders(build(root))
    assert len(found) == 10 and all(len(parts) == 1 for parts in found.values())
    assert sum(parts == {"val"} for parts in found.values()) == 1
    images(root, {"t/train/x/test0": 1})
    with pytest.raises(UserError, match="both are of the group 'test0', which must not be divided: put them into one"):
        FolderTasks.read_files(str(root))  # as --check does


def test_groups_of_a_column(tmp_path):
    root = images(tmp_path / "R", {"t/images": 24})
    lines = [f"images/t_images_{i}.jpg,{'ab'[i % 2]},plant {i // 4}" for i in range(24)]
    (root / "t" / "all.csv").write_text("\n".join(["file,label,plant", *lines]))
    declare(root, images="all.csv", groups="plant", split=[0.5, 0.25, 0.25])
    found = {}
    for part, datums in parts_of(build(root)).items():
        for datum in datums:
            found.setdefault(int(datum.name.rpartition("_")[2][:-4]) // 4, set()).add(part)
    assert len(found) == 6 and all(len(parts) == 1 for parts in found.values())
    assert {part for parts in found.values() for part in parts} == {"train", "val", "test"}


def test_groups_in_lists(tmp_path):
    root = images(tmp_path / "R", {f"t/x/{group}": 2 for group in "abcd"})
    for part, groups in (("train", "abc"), ("test", "d")):
        (root / "t" / f"{part}.txt").write_text("".join(f"x/{g}/t_x_{g}_{i}.jpg\n" for g in groups for i in range(2)))
    declare(root, train="train.txt", test="test.txt", classes=["x"], groups="folder")
    assert all(len(parts) == 1 for parts in folders(build(root)).values())
    with open(root / "t" / "test.txt", "a") as file:
        file.write("x/loose.jpg\n")
    with pytest.raises(UserError, match="test.txt, line 3: 'x/loose.jpg' is in no folder of its group"):
        build(root)


@pytest.mark.parametrize("entry, message", [
    ({"split": [0.5, 0.2]}, r"tasks\[0\].split"),
    ({"split": [0.5, 0.2, 0.2]}, r"tasks\[0\].split must be the shares of train, val and test, which sum to 1"),
    ({"split": [0.5, 0.5, 0]}, "with some for train and test, but is"),
    ({"split": [0.5, 0.2, 0.3], "train": "a", "test": "b"}, r"tasks\[0\] has fixed train and test, so that `split`"),
    ({"groups": "patient"}, "task 't': `groups: patient` is a column of CSV files, which are not all"),
    ({"groups": "folder"}, "t/a/loose.jpg is in no folder of its group: .* <class>/<group>/<image>"),
    ({"groups": "folder", "classes": ["b"]}, "are of the group 'p', which must not be divided: a split needs"),
    ({"groups": "who", "images": "l.csv"}, "l.csv, line 1: the group column must be 'who', but none of the columns "
                                           "file, label, patient is"),
    ({"groups": "patient", "images": "l.csv"}, "l.csv, line 2: patient is empty"),
    ({"groups": "folder", "images": "l.csv"}, "l.csv, line 2: 'x.jpg' is in no folder, which is its group"),
])
def test_what_is_refused(entry, message, tmp_path):
    root = images(tmp_path / "R", {"t/a/p": 2, "t/b/p": 2})
    (root / "t/a/p/t_a_p_0.jpg").rename(root / "t/a/loose.jpg")
    (root / "t/l.csv").write_text("file,label,patient\nx.jpg,a,\n")
    declare(root, **entry)
    with pytest.raises(UserError, match=message) as error:
        build(root)
    assert "\n" not in str(error.value)


def test_a_split_that_nothing_reads_is_refused(tmp_path):
    root = images(tmp_path / "R", {"t/train/x": 2, "t/test/x": 2})
    (root / "tasks.yaml").write_text("split: [0.5, 0.2, 0.3]")
    with pytest.raises(UserError, match="tasks.yaml: `split` is of tasks without fixed train and test, but all have"):
        build(root)
