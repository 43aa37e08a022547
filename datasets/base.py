"""What every dataset shares: reading files, tasks, splits, few-shot draws, base/new halves, task selection.

A dataset is one or more *tasks*. Its class only declares them and says how to read the official files
(`read`); everything that happens to the lists afterwards stands here, once.
"""

import os
import os.path as osp
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
from scipy.io import loadmat

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import read_json, write_json

METRICS = ("overall_acc", "mean_acc")
PARTS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # two RS8 members are TIFF files


@dataclass(frozen=True)
class Task:
    """What the methods know of a task: its name (read by SoftCPT), classes, zero-shot template, metric.

    Two classes of the same name are an error, unless `repeated_names` says that the benchmark has such.
    """

    name: str
    classnames: tuple
    template: str = "a photo of a {}."
    metric: str = "overall_acc"
    repeated_names: bool = False

    def __post_init__(self):
        if self.metric not in METRICS:
            raise ValueError(f"task {self.name!r}: metric {self.metric!r} is unknown, use one of {METRICS}")
        if self.template.count("{}") != 1:
            raise ValueError(f"task {self.name!r}: template {self.template!r} must hold exactly one {{}}")
        if not self.classnames:
            raise ValueError(f"task {self.name!r} has no classes")
        twice = sorted(name for name, count in Counter(self.classnames).items() if count > 1)
        if twice and not self.repeated_names:
            raise ValueError(f"task {self.name!r}: two classes have the same name: {', '.join(twice)}")


@dataclass(frozen=True)
class TaskData:
    """A task and its images: lists of (path, label), the label counting from 0 within the task."""

    task: Task
    train: list = field(default_factory=list)
    val: list = field(default_factory=list)
    test: list = field(default_factory=list)


def list_images(folder):
    """Sorted paths of the image files directly in `folder`."""
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith("."))


def list_folders(folder):
    """Sorted names of the folders in `folder`, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


class MissingFiles(FileNotFoundError, ValueError):
    """Files or folders of a dataset are missing or hold nothing; `paths` are all that are known to be."""

    def __init__(self, message, paths):
        super().__init__(message)
        self.paths = paths


def images_of(folder):
    """Images of a class folder; a missing or empty one is an error."""
    if not osp.isdir(folder):
        raise MissingFiles(f"the class folder {folder} does not exist", [folder])
    images = list_images(folder)
    if not images:
        raise MissingFiles(f"the class folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}): unpack the images "
                           "there again", [folder])
    return images


def find_class_folders(folder, skip=()):
    """Sorted names of the class folders in `folder`, without those in `skip`.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: there is no class folder in it.
    """
    if not osp.isdir(folder):
        raise FileNotFoundError(f"the folder {folder} does not exist: unpack the dataset's images there")
    found = [name for name in list_folders(folder) if name not in skip]
    if not found:
        raise ValueError(f"{folder} has no class folders, it needs {folder}/<class>/<image>.jpg")
    return found


def read_class_folders(folder, classes):
    """[(path, label)] of the images `folder/<class>/<image>`; `classes` are the class folders in order of labels."""
    return read_many_class_folders([(folder, classes)])[0]


def read_many_class_folders(folders):
    """[(path, label)] as `read_class_folders` for each (folder, classes); one MissingFiles has all that is missing."""
    parts, errors = [], []
    for folder, classes in folders:
        parts.append([])
        for label, name in enumerate(classes):
            try:
                parts[-1] += [(path, label) for path in images_of(osp.join(folder, name))]
            except MissingFiles as error:
                errors.append(error)
    if errors:
        raise MissingFiles(str(errors[0]), [path for error in errors for path in error.paths])
    return parts


def check_official_file(path):
    """Raise a FileNotFoundError unless the file `path` exists."""
    if not osp.isfile(path):
        raise MissingFiles(f"{path} does not exist: put the dataset's official file of that name there", [path])


def parse_lines(path, parse):
    """[parse(line)] for the lines of a text file that are not blank.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `parse` failed with an IndexError, KeyError or ValueError; the message names file and line.
    """
    check_official_file(path)
    parsed = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    parsed.append(parse(line.strip()))
                except (IndexError, KeyError, ValueError):
                    raise ValueError(f"{path}, line {number}: {line.strip()!r} is malformed or names an unknown "
                                     "class: fetch the official file again") from None
    return parsed


def read_list(path, parse, classes):
    """[(image path, label)] of an official list of images.

    Args:
        parse: function from a line to (image path, class).
        classes: all classes, in order of labels.

    Raises:
        FileNotFoundError, ValueError: as `parse_lines`, also for a class that is not in `classes`.
    """
    labels = {name: label for label, name in enumerate(classes)}

    def parse_item(line):
        image, name = parse(line)
        return image, labels[name]

    return parse_lines(path, parse_item)


def read_mat(path, key, *fields):
    """The array `key` of a MATLAB file as a list, or, if it is a struct array, a list for each of `fields`.

    Raises:
        FileNotFoundError, ValueError: there is no such file; it is no MATLAB file or lacks the array or a field.
    """
    check_official_file(path)
    try:
        array = np.atleast_1d(loadmat(path, squeeze_me=True)[key])
        return [array[name].tolist() for name in fields] if fields else array.tolist()
    except Exception:  # SciPy has no common error for the many ways in which a file can be broken
        wanted = f"the array {key!r}" + (f" with the fields {', '.join(fields)}" if fields else "")
        raise ValueError(f"{path} is not a MATLAB file with {wanted}: fetch the official file again") from None


def read_split_zhou(path, images):
    """One of CoOp's split files `split_zhou_<dataset>.json`, which many papers use.

    It holds for train, val and test a list of [path below the folder `images`, label, class name]. Underscores in
    class names become spaces.

    Returns:
        (class names, {part: [(path, label)]}).

    Raises:
        ValueError: the file is not of that form, a label has two names, or the labels are not 0, 1, 2 ...
    """
    split = read_json(path)
    try:
        parts = {part: [(osp.join(images, image), label) for image, label, _ in split[part]] for part in PARTS}
        pairs = sorted({(label, name.replace("_", " ")) for part in PARTS for _, label, name in split[part]})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} does not hold train, val and test lists of [image, label, class name]: fetch CoOp's "
                         "file again, or delete it to have the data split anew") from None
    if [label for label, _ in pairs] != list(range(len(pairs))):
        raise ValueError(f"{path} must give each of the labels 0, 1, 2 ... one class name: fetch CoOp's file again, or "
                         "delete it to have the data split anew")
    return tuple(name for _, name in pairs), parts


def relative(path, folder):
    """`path` relative to `folder`; for the usual path below it this is much faster than os.path.relpath."""
    return path[len(folder) + 1:] if path.startswith(folder + os.sep) else osp.relpath(path, folder)


def by_class(items):
    """(path, label) pairs -> {label: sorted paths}."""
    groups = {}
    for path, label in items:
        groups.setdefault(label, []).append(path)
    return {label: sorted(paths) for label, paths in sorted(groups.items())}


def split_train_val_test(items, p_train=0.5, p_val=0.2, seed=0):
    """Split (path, label) pairs per class, 50/20/30 by default, with a generator of its own.

    The draw depends on `seed` and on the sorted paths of a class alone. Every class keeps at least one training
    and one test image.

    Returns:
        (train, val, test), lists of (path, label).

    Raises:
        ValueError: a class has a single image.
    """
    train, val, test = [], [], []
    for label, paths in by_class(items).items():
        if len(paths) < 2:
            raise ValueError(f"{paths[0]} is the only image of its class: a train/test split needs at least two")
        random.Random(f"{seed}/{label}").shuffle(paths)
        n_train = min(max(1, round(len(paths) * p_train)), len(paths) - 1)
        n_val = min(round(len(paths) * p_val), len(paths) - n_train - 1)
        for part, chosen in ((train, paths[:n_train]), (val, paths[n_train:n_train + n_val]),
                             (test, paths[n_train + n_val:])):
            part += [(path, label) for path in chosen]
    return train, val, test


def split_train_val(items, p_val=0.2, seed=0):
    """Split an official training list 80/20 per class into (train, val); a single image goes to train."""
    train, val = [], []
    for label, paths in by_class(items).items():
        random.Random(f"{seed}/{label}").shuffle(paths)
        n_val = min(round(len(paths) * p_val), len(paths) - 1)
        train += [(path, label) for path in paths[n_val:]]
        val += [(path, label) for path in paths[:n_val]]
    return train, val


def stored_split(items, folder, split, store):
    """{part: [(path, label)]} of a stored split {part: [path below `folder`]} of `items`.

    Raises:
        ValueError: the split does not list exactly the images that are there; `store` is its file.
    """
    there = {relative(path, folder): (path, label) for path, label in items}
    listed = {path for paths in split.values() for path in paths}
    if listed != set(there):
        raise ValueError(f"{folder} has {len(set(there) - listed)} images that the stored split {store} does not "
                         f"list and lacks {len(listed - set(there))} that it does: delete that file (and the "
                         "few-shot draws beside it) to split again")
    return {part: [there[path] for path in paths] for part, paths in split.items()}


def complete_parts(parts, folder, store):
    """Give the official parts of a dataset those they lack.

    {"all"} is split 50/20/30 per class; of {"train", "test"} a fifth of train becomes val. The draw is stored as
    JSON in the file `store` and read back from then on. {"train", "val", "test"} and a mere {"test"} stay as they are.

    Raises:
        ValueError: as `split_train_val_test` and `stored_split`.
    """
    if "val" in parts or set(parts) == {"test"}:
        return parts
    whole = "all" in parts
    items = parts["all" if whole else "train"]
    if osp.isfile(store):
        drawn = stored_split(items, folder, read_json(store), store)
    else:
        drawn = dict(zip(PARTS, split_train_val_test(items) if whole else split_train_val(items)))
        write_json({part: [relative(path, folder) for path, _ in chosen] for part, chosen in drawn.items()}, store)
    return drawn if whole else {**drawn, "test": parts["test"]}


class MultiTaskDataset(DatasetBase):
    """Base of all datasets, a single task being a suite of one.

    A subclass sets `dataset_dir` (folder under `--root`) and implements `read`; one of public files declares them as
    `sources`, has a `class_count` and implements `read_files`. One with `test_only` has no training or validation
    images and works with `--eval-only`. Labels of the samples count over all classes of all tasks,
    task after task, so a sample's task follows from its label:

    Attributes:
        tasks: list of `Task`, after selection of tasks and classes.
        task_of_class: for every label the index of its task, list of `num_classes` ints.
    """

    dataset_dir = ""
    test_only = False
    sources = ()  # of `Source`: the files that the dataset consists of
    split_zhou = False  # whether CoOp publishes a split file
    class_count = 0  # classes of the whole dataset: a half unpacked one must not pass for another task

    def __init__(self, cfg):
        data = select_tasks(self.load(cfg), cfg.DATASET.SUBSAMPLE_TASKS)
        data = [select_classes(task_data, cfg.DATASET.SUBSAMPLE_CLASSES) for task_data in data]
        self.tasks = [task_data.task for task_data in data]
        self.task_of_class = [t for t, task in enumerate(self.tasks) for _ in task.classnames]
        swap = cfg.DATALOADER.OLD_DATA_PATH, cfg.DATALOADER.NEW_DATA_PATH
        parts = {part: self._merge(data, part, swap) for part in PARTS}
        check_files_exist(parts)
        if self.test_only:
            # Dassl refuses an empty train_x, since it derives the classes from it; here the tasks have them.
            self._train_x, self._train_u, self._val, self._test = [], None, [], parts["test"]
        else:
            super().__init__(train_x=parts["train"], val=parts["val"], test=parts["test"])

    @classmethod
    def load(cls, cfg):
        """The dataset's tasks as a list of `TaskData`, training and validation images drawn for `NUM_SHOTS`."""
        folder = cls.find_folder(cfg.DATASET.ROOT)
        data = cls.read(folder, cfg)
        if cfg.DATASET.NUM_SHOTS >= 1 and not cls.test_only:
            data = draw_few_shot(data, folder, split_folder(folder, cfg), cfg.DATASET.NUM_SHOTS, cfg.SEED)
        return data

    @classmethod
    def find_folder(cls, root):
        """Absolute path of the dataset's folder under `root`; a missing one is a FileNotFoundError."""
        if not root:
            raise FileNotFoundError(f"{cls.__name__}: no data root given, pass --root FOLDER")
        root = osp.abspath(osp.expanduser(root))
        folder = osp.join(root, cls.dataset_dir) if cls.dataset_dir else root
        if not osp.isdir(folder):
            raise FileNotFoundError(f"{cls.__name__}: the folder {folder} does not exist, check --root ({root})")
        return folder

    @classmethod
    def read(cls, folder, cfg):
        """Read the official files under `folder`. Returns a list of `TaskData` with all images."""
        raise NotImplementedError

    @classmethod
    def read_files(cls, folder):
        """[(Task, official parts)], see `complete_parts`, from the files under `folder`; draws and stores nothing."""
        raise NotImplementedError

    @staticmethod
    def _merge(data, part, swap):
        """Datums of all tasks; labels are shifted by the number of classes of the tasks before."""
        old, new = swap
        datums, first = [], 0
        for task_data in data:
            for path, label in getattr(task_data, part):
                if old and path.startswith(old):
                    path = new + path[len(old):]
                datums.append(Datum(impath=path, label=first + label, classname=task_data.task.classnames[label]))
            first += len(task_data.task.classnames)
        return datums

    # Dassl derives these from the training images; here a class counts even if it has none.
    @property
    def num_classes(self):
        return len(self.task_of_class)

    @property
    def classnames(self):
        return [name for task in self.tasks for name in task.classnames]

    @property
    def lab2cname(self):
        return dict(enumerate(self.classnames))


class SingleTaskDataset(MultiTaskDataset):
    """A dataset of one task, declared by class attributes.

    CoOp's `split_zhou_<name of the class>.json` in the dataset's folder is read where it is present. Else
    `read_official` reads the official files and `complete_parts` splits them.
    """

    image_dir = ""  # folder of the images in the dataset's folder
    task_name = ""
    template = Task.template
    metric = Task.metric
    repeated_names = False  # whether two classes have the same name
    skip = ()  # folders of `image_dir` that are no classes
    renames = {}  # {class folder: class name}; other names are the folder's with underscores as spaces

    @classmethod
    def split_zhou_path(cls, folder):
        """Where CoOp's split file of this dataset stands, if it is there."""
        return osp.join(folder, f"split_zhou_{cls.__name__}.json")

    @classmethod
    def read(cls, folder, cfg):
        (task, parts), = cls.read_files(folder)
        return [TaskData(task, **complete_parts(parts, folder, osp.join(split_folder(folder, cfg), "split.json")))]

    @classmethod
    def read_files(cls, folder):
        listed = cls.split_zhou_path(folder)
        if osp.isfile(listed):
            classnames, parts = read_split_zhou(listed, osp.join(folder, cls.image_dir))
        else:
            classnames, parts = cls.read_official(folder)
        return [(Task(cls.task_name, tuple(classnames), cls.template, cls.metric, cls.repeated_names), parts)]

    @classmethod
    def read_official(cls, folder):
        """Class names and the official parts {"all"}, {"train", "test"}, {"train", "val", "test"} or {"test"}.

        A part is a list of (path, label). Unless a subclass says otherwise, every folder of `image_dir` is a class.
        """
        images = osp.join(folder, cls.image_dir)
        classes = find_class_folders(images, cls.skip)
        names = [cls.renames.get(name, name.replace("_", " ")) for name in classes]
        return names, {"all": read_class_folders(images, classes)}


class Suite(MultiTaskDataset):
    """Several datasets as one multi-task dataset; `members` are their classes, in task order."""

    members = ()

    @classmethod
    def load(cls, cfg):
        return [task_data for member in cls.members for task_data in member.load(cfg)]


def select_tasks(data, which):
    """`all`, `base` (first ceil(n/2) tasks), `new` (the others), `task<i>`, or several: `task<i>,task<j>`.

    Args:
        data: list of `TaskData`.
        which: what `DATASET.SUBSAMPLE_TASKS` says. Several tasks keep the dataset's order, however they are listed.

    Raises:
        ValueError: none of these, a task that is not there, or one that is listed twice.
    """
    half = ceil(len(data) / 2)
    if which == "all":
        return data
    if which == "base":
        return data[:half]
    if which == "new" and len(data) > 1:
        return data[half:]
    listed = which.split(",")
    chosen = [task_data for i, task_data in enumerate(data) if f"task{i}" in listed]
    if len(chosen) == len(listed):
        return chosen
    raise ValueError(f"DATASET.SUBSAMPLE_TASKS is {which!r}, but must be all, base, new or task<i> with i from 0 "
                     f"to {len(data) - 1} (this dataset has {len(data)} tasks), or several of these, each once, as "
                     "task<i>,task<j>")


def select_classes(task_data, which):
    """`all`, `base` (first ceil(n/2) classes of the task) or `new` (the others), labels counted anew from 0."""
    task = task_data.task
    half = ceil(len(task.classnames) / 2)
    if which == "all":
        return task_data
    if which not in ("base", "new"):
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES is {which!r}, but must be all, base or new")
    first, last = (0, half) if which == "base" else (half, len(task.classnames))
    if first == last:
        raise ValueError(f"task {task.name!r} has a single class: it has no new classes")

    def keep(items):
        return [(path, label - first) for path, label in items if first <= label < last]

    return TaskData(replace(task, classnames=task.classnames[first:last]),
                    keep(task_data.train), keep(task_data.val), keep(task_data.test))


def split_folder(folder, cfg):
    """Where a dataset's splits and few-shot draws are stored.

    `DATASET.SPLIT_DIR` if set; else `split_fewshot` in the dataset's folder, or, where that cannot be written, a
    folder of its own under `~/.cache/softcpt` (the draws are the same wherever they are stored).
    """
    if cfg.DATASET.SPLIT_DIR:
        return osp.join(osp.expanduser(cfg.DATASET.SPLIT_DIR), osp.basename(folder))
    if os.access(folder, os.W_OK):
        return osp.join(folder, "split_fewshot")
    cache = osp.join(osp.expanduser("~/.cache/softcpt/splits"), folder.strip(os.sep).replace(os.sep, "--"))
    print(f"{folder} cannot be written: its splits are stored in {cache}")
    return cache


def class_keys(classnames):
    """The names, later ones of the same name numbered ("missile", "missile (2)"), so that each names one class."""
    seen = Counter()
    keys = []
    for name in classnames:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return keys


def draw_few_shot(data, folder, store, shots, seed):
    """Draw `shots` training and min(shots, 4) validation images per class of every task.

    A draw is made once per (shots, seed), stored as `shot_<shots>-seed_<seed>.json` in `store` and read back from
    then on, so that every method sees the same images. It depends on the names and files of its own class alone,
    not on the other tasks. A class with fewer images gives all it has.

    Raises:
        ValueError: the stored draw does not fit the files that are there now.
    """
    wanted = {"train": shots, "val": min(shots, 4)}
    path = osp.join(store, f"shot_{shots}-seed_{seed}.json")
    if osp.isfile(path):
        stored = read_json(path)
    else:
        stored = {"shots": shots, "seed": seed, "tasks": {}}
        for task_data in data:
            task = task_data.task
            names = class_keys(task.classnames)
            draws = stored["tasks"][task.name] = {}
            for part, count in wanted.items():
                draws[part] = {}
                for label, paths in by_class(getattr(task_data, part)).items():
                    name = names[label]
                    generator = random.Random(f"{seed}/{shots}/{part}/{task.name}/{name}")
                    chosen = generator.sample(paths, min(count, len(paths)))
                    draws[part][name] = [relative(p, folder) for p in chosen]
        if len(stored["tasks"]) < len(data):
            raise ValueError(f"{folder}: two tasks have the same name")
        write_json(stored, path)
    return [_apply_draw(task_data, stored["tasks"], folder, path) for task_data in data]


def _apply_draw(task_data, draws, folder, path):
    task = task_data.task
    labels = {name: label for label, name in enumerate(class_keys(task.classnames))}
    parts = {}
    for part in ("train", "val"):
        there = {relative(p, folder): p for p, _ in getattr(task_data, part)}
        try:
            parts[part] = [(there[p], labels[name])
                           for name, chosen in draws[task.name][part].items() for p in chosen]
        except KeyError as error:
            raise ValueError(f"the few-shot draw {path} does not fit the data any more ({error.args[0]!r} of task "
                             f"{task.name!r} is gone): delete it to draw again") from None
    return replace(task_data, train=parts["train"], val=parts["val"])


def check_files_exist(parts):
    """Raise FileNotFoundError naming the first missing image of {part: datums}."""
    missing = [datum.impath for datums in parts.values() for datum in datums if not osp.isfile(datum.impath)]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist ({len(missing)} images are missing): check --root, or "
                                "swap a path prefix by --old-data-path and --new-data-path")
