"""Folders and lists as people have them: what is read, what is said, and what is refused in one sentence."""

import json
import os
import os.path as osp
import shutil

import pytest
import yaml

from common.errors import UserError
from dassl.data.datasets import build_dataset
from datasets.files import list_folders
from datasets.prepare import __main__ as prepare
from tests.helpers import make_cfg
from tests.miniature import make_class_folders, make_general, write_images
from tests.test_datasets_general import build as build_config, write_split_zhou


def images(root, folders, count=6):
    """{class folder: how many images}, or a list of class folders with `count` each."""
    for folder, n in (folders.items() if isinstance(folders, dict) else dict.fromkeys(folders, count).items()):
        write_images(root / folder, [f"{folder.replace('/', '_')}_{i}.jpg" for i in range(n)])
    return root


def build(root, **options):
    return build_dataset(make_cfg(root, {"DATASET.NAME": "FolderTasks", "DATASET.NUM_SHOTS": -1, **options}))


def names(datums):
    return sorted(datum.name for datum in datums)


# ------------------------------------------------------------------ FolderTasks without a tasks.yaml
TASKS = ["flowers/rose", "flowers/tulip", "birds/owl", "birds/crow"]


@pytest.mark.parametrize("leftover", ["__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found", ".git", "split_fewshot",
                                      "$RECYCLE.BIN", "flowers/__MACOSX", "flowers/@eaDir", "flowers/.thumbs"])
def test_leftovers_are_neither_tasks_nor_classes(leftover, tmp_path):
    images(tmp_path, [*TASKS, leftover])
    dataset = build(tmp_path)
    assert [(task.name, task.classnames) for task in dataset.tasks] == [
        ("birds", ("crow", "owl")), ("flowers", ("rose", "tulip"))]


@pytest.mark.parametrize("train, val, test", [
    ("train", "val", "test"), ("Train", "Valid", "Test"), ("training", "validation", "testing"),
    ("train", None, "test")])
def test_a_root_of_parts_is_one_task(train, val, test, tmp_path, capsys):
    root = images(tmp_path / "my_animals", {f"{part}/{name}": n for part, n in ((train, 6), (val, 4), (test, 5)) if part
                                            for name in ("cat", "wild_dog")})
    dataset = build(root)
    assert [(task.name, task.classnames) for task in dataset.tasks] == [("my animals", ("cat", "wild dog"))]
    assert all(name.startswith(f"{test}/") for name in names(dataset.test)) and len(dataset.test) == 10
    assert all(name.startswith(f"{train}/") for name in names(dataset.train_x))
    assert len(dataset.train_x) + len(dataset.val) == (20 if val else 12) and dataset.val
    note, = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Note:"))
    assert f"{root} is taken for one task, 'my_animals', with the fixed parts {train}, " in note
    assert names(build(root).val) == names(dataset.val)


def test_a_root_of_classes_is_one_task(tmp_path, capsys):
    dataset = build(images(tmp_path / "animals", ["cat", "train", "dog"]))
    assert [(task.name, task.classnames) for task in dataset.tasks] == [("animals", ("cat", "dog", "train"))]
    assert "is taken for one task, 'animals', whose folders are its classes" in capsys.readouterr().out


def test_a_task_of_parts_beside_one_of_classes(tmp_path, capsys):
    images(tmp_path, {"birds/owl": 6, "birds/crow": 6, "pets/train/cat": 5, "pets/test/cat": 2, "pets/train/dog": 5,
                      "pets/test/dog": 2})
    dataset = build(tmp_path)
    assert [(task.name, task.classnames) for task in dataset.tasks] == [("birds", ("crow", "owl")),
                                                                        ("pets", ("cat", "dog"))]
    assert len([name for name in names(dataset.test) if name.startswith("pets/test/")]) == 4
    assert "the tasks in pets have the fixed parts of their folders" in capsys.readouterr().out


def test_trains_among_vehicles_are_a_class(tmp_path):
    assert build(images(tmp_path, ["transport/car", "transport/train"])).tasks[0].classnames == ("car", "train")


@pytest.mark.parametrize("folders, message", [
    (["train/cat", "val/cat"], "has the folders train, val: if these are parts of one task, it needs train and test"),
    (["train/cat", "test/cat", "rest/cat"], "it needs train and test and not rest; else say in tasks.yaml"),
    (["train/cat", "val/cat", "valid/cat", "test/cat"], "it needs train and test and not val;"),
    ({"a/x": 6, "a/y": 0}, "class folder .*/a/y holds no image"),
    ({"a/x/more": 6, "a/y": 6}, "class folder .*/a/x holds no image .*: its folder more does, .*/a/<class>"),
    ({"a/x": 1, "a/y": 6}, "is the only image of its class"),
    (["a_b/x", "a b/x"], "the tasks in a b and a_b are both named 'a b'"),
    (["a/x_y", "a/x y"], "task 'a'.*two classes have the same name: x y"),
    ({"train/x": 3, "test/x": 0}, "task 'R' has no test image"),
])
def test_folders_that_are_refused(folders, message, tmp_path):
    root = images(tmp_path / "R", folders)
    with pytest.raises(UserError, match=message):
        build(root)


def test_files_of_another_kind_are_named(tmp_path):
    images(tmp_path, {"a/x": 6, "a/y": 0})
    (tmp_path / "a" / "y" / "one.heic").write_text("")
    with pytest.raises(UserError, match="class folder .*/a/y holds no image .*: 1 file is not read .1 .heic.: .*y/one.heic; HEIC"):
        build(tmp_path)


def test_classes_without_images_of_a_part_are_said(tmp_path, capsys):
    images(tmp_path, {"a/train/x": 3, "a/train/y": 3, "a/test/x": 3, "a/test/z": 3})
    assert build(tmp_path).tasks[0].classnames == ("x", "y", "z")
    out = capsys.readouterr().out
    assert "Note: task 'a' has no train image of z\n" in out and "Note: task 'a' has no test image of y\n" in out


# ------------------------------------------------------------------ what is added later
def few(root, **options):
    dataset = build(root, **{"DATASET.NUM_SHOTS": 2, **options})
    return {task.name: {name: [d.name for d in dataset.train_x + dataset.val
                               if dataset.task_of_class[d.label] == t and d.classname == name]
                        for name in task.classnames} for t, task in enumerate(dataset.tasks)}


@pytest.mark.parametrize("fixed", [False, True], ids=["split here", "fixed parts"])
def test_what_is_added_later_is_drawn_and_leaves_the_others(fixed, tmp_path):
    def add(task, name):
        if fixed:
            images(tmp_path, {f"{task}/train/{name}": 9, f"{task}/test/{name}": 2})
        else:
            images(tmp_path, {f"{task}/{name}": 9})

    add("a", "m"), add("a", "x")
    first = few(tmp_path)
    test = set(names(build(tmp_path).test))
    add("a", "b"), add("new", "c")  # the labels of m and x change
    later = few(tmp_path)
    assert later["a"].pop("b") and later.pop("new")["c"] and later == first
    assert test < set(names(build(tmp_path).test))
    labels = [datum.label for datum in build(tmp_path, **{"DATASET.NUM_SHOTS": 2}).train_x]
    assert labels == sorted(labels)  # the order of a draw made at once
    again = few(tmp_path)
    shutil.rmtree(tmp_path / "a" / ("train/b" if fixed else "b"))
    if fixed:
        shutil.rmtree(tmp_path / "a/test/b")
    assert few(tmp_path)["a"] == first["a"]
    add("a", "b")
    assert few(tmp_path) == again


def test_images_added_to_a_class_are_an_error(tmp_path):
    build(images(tmp_path, ["a/x", "a/y"]))
    write_images(tmp_path / "a/x", ["late.jpg"])
    with pytest.raises(UserError, match=r"1 images that the stored split .*split.json does not list and lacks 0 that "
                                        r"it does \(one is x/late.jpg\)"):
        build(tmp_path)


# ------------------------------------------------------------------ tasks.yaml
@pytest.fixture
def suite(tmp_path):
    return images(tmp_path / "R", {"a/x": 6, "a/y": 6, "b/x": 6, "b/y": 6, "2024/x": 6, "2024/y": 6, "f/train/x": 4,
                                   "f/train/y": 4, "f/test/x": 2, "f/test/y": 2})


@pytest.mark.parametrize("text, expected", [
    ("tasks: [{folder: a, name: 2024}]", [("2024", ("x", "y"))]),
    ("tasks: [{folder: 2024}]", [("2024", ("x", "y"))]),
    ("tasks: [{folder: a, classes: {x: 1, y: 2.5}}]", [("a", ("1", "2.5"))]),
    ("tasks: [{folder: ./a}, {folder: b/}]", [("a", ("x", "y")), ("b", ("x", "y"))]),
    ("tasks: [{folder: a, classes: [y]}, {folder: a, name: again, classes: {x: ex}}]",
     [("a", ("y",)), ("again", ("ex",))]),
    ("tasks: [{folder: f, train: train, test: test}]", [("f", ("x", "y"))]),
    ("tasks: [{folder: f, train: 'train\\', test: test}]", [("f", ("x", "y"))]),
    ("tasks: [{folder: ., name: all, classes: [a/x, b/y]}]", [("all", ("a/x", "b/y"))]),
    ("", None), ("# nothing", None), ("{}", None), ("tasks: []", None), ("template: 'a {} here'", None)])
def test_tasks_files(text, expected, suite):
    (suite / "tasks.yaml").write_text(text)
    found = [(task.name, task.classnames) for task in build(suite).tasks]
    assert found == (expected or [(name, ("x", "y")) for name in ("2024", "a", "b", "f")])


@pytest.mark.parametrize("text, message", [
    ("[1, 2]", "the file must be .key: value. lines, but is \\[1, 2\\]"),
    ("just text", "the file must be .key: value. lines"),
    ("tasks: {folder: a}", "tasks must be a list, but is"),
    ("tasks: [a]", r"tasks\[0\] must be"),
    ("tasks: [{name: a}]", r"tasks\[0\].folder is missing"),
    ("tasks: [{folder: a, clases: [x]}]", r"tasks\[0\].clases is an unknown key"),
    ("Template: 'a {}.'", "Template is an unknown key"),
    ("template: 5", "template must hold exactly one {}, for the class name, and no other brace, but is '5'"),
    ("template: 'a {}, a {thing}.'", "template must hold exactly one {}"),
    ("template: 'a {}, a {}.'", "template must hold exactly one {}"),
    ("template: [a]", "template must hold exactly one {}, for the class name, and no other brace, but is 'a'"),
    ("template: []", "template must hold a template, but is empty"),
    ("metric: accuracy", "metric must be 'overall_acc' or 'mean_acc', but is 'accuracy'"),
    ("tasks: [{folder: a, name: ''}]", r"tasks\[0\].name must not be empty"),
    ("tasks: [{folder: a, name: ' '}]", r"tasks\[0\].name must not be empty"),
    ("tasks: [{folder: a, name: no}]", r"tasks\[0\].name must be text, but is False"),
    ("tasks: [{folder: a, name: [b]}]", r"tasks\[0\].name must be text"),
    ("tasks: [{folder: a, name: 2024-01-01}]", r"tasks\[0\].name must be text, but is datetime.date"),
    ("tasks: [{folder: ../R/a}]", r"tasks\[0\].folder must be a path inside its folder, but is '../R/a'"),
    ("tasks: [{folder: /etc}]", r"tasks\[0\].folder must be a path inside its folder"),
    ("tasks: [{folder: nothing}]", "task 'nothing': the task folder .*/nothing does not exist"),
    ("tasks: [{folder: a, classes: [x, x]}]", r"tasks\[0\].classes must name each class folder once, but has 'x'"),
    ("tasks: [{folder: a, classes: [x, no]}]", r"tasks\[0\].classes must be a list of class folders \(quote"),
    ("tasks: [{folder: a, classes: x}]", r"tasks\[0\].classes must be a list of class folders or a map"),
    ("tasks: [{folder: a, classes: []}]", "task 'a'.*has no classes|classes must be"),
    ("tasks: [{folder: a, classes: {x: same, y: same}}]", "two classes have the same name: same"),
    ("tasks: [{folder: a, classes: [x, zebra]}]", "class folder .*/a/zebra does not exist"),
    ("tasks: [{folder: a, classes: {x: ''}}]", r"tasks\[0\].classes.x must not be empty"),
    ("tasks: [{folder: a}, {folder: b, name: a}]", "the tasks in a and b are both named 'a'"),
    ("tasks: [{folder: a, folder: b}]", "the key 'folder' stands twice"),
    ("tasks: [{folder: f, train: train}]", "task 'f': it fixes train, but needs both train and test"),
    ("tasks: [{folder: f, train: 5, test: 6}]", "task 'f': .*/f/5 does not exist"),
    ("tasks: [{folder: f, train: train, test: train}]", "is in train and in test: an image must not be trained"),
    ("tasks: [{folder: f, train: train, test: test, classes: [x, z]}]", "class 'z' has no image in any part"),
    ("tasks: [{folder: a, train: l.txt, test: l.txt}]", "l.txt does not exist"),
    ("tasks: [", "is not valid YAML"),
    ("tasks: &it [*it]", r"tasks\[0\] must be `key: value` lines"),
    ("tasks: " + "[" * 5000 + "]" * 5000, "is not valid YAML"),
    ("\ttasks: []", "is not valid YAML"),
    ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
])
def test_tasks_files_that_are_refused(text, message, suite):
    (suite / "tasks.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        build(suite)
    assert str(suite) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("lines, message", [
    (["x/a_x_0.jpg", "x\\a_x_1.jpg", "", "y/a_y_0.jpg"], None),
    (["x/a_x_0.jpg", "x/a_x_0.jpg", "y/a_y_0.jpg"], "train.txt, line 2: 'x/a_x_0.jpg' stands there twice"),
    (["x/a_x_0.jpg", "../b/x/b_x_0.jpg", "y/a_y_0.jpg"], "train.txt, line 2: .*is in no class folder of the task"),
    (["x/a_x_0.jpg", "z/1.jpg", "y/a_y_0.jpg"], "train.txt, line 2: 'z/1.jpg' is in no class folder"),
    (["x/a_x_0.jpg", "y/gone.jpg"], "y/gone.jpg does not exist"),
    (["x/a_x_5.jpg", "y/a_y_0.jpg"], "a_x_5.jpg is in train and in test"),
])
def test_lists_of_images(lines, message, suite):
    (suite / "a/train.txt").write_text("\n".join(lines))
    (suite / "a/test.txt").write_text("x/a_x_5.jpg\ny/a_y_5.jpg\n")
    (suite / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [
        {"folder": "a", "classes": ["x", "y"], "train": "train.txt", "test": "test.txt"}]}))
    if message is None:
        assert len(build(suite).test) == 2
    else:
        with pytest.raises(UserError, match=message):
            build(suite)


# ------------------------------------------------------------------ stored splits and draws
def change_draw(root, change, shots=2):
    path = root / "split_fewshot" / f"shot_{shots}-seed_1.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("change, message", [
    (lambda draw: draw.update(shots="2"), "shots must be a whole number, but is '2'"),
    (lambda draw: draw.update(shots=3), "holds one of 3 shots and seed 1"),
    (lambda draw: draw.update(seed=7), "holds one of 2 shots and seed 7"),
    (lambda draw: draw.update(more=1), "more is an unknown key"),
    (lambda draw: draw.pop("tasks"), "tasks is missing"),
    (lambda draw: draw["tasks"].update(birds=[]), "tasks.birds must be a dict"),
    (lambda draw: draw["tasks"]["birds"]["train"].update(owl="a.jpg"), "tasks.birds.train.owl must be a list"),
    (lambda draw: draw["tasks"]["birds"]["train"].update(owl=[1]), r"tasks.birds.train.owl\[0\] must be text"),
    (lambda draw: draw["tasks"]["birds"]["train"]["owl"].append("birds/owl/birds_owl_9.jpg"),
     "it has 3 train images of class 'owl', at most 2 and each once"),
    (lambda draw: draw["tasks"]["birds"]["train"].update(owl=2 * draw["tasks"]["birds"]["train"]["owl"][:1]),
     "it has 2 train images of class 'owl', at most 2 and each once"),
    (lambda draw: draw["tasks"]["birds"]["train"].update(owl=draw["tasks"]["birds"]["train"]["crow"]),
     "is an image of 'crow', not of 'owl'"),
    (lambda draw: draw["tasks"]["birds"]["train"].update(owl=["birds/owl/gone.jpg"]), "'birds/owl/gone.jpg' is gone"),
    (lambda draw: draw["tasks"]["birds"].update(train={**draw["tasks"]["birds"]["train"],
                                                       "owl": draw["tasks"]["birds"]["val"]["owl"]}),
     "is gone from train"),
])
def test_draws_that_are_refused(change, message, tmp_path):
    images(tmp_path, TASKS, 12)
    few(tmp_path)
    change_draw(tmp_path, change)
    with pytest.raises(UserError, match=f"shot_2-seed_1.json.*{message}.*delete it"):
        few(tmp_path)


@pytest.mark.parametrize("change, message", [
    (lambda split: split["a"]["train"].append(split["a"]["test"][0]), "lists .* twice: an image must not be"),
    (lambda split: split["a"]["train"].pop(), "has 1 images that the stored split"),
    (lambda split: split["a"].update(rest=[]), "a.rest"),
    (lambda split: split["a"].update(train=[5]), r"a.train\[0\] must be text"),
    (lambda split: split.update(a=[]), "a must be a dict"),
])
def test_splits_that_are_refused(change, message, tmp_path):
    build(images(tmp_path, ["a/x", "a/y"]))
    path = tmp_path / "split_fewshot" / "split.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        build(tmp_path)
    assert str(path) in str(error.value) and "to split again" in str(error.value)


def test_files_written_on_windows_are_read(tmp_path):
    first = few(images(tmp_path, ["a/x", "a/y"], 9))
    for path in (tmp_path / "split_fewshot").iterdir():
        assert "\\" not in path.read_text()
        path.write_text(path.read_text().replace("/", "\\\\"))
    assert few(tmp_path) == first


def test_a_split_file_with_images_in_two_parts_is_said(tmp_path, capsys):
    parts = {part: [[f"{c}/{i}.jpg", c, f"class {c}"] for c in (0, 1) for i in numbers]
             for part, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (1, 3)))}
    write_split_zhou(tmp_path / "dtd", "images", "DescribableTextures", parts)
    assert len(build_config(tmp_path, "dtd").test) == 4
    out = capsys.readouterr().out
    assert "has 2 test images that are trained on, too; one is" in out and "2 classes instead of 47" in out


# ------------------------------------------------------------------ public datasets in other places
@pytest.mark.parametrize("config, path, there", [
    ("kaggle_flower", "kaggle_flower_recognition/flowers", "kaggle_flower_recognition/Flowers"),
    ("kaggle_flower", "kaggle_flower_recognition", "Kaggle Flower Recognition"),
    ("nwpu_resisc45", "nwpu-resisc45/NWPU-RESISC45", "nwpu-resisc45/nwpu_resisc45"),
    ("oxford_pets", "oxford_pets/annotations/trainval.txt", "oxford_pets/Annotations/trainval.txt"),
    ("oxford_pets", "oxford_pets/images", "oxford_pets/Images"),
    ("sun397", "sun397/SUN397", "sun397/sun397"),
])
@pytest.mark.usefixtures("few_classes")
def test_a_missing_path_and_one_of_the_same_name_are_named(config, path, there, tmp_path):
    (make_class_folders if config in ("kaggle_flower", "nwpu_resisc45") else make_general)(tmp_path, config)
    wrong, expected = (osp.dirname(each) if osp.splitext(each)[1] else each for each in (there, path))
    shutil.move(tmp_path / expected, tmp_path / wrong)
    with pytest.raises(FileNotFoundError) as error:
        build_config(tmp_path, config)
    message = str(error.value)
    assert f"{tmp_path}/{path}" in message and message.endswith(f": did you mean {tmp_path}/{wrong}?")
    shutil.move(tmp_path / wrong, tmp_path / expected)
    assert build_config(tmp_path, config).train_x


def test_no_name_is_guessed_between_two(tmp_path):
    for name in ("Kaggle Flower Recognition", "KaggleFlowerRecognition", "flowers"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="kaggle_flower_recognition does not exist") as error:
        build_config(tmp_path, "kaggle_flower")
    assert "did you mean" not in str(error.value)


def test_a_suite_reads_the_chosen_members_alone(tmp_path):
    for config in ("aid", "rsscn7"):
        make_class_folders(tmp_path, config)
    dataset = build_config(tmp_path, "rs8", **{"DATASET.SUBSAMPLE_TASKS": "task0,task5"})
    assert [len(task.classnames) for task in dataset.tasks] == [30, 7]
    assert dataset.tasks[1].classnames[3] == "river or lake"
    with pytest.raises(UserError, match="i from 0 to 7"):
        build_config(tmp_path, "rs8", **{"DATASET.SUBSAMPLE_TASKS": "task8"})
    with pytest.raises(FileNotFoundError, match="eurosat"):
        build_config(tmp_path, "rs8")


@pytest.mark.parametrize("config", ["oxford_pets", "sun397", "ucf101", "stanford_cars", "fgvc_aircraft"])
def test_lists_of_too_few_classes_are_refused(config, tmp_path, capsys):
    folder = make_general(tmp_path, config)
    with pytest.raises(UserError, match=f"{folder} has 3 classes instead of"):
        build_config(tmp_path, config)
    assert prepare.main([config, "--root", str(tmp_path), "--check"]) == 1
    assert f"{folder} has 3 classes instead of" in capsys.readouterr().out


# ------------------------------------------------------------------ --check
def check(root, config, capsys):
    code = prepare.main([config, "--root", str(root), "--check"])
    return code, capsys.readouterr().out


def test_check_counts_and_finds_copies(tmp_path, capsys):
    make_class_folders(tmp_path, "rsscn7")
    code, out = check(tmp_path, "rsscn7", capsys)
    assert code == 0 and "rsscn7: 70 images, officially 2,800\n" in out
    assert "classes with other than 400 images, the official number: grass land 10, farm land 10" in out
    assert "images are there more than once, with the same content" in out  # images of one colour


def test_check_of_a_users_own_folder(tmp_path, capsys):
    images(tmp_path, {"a/train/x": 4, "a/test/x": 2, "b/y": 5, "b/z": 30})
    same = (tmp_path / "a/train/x/a_train_x_0.jpg").read_bytes()
    (tmp_path / "a/test/x/a_test_x_0.jpg").write_bytes(same)
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 0 and "folder_tasks  yes              3        41" in out
    assert f"in two parts, with the same content: {tmp_path}/a/train/x/a_train_x_0.jpg and {tmp_path}/a/test/" in out
    assert not os.path.exists(tmp_path / "split_fewshot")
    (tmp_path / "c" / "empty").mkdir(parents=True)
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 1 and "task 'c': the class folder" in out


def distinct(root, folders):
    """As `images`, of which no two files have the same content."""
    images(root, folders)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.write_bytes(path.read_bytes() + b"%d" % number)
    return root


def test_check_shows_every_task_as_the_model_reads_it(tmp_path, capsys):
    distinct(tmp_path, {"pet_breeds/grey_cat": 6, "pet_breeds/dog": 4, "hats/train/cap": 5, "hats/test/cap": 2,
                        "hats/train/fez": 3, "hats/test/fez": 2})
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 0 and out.endswith("\n\nAll is fine: every image can be read, and nothing needs a look\n")
    assert ("\n  task 'hats', 2 classes of 3 to 5 train, 2 test images: cap, fez\n"
            "  task 'pet breeds', 2 classes of 4 to 6 images: dog, grey cat\n") in out


@pytest.mark.parametrize("folders, copy, said", [
    ({"a/x": 4, "a/y": 4}, ("a/x/a_x_0.jpg", "a/y/copy.jpg"),
     "1 image is in two classes of a task, with the same content: {0} and {1}; leave each in the class that it shows"),
    ({"a/x": 4, "a/y": 4}, ("a/x/a_x_0.jpg", "a/x/copy.jpg"),
     "1 image is there more than once, with the same content: {0} and {1}\n"),
    ({"a/train/x": 4, "a/test/x": 4, "a/train/y": 4, "a/test/y": 4}, ("a/train/x/a_train_x_0.jpg", "a/test/x/c.jpg"),
     "1 image is there in two parts, with the same content: {1} and {0}\n"),
    ({"a/x": 4, "a/y": 4, "b/x": 4, "b/y": 4}, ("a/x/a_x_0.jpg", "b/y/copy.jpg"), None),
    ({"a/x": 4, "a/y": 1}, None, "to validate or test: y of task 'a'; add images, or remove the class"),
    ({"a/x": 4, "a/_unsorted": 4}, None, "task 'a' has the class ' unsorted', whose name says that it is none: remove"),
    ({"a/x": 4, "a/New Folder (2)": 4}, None, "has the class 'New Folder (2)', whose name says that it is none"),
], ids=["two classes", "one class", "two parts", "two tasks", "one image", "unsorted", "new folder"])
def test_check_says_what_needs_a_look(folders, copy, said, tmp_path, capsys):
    distinct(tmp_path, folders)
    if copy:
        shutil.copy(tmp_path / copy[0], tmp_path / copy[1])
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 0 and out.endswith("\n1 thing needs a look: see above\n" if said else " nothing needs a look\n")
    assert (said or "").format(*sorted(str(tmp_path / path) for path in copy or ())) in out


@pytest.mark.parametrize("folders, empty", [
    (["a/x", "a/y"], "a/z"), (["x", "y"], "z"), (["x"], "a"), (["a/train/x", "a/test/x"], "a/train/y")])
def test_an_empty_class_is_named_by_its_folder(folders, empty, tmp_path, capsys):
    (distinct(tmp_path, dict.fromkeys(folders, 4)) / empty).mkdir()
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 1 and f"{tmp_path / empty}" in out and "no image" in out
    with pytest.raises(UserError, match=f"no image.*{tmp_path / empty}|{tmp_path / empty} holds no image"):
        build(tmp_path)


def test_no_more_than_ten_paths_are_printed(tmp_path, capsys):
    folder = make_general(tmp_path, "fgvc_aircraft", 100)
    for path in sorted((folder / "images").iterdir())[::3]:
        path.unlink()
    code, out = check(tmp_path, "fgvc_aircraft", capsys)
    table = out.split("\n\n")[0]
    assert code == 1 and table.count("fgvc_aircraft/images/0") == 10 and "... and 224 more" in table
    assert out.count("fgvc_aircraft/images/") == 30  # and five pairs of copies in two classes, five in two parts


# ------------------------------------------------------------------ files that are something else
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize("config, path", [
    ("oxford_pets", "annotations/test.txt"), ("oxford_flowers", "imagelabels.mat"),
    ("oxford_flowers", "cat_to_name.json"), ("dtd", "split_zhou_DescribableTextures.json")])
@pytest.mark.parametrize("content, said", [(LFS, "Git LFS pointer"), ("<!DOCTYPE html><p>", None), ("", None)])
@pytest.mark.usefixtures("few_classes")
def test_lists_that_are_something_else(config, path, content, said, tmp_path):
    file = make_general(tmp_path, config) / path
    file.write_text(content)
    with pytest.raises(UserError) as error:
        build_config(tmp_path, config)
    assert str(file) in str(error.value) and "\n" not in str(error.value) and (said or "") in str(error.value)


def test_check_opens_every_image(tmp_path, capsys):
    images(tmp_path, TASKS)
    (tmp_path / "birds/owl/birds_owl_3.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (tmp_path / "birds/owl/birds_owl_4.jpg").write_text(LFS)
    (tmp_path / "birds/owl/more.heic").write_bytes(b"0")
    code, out = check(tmp_path, "folder_tasks", capsys)
    assert code == 1 and "folder_tasks: 2 images can't be read:\n" in out
    assert f"{tmp_path}/birds/owl/birds_owl_4.jpg is a Git LFS pointer, not an image: run git lfs pull" in out
    assert "1 file is not read (1 .heic): " in out
    assert prepare.main(["folder_tasks", "--root", str(tmp_path)]) == 0  # without --check no image is opened


def test_a_class_folder_whose_name_is_no_text_is_named(tmp_path):
    folder = os.fsencode(tmp_path / "task" / "class") + b"\xff"
    os.makedirs(folder)
    with pytest.raises(UserError, match="xff.* has a name that is no UTF-8 text: rename it"):
        list_folders(tmp_path / "task")
