"""Base of all datasets: tasks, base/new halves, task selection, suites.

A dataset is one or more *tasks*. Its class declares them and reads the official files (`read`); the code here does
everything else with the lists.
"""

import os.path as osp
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from math import ceil

from common.errors import MissingFile, UserError
from common.files import swap_prefix
from common.names import did_you_mean
from dassl.data.datasets import DatasetBase, Datum

from .check_images import leave_out_broken
from .draws import draw_few_shot
from .files import MOST, PARTS, near_paths, read_split_zhou
from .schemas import METRICS, check_template
from .splits import complete_parts, relative, split_folder

NUMBER = re.compile(r"[\d\s.]*\d[\d\s.]*|n\d{8}\b.*")  # "7", or ImageNet's "n01440764", perhaps with words behind

NO_CLASS = re.compile(r"(unsorted|misc(ellaneous)?|te?mp|to ?do|(new|untitled) folder)[ \d()]*")  # names of heaps


@dataclass(frozen=True)
class Task:
    """A task: its name (which SoftCPT reads), classes, zero-shot template or templates, and metric.

    Two classes of the same name are an error, unless `repeated_names` says that the benchmark has such.
    """

    name: str
    classnames: tuple
    template: str | tuple = "a photo of a {}."
    metric: str = "overall_acc"
    repeated_names: bool = False

    def __post_init__(self):
        if self.metric not in METRICS:
            raise UserError(f"task {self.name!r}: metric {self.metric!r} is unknown, use one of {METRICS}")
        try:
            for template in self.templates:
                check_template(template)
        except ValueError as error:
            raise UserError(f"task {self.name!r}: its template {error}") from None
        if not self.classnames:
            raise UserError(f"task {self.name!r} has no classes")
        twice = sorted(name for name, count in Counter(self.classnames).items() if count > 1)
        if twice and not self.repeated_names:
            raise UserError(f"task {self.name!r}: two classes have the same name: {', '.join(twice)}")

    @property
    def templates(self):
        """All templates, a tuple."""
        return (self.template,) if isinstance(self.template, str) else self.template


@dataclass(frozen=True)
class TaskData:
    """A task and its images: lists of (path, label), with labels from 0 within the task."""

    task: Task
    train: list = field(default_factory=list)
    val: list = field(default_factory=list)
    test: list = field(default_factory=list)


class NamedDatum(Datum):
    """A sample with the `name` of its image, the path below the data root; `upright` turns it as its EXIF data says."""

    def __init__(self, name, upright=False, **kwargs):
        super().__init__(**kwargs)
        self.name, self.upright = name, upright


class MultiTaskDataset(DatasetBase):
    """Base of all datasets; a single task is a suite of one.

    A subclass sets `dataset_dir` (folder under `--root`) and implements `read`. A dataset of public files declares them
    as `sources`, has a `class_count` and implements `read_files`. One with `test_only` has no training or validation
    images and works with `--eval-only`. Labels of the samples count over all classes of all tasks, task after task, so
    a sample's task follows from its label:

    Attributes:
        tasks: list of `Task`, after selection of tasks and classes.
        task_of_class: for every label the index of its task, list of `num_classes` ints.
    """

    dataset_dir = ""
    test_only = False
    upright = False  # turn photographs as their EXIF orientation says; public sets are read as stored
    sources = ()  # the `Source`s of the dataset's files
    split_zhou = False  # CoOp publishes a split file
    class_count = 0  # classes of the whole dataset, so that a half unpacked one is refused; 0: any number
    image_count = ()  # official numbers of images, of one edition or several; (): none is published
    images_per_class = ()  # official smallest and largest number of images of a class; (): none is published

    def __init__(self, cfg):
        data = self.load(cfg, cfg.DATASET.SUBSAMPLE_TASKS)
        data = [select_classes(task_data, cfg.DATASET.SUBSAMPLE_CLASSES) for task_data in data]
        for task_data in data:
            check_classes(task_data, self.test_only)
            for doubt in doubts_of(task_data.task):
                print(f"Warning: {doubt}")
        self.tasks = [task_data.task for task_data in data]
        self.task_of_class = [t for t, task in enumerate(self.tasks) for _ in task.classnames]
        parts = {part: self._merge(data, part, cfg) for part in PARTS}
        check_files_exist(parts)
        if self.test_only:
            # Dassl refuses an empty train_x, since it derives the classes from it; here the tasks have them.
            self._train_x, self._train_u, self._val, self._test = [], None, [], parts["test"]
        else:
            super().__init__(train_x=parts["train"], val=parts["val"], test=parts["test"])

    @classmethod
    def load(cls, cfg, which="all"):
        """Return the tasks that `which` selects (see `select_tasks`) as a list of `TaskData`.

        If `NUM_SHOTS` is set, they have only the training and validation images of the few-shot draw.
        """
        folder = cls.find_folder(cfg.DATASET.ROOT)
        data = cls.read(folder, cfg)
        problem = cls.wrong_count(folder, sum(len(task_data.task.classnames) for task_data in data))
        if problem and not osp.isfile(cls.split_zhou_path(folder)):
            raise UserError(problem)
        if problem:  # a split file may well be of some classes only
            print(f"Note: {problem}")
        whole = data = select_tasks(data, which)
        if cfg.DATASET.NUM_SHOTS >= 1 and not cls.test_only:
            data = draw_few_shot(data, folder, cls.split_zhou_path(folder), cfg)
        return leave_out_broken(whole, data, lambda path: place_of(path, cfg)) if cfg.DATASET.SKIP_BROKEN else data

    @classmethod
    def wrong_count(cls, folder, classes):
        """Return a sentence about a wrong number of classes, "" if it is right."""
        return "" if cls.class_count in (0, classes) else (
            f"{folder} has {classes} classes instead of {cls.class_count}: fetch its lists again, or unpack the "
            "dataset there again, and nothing else")

    @classmethod
    def split_zhou_path(cls, folder):
        """Return the path of CoOp's split file, which need not exist; "" if the dataset can have none."""
        return ""

    @classmethod
    def find_folder(cls, root):
        """Return the absolute path of the dataset's folder under `root`; a missing one is a MissingFile."""
        if not root:
            raise MissingFile(f"{cls.__name__}: no data root given, pass --root FOLDER")
        root = osp.abspath(osp.expanduser(root))
        folder = osp.join(root, cls.dataset_dir) if cls.dataset_dir else root
        if not osp.isdir(folder):
            raise MissingFile(f"{cls.__name__}: the folder {folder} does not exist, check --root ({root})"
                              f"{did_you_mean(near_paths(folder))}")
        return folder

    @classmethod
    def read(cls, folder, cfg):
        """Read the official files under `folder` and return a list of `TaskData` with all images."""
        raise NotImplementedError

    @classmethod
    def read_files(cls, folder):
        """Read [(Task, official parts)], see `complete_parts`, from the files under `folder`; store nothing."""
        raise NotImplementedError

    @classmethod
    def _merge(cls, data, part, cfg):
        """Return the datums of all tasks; labels count on from the classes of the tasks before."""
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        datums, first = [], 0
        for task_data in data:
            for path, label in getattr(task_data, part):
                name = relative(path, root)
                datums.append(NamedDatum(name, cls.upright, impath=place_of(path, cfg), label=first + label,
                                         classname=task_data.task.classnames[label]))
            first += len(task_data.task.classnames)
        return datums

    # Dassl derives these from the training images; here a class without images counts, too.
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

    If the dataset's folder has CoOp's `split_zhou_<name of the class>.json`, that is read. Otherwise `read_official`
    reads the official files and `complete_parts` splits them.
    """

    image_dir = ""  # folder of the images in the dataset's folder
    task_name = ""
    template = Task.template
    metric = Task.metric
    repeated_names = False  # two classes may have the same name

    @classmethod
    def split_zhou_path(cls, folder):
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
        """Return class names and the official parts, lists of (path, label).

        The parts are {"all"}, {"train", "test"}, {"train", "val", "test"} or {"test"}.
        """
        raise NotImplementedError


class Suite(MultiTaskDataset):
    """A multi-task dataset of several datasets with one task each; `members` are their classes, in task order."""

    members = ()

    @classmethod
    def load(cls, cfg, which="all"):
        # selected before it is read: the others need not be there
        return [task_data for member in select_tasks(cls.members, which) for task_data in member.load(cfg)]


def place_of(path, cfg):
    """Return the path where the image of a listed path lies."""
    return swap_prefix(path, cfg.DATALOADER.OLD_DATA_PATH, cfg.DATALOADER.NEW_DATA_PATH)


def select_tasks(data, which):
    """Select `all` tasks, `base` (the first ceil(n/2)), `new` (the others), `task<i>`, or `task<i>,task<j>`.

    Args:
        data: list with an item for each task.
        which: value of `DATASET.SUBSAMPLE_TASKS`. The tasks keep the dataset's order.

    Raises:
        UserError: `which` is none of these, or lists a task that does not exist, or one twice.
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
    raise UserError(f"DATASET.SUBSAMPLE_TASKS is {which!r}, but must be all, base, new or task<i> with i from 0 "
                     f"to {len(data) - 1} (this dataset has {len(data)} tasks), or several of these, each once, as "
                     "task<i>,task<j>")


def select_classes(task_data, which):
    """Select `all` classes of a task, `base` (the first ceil(n/2)) or `new` (the others), with labels from 0."""
    task = task_data.task
    half = ceil(len(task.classnames) / 2)
    if which == "all":
        return task_data
    if which not in ("base", "new"):
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is {which!r}, but must be all, base or new")
    first, last = (0, half) if which == "base" else (half, len(task.classnames))
    if first == last:
        raise UserError(f"task {task.name!r} has a single class: it has no new classes")

    def keep(items):
        return [(path, label - first) for path, label in items if first <= label < last]

    return TaskData(replace(task, classnames=task.classnames[first:last]),
                    keep(task_data.train), keep(task_data.val), keep(task_data.test))


def check_classes(task_data, test_only=False):
    """Print which classes lack training or test images.

    Raises:
        UserError: the task has no test image or, unless `test_only`, no training image.
    """
    task = task_data.task
    for part in ("test",) if test_only else ("train", "test"):
        there = {label for _, label in getattr(task_data, part)}
        if not there:
            raise UserError(f"task {task.name!r} has no {part} image: every task needs some")
        lacking = [name for label, name in enumerate(task.classnames) if label not in there]
        if lacking:
            print(f"Note: task {task.name!r} has no {part} image of {first_of(lacking)}")


def doubts_of(task):
    """Return sentences on classes of a task that are allowed, but seldom meant."""
    doubts, odd = [], [name for name in task.classnames if NUMBER.fullmatch(name)]
    if len(task.classnames) == 1:
        doubts.append(f"task {task.name!r} has the single class {task.classnames[0]!r}: its accuracy is always 100%, "
                      "add the classes to tell it from")
    if odd:
        doubts.append(f"task {task.name!r} has classes whose names are numbers or WordNet ids ({first_of(odd, 3)}), "
                      f"which tell CLIP nothing: name each in tasks.yaml, such as classes: {{{odd[0]!r}: NAME}}, or "
                      "rename the folders")
    heaps = [name for name in task.classnames if NO_CLASS.fullmatch(name.strip().lower())]
    if heaps:
        doubts.append(f"task {task.name!r} has the class {first_of(map(repr, heaps), 3)}, whose name says that it is "
                      "none: remove its folder, or list the classes in tasks.yaml without it")
    return doubts


def first_of(names, most=MOST):
    """Join the first names, at most ten, and the number of the others."""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def check_files_exist(parts):
    """Raise FileNotFoundError naming the first missing image of {part: datums}."""
    missing = [datum.impath for datums in parts.values() for datum in datums if not osp.exists(datum.impath)]
    if missing:
        raise MissingFile(f"{missing[0]} does not exist ({len(missing)} images are missing): check --root, or "
                          "swap a path prefix by --old-data-path and --new-data-path"
                          f"{did_you_mean(near_paths(missing[0]))}")
