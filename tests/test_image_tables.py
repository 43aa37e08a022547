"""Labels in CSV files of FolderTasks, found or declared in tasks.yaml."""

import shutil

import pytest
import yaml

from common.errors import UserError
from datasets.folder_tasks import FolderTasks
from datasets.prepare.__main__ import main
from tests.test_layouts import build, images, names

TRAIN = "filename,label\n" + "".join(f"images/t_images_{i}.jpg,{('cat', 'wild_dog')[i % 2]}\n" for i in range(8))
TEST = "filename,label\n" + "".join(f"images/t_images_{i}.jpg,{('cat', 'wild_dog')[i % 2]}\n" for i in range(8, 12))


@pytest.fixture
def root(tmp_path):
    """A root with the task t, whose images 0 to 11 lie in t/images."""
    return images(tmp_path / "R", {"t/images": 12})


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.csv").write_bytes(text.encode())


def declare(root, **entry):
    (root / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [{"folder": "t", **entry}]}))


def labels(datums):
    """{number of the image: name of its class}."""
    return {int(datum.name.rpartition("_")[2].partition(".")[0]): datum.classname for datum in datums}


EXPECTED = {i: ("cat", "wild dog")[i % 2] for i in range(12)}


def test_csv_files_of_parts_are_found(root, capsys):
    write(root / "t", train=TRAIN, test=TEST)
    dataset = build(root)
    assert [(task.name, task.classnames) for task in dataset.tasks] == [("t", ("cat", "wild dog"))]
    assert labels(dataset.test) == {i: EXPECTED[i] for i in range(8, 12)}
    assert labels([*dataset.train_x, *dataset.val]) == {i: EXPECTED[i] for i in range(8)}
    assert len(dataset.val) == 2 and names(build(root).val) == names(dataset.val)
    assert "in t have the fixed parts of their folders or CSV files" in capsys.readouterr().out

    write(root / "t", train=TRAIN.rpartition("images/t_images_6")[0],
          valid="filename,label\nimages/t_images_6.jpg,cat\n")
    assert labels(build(root).val) == {6: "cat"}
    assert [task.name for task in build(root / "t").tasks] == ["t"]  # the root itself
    write(root / "t", val=TEST)
    with pytest.raises(UserError, match="/t has val.csv and valid.csv: say in tasks.yaml which is val"):
        build(root)


def test_folders_tell_classes_whatever_csv_files_lie_there(tmp_path):
    root = images(tmp_path / "R", {"a/cat": 5, "a/dog": 5, **{f"b/{part}/{name}": 3 for part in ("train", "test")
                                                                     for name in ("x", "y")}})
    for folder in (root, root / "a", root / "b"):
        write(folder, train=TRAIN, test=TEST)
    assert [task.classnames for task in build(root).tasks] == [("cat", "dog"), ("x", "y")]


def test_a_csv_file_of_all_images_is_split(root):
    write(root / "t", all="Image_ID;Species;x\r\n" + "".join(f"t_images_{i};{i % 2};\r\n" for i in range(12)))
    path = root / "t" / "all.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets write it
    declare(root, images="all.csv", image_dir="images", columns={"label": "Species"},
            classes={0: "cat", 1: "wild dog"})
    dataset = build(root)
    parts = [labels(part) for part in (dataset.train_x, dataset.val, dataset.test)]
    assert [len(part) for part in parts] == [6, 2, 4] and parts[0] | parts[1] | parts[2] == EXPECTED
    assert names(build(root).test) == names(dataset.test)


def test_tasks_on_the_same_images_have_splits_of_their_own(root):
    write(root / "t", few="file,class\n" + "".join(f"images/t_images_{i}.jpg,{'ab'[i % 2]}\n" for i in range(6)),
          all="file,class\n" + "".join(f"images/t_images_{i}.jpg,{'xy'[i % 2]}\n" for i in range(12)))
    (root / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [
        {"folder": "t", "name": kind, "images": f"{kind}.csv"} for kind in ("few", "all")]}))
    for _ in range(2):
        dataset = build(root)
        assert len([*dataset.train_x, *dataset.val, *dataset.test]) == 18


@pytest.mark.parametrize("text, message", [
    ("filename,species\n1,a\n", "train.csv, line 1: the label column must be one of label, class, category, but none "
                                "of the columns filename, species is: name it in tasks.yaml.* `images: ...`"),
    ("filename,path,label\n1,1,a\n", "line 1: the image column must be one of .*, but 2 of the columns"),
    ("", "line 1: the image column must be"),
    ("filename,label\n", "train.csv lists no image"),
    ("filename,label\nimages/t_images_0.jpg,cat,x\n", "line 2: it has 3 values, but the header 2"),
    ("filename,label\n\nimages/t_images_0.jpg,\n", "train.csv, line 3: label is empty"),
    ("filename,label\n,cat\n", "line 2: filename is empty"),
    ("filename,label\n../t_images_0.jpg,cat\n", "line 2: must be a path inside its folder, but is '../t"),
    ("filename,label\na.jpg,cat\na.jpg,wild_dog\n", "line 3: 'a.jpg' stands there twice"),
    ("filename,label\nimages/t_images_8.jpg,cat\n", "t_images_8.jpg is in train and in test"),
    ('filename,label\n"images/t_images_0.jpg,cat\n', "train.csv, line 2: unexpected end of data"),
    ("filename,label\nimages/t_images_0.jpg,cat\nimages/gone.jpg,cat\nimages/lost.jpg,cat\n",
     r"gone.jpg does not exist \(2 images are missing\)"),
])
def test_csv_files_that_are_refused(text, message, root):
    write(root / "t", train=text, val="filename,label\n", test=TEST)
    if "lists no image" not in message:
        (root / "t" / "val.csv").write_text("filename,label\nimages/t_images_7.jpg,cat\n")
    with pytest.raises(UserError, match=message) as error:
        build(root)
    assert "\n" not in str(error.value) and str(root) in str(error.value)


@pytest.mark.parametrize("entry, message", [
    ({"images": "all.csv", "classes": ["cat"]}, "all.csv, line 3: 'wild_dog' is none of the task's `classes`"),
    ({"images": "all.csv", "columns": {"label": "kind"}}, "the label column must be 'kind', but none"),
    ({"images": "all.csv", "columns": {"kind": "x"}}, r"tasks\[0\].columns.kind is an unknown key"),
    ({"images": "all.csv", "train": "all.csv", "test": "all.csv"}, "`images: all.csv` must be a CSV file of all "
                                                                   "images, without fixed train and test"),
    ({"images": "images"}, "`images: images` must be a CSV file of all images, whose name ends with .csv"),
    ({"images": "al.csv"}, "t/al.csv does not exist"),
    ({"columns": {"label": "kind"}}, "it has `columns` or `image_dir`, which are of CSV files, but none"),
    ({"images": "all.csv", "image_dir": "other"}, "other/images/t_images_"),
    ({"images": "ids.csv", "image_dir": "images"}, "ids.csv, line 2: 'two' may be two.jpg or two.png"),
])
def test_declarations_that_are_refused(entry, message, root):
    write(root / "t", all=TRAIN, ids="image_id,label\ntwo,cat\n")
    for name in ("two.jpg", "two.png"):
        shutil.copy(root / "t/images/t_images_0.jpg", root / "t/images" / name)
    declare(root, **entry)
    with pytest.raises(UserError, match=message) as error:
        build(root)
    assert "\n" not in str(error.value)


def test_prepare_counts_what_is_missing(root, capsys):
    write(root / "t", train=TRAIN + "images/gone.jpg,cat\nother/lost.jpg,cat\n", test=TEST)
    assert main(["folder_tasks", "--root", str(root), "--check"]) == 1
    said = capsys.readouterr().out
    assert "t/images/gone.jpg" in said and "t/other/" in said and "partly" in said
    write(root / "t", train=TRAIN)
    assert main(["folder_tasks", "--root", str(root)]) == 0
    (_, parts), = FolderTasks.read_files(str(root))
    assert {part: len(items) for part, items in parts.items()} == {"train": 8, "test": 4}
    write(root / "t", train="filename,kind\n")
    assert main(["folder_tasks", "--root", str(root)]) == 1
    assert "train.csv, line 1: the label column must be" in capsys.readouterr().out
