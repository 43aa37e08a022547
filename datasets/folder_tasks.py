"""A user's own data, without code: `R/<task>/<class>/*.jpg` and an optional `R/tasks.yaml`."""

import os.path as osp
import re

from common.errors import MissingFile, UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import MultiTaskDataset, Task, TaskData
from .files import PARTS, find_class_folders, images_of, list_folders, list_images
from .schemas import TaskEntry, TasksFile, read_tasks_file
from .splits import complete_parts, relative, split_folder

# Names of folders that are parts, without signs between words, and perhaps with "set", "data" or "images" after it.
PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@DATASET_REGISTRY.register()
class FolderTasks(MultiTaskDataset):
    """Every folder of the root is a task and every folder in it a class; underscores in names are spaces.

    A root or task whose folders are `train`, `test` and perhaps `val`, each with class folders, is one task with these
    fixed parts, and so is a root whose folders hold images themselves. `tasks.yaml` beside the folders may set, for
    the whole suite, `template` and `metric`, and, in the list `tasks`, per task: `folder`, `name`, `classes` (a list
    of class folders or a map folder: name), `template`, `metric`, and fixed `train`, `val`, `test`, each a folder
    `<task>/<train>/<class>/` or a text file of lines `<class>/<image>`, all relative to the task's folder. Its order
    is the task order. Without fixed parts each class is split 50/20/30 once and the split is stored; without `val`, a
    fifth of `train` is taken.
    """

    upright = True

    @classmethod
    def read(cls, folder, cfg):
        store = osp.join(split_folder(folder, cfg), "split.json")
        return [TaskData(task, **complete_parts(parts, osp.normpath(osp.join(folder, entry.folder)), store,
                                                entry.folder))
                for entry, task, parts in read_entries(folder)]

    @classmethod
    def read_files(cls, folder):
        return [(task, parts) for _, task, parts in read_entries(folder)]


def read_entries(root):
    """Read [(`TaskEntry`, Task, official parts)] of the tasks below `root`; errors name file and task."""
    where = osp.join(root, "tasks.yaml")
    suite = read_tasks_file(where) if osp.isfile(where) else TasksFile()
    where = where if osp.isfile(where) else root
    entries = suite.tasks or find_entries(root)
    read = []
    for entry in entries:
        default = osp.basename(root) if entry.folder == "." else entry.folder
        name = entry.name or default.replace("_", " ")
        twice = [other.folder for other, task, _ in read if task.name == name]
        if twice:
            raise UserError(f"{where}: the tasks in {twice[0]} and {entry.folder} are both named {name!r}: name them "
                            "apart")
        try:
            read.append((entry, *read_task(root, entry, suite, name)))
        except UserError as error:
            kind = MissingFile if isinstance(error, MissingFile) else UserError
            raise kind(f"{where}: task {name!r}: {error}") from None
    return read


def find_entries(root):
    """Return a `TaskEntry` for every task below a root that has no `tasks` in a tasks.yaml."""
    folders = [name for name in list_folders(root) if name != "split_fewshot"]
    if not folders:
        raise UserError(f"FolderTasks: {root} has no task folders, it needs {root}/<task>/<class>/<image>.jpg")
    parts = find_parts(root, folders)
    if parts or all(list_images(osp.join(root, name)) and not list_folders(osp.join(root, name)) for name in folders):
        print(f"Note: {root} is taken for one task, {osp.basename(root)!r}, "
              + (f"with the fixed parts {', '.join(parts.values())}" if parts else "whose folders are its classes"))
        return [TaskEntry(folder=".", **parts)]
    entries = [TaskEntry(folder=name, **find_parts(osp.join(root, name), list_folders(osp.join(root, name))))
               for name in folders]
    fixed = [entry.folder for entry in entries if entry.train]
    if fixed:
        print(f"Note: the tasks in {', '.join(fixed)} have the fixed parts of their folders train and test")
    return entries


def find_parts(folder, names):
    """Return {part: folder} if the folders `names` in `folder` are a task's parts, {} if they are no parts.

    Raises:
        UserError: there are other folders beside parts, or parts without train or test.
    """
    plain = {name: re.sub("[^a-z]|(set|data|images)$", "", re.sub("[^a-z]", "", name.lower())) for name in names}
    found = [(part, name) for name in names for part in PARTS if plain[name] in PART_FOLDERS[part]]
    parts = {part: name for part in PARTS for other, name in found if other == part}
    if not {"train", "test"} <= set(parts) and (len(found) < len(names) or len(found) < 2):
        return {}  # "train" among other vehicles
    others = [name for name in names if name not in parts.values()]
    if others or not {"train", "test"} <= set(parts):
        raise UserError(f"{folder} has the folders {', '.join(names)}: if these are parts of one task, it needs train "
                        f"and test{f' and not {others[0]}' if others else ''}; else say in tasks.yaml what they are")
    return parts


def read_task(root, entry, suite, name):
    """Read (Task, official parts) of one task."""
    folder = osp.normpath(osp.join(root, entry.folder))
    if not osp.isdir(folder):
        raise MissingFile(f"the task folder {folder} does not exist")
    fixed = {part: osp.join(folder, getattr(entry, part)) for part in PARTS if getattr(entry, part)}
    if fixed and not {"train", "test"} <= set(fixed):
        raise UserError(f"it fixes {', '.join(fixed)}, but needs both train and test")
    for path in fixed.values():
        if not osp.exists(path):
            raise MissingFile(f"{path} does not exist")
    classes = entry.classes
    if classes is None:
        lists = [path for path in fixed.values() if not osp.isdir(path)]
        if lists:
            raise UserError(f"{lists[0]} is a list of images, so the task needs `classes`")
        folders = {name for path in fixed.values() or (folder,)
                   for name in find_class_folders(path, skip=("split_fewshot",))}
        classes = {class_folder: class_folder.replace("_", " ") for class_folder in sorted(folders)}
    task = Task(name, tuple(classes.values()), entry.template or suite.template or Task.template,
                entry.metric or suite.metric or Task.metric)
    labels = {class_folder: label for label, class_folder in enumerate(classes)}
    if not fixed:
        return task, {"all": [(path, label) for class_folder, label in labels.items()
                              for path in images_of(osp.join(folder, class_folder))]}
    parts = {part: read_part(path, folder, labels) for part, path in fixed.items()}
    empty = set(labels.values()) - {label for items in parts.values() for _, label in items}
    if empty:
        raise UserError(f"class {task.classnames[min(empty)]!r} has no image in any part: add some, or leave it out")
    seen = {}
    for part, items in parts.items():
        for path, _ in items:
            if seen.setdefault(path, part) != part:
                raise UserError(f"{path} is in {seen[path]} and in {part}: an image must not be trained and tested on")
    return task, parts


def read_part(path, folder, labels):
    """Read [(image, label)] of a fixed part: a folder of class folders, or a text file of `<class>/<image>` lines."""
    if osp.isdir(path):
        return [(image, label) for class_folder, label in labels.items()
                if osp.isdir(osp.join(path, class_folder)) for image in list_images(osp.join(path, class_folder))]
    items = {}
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                line = line.strip().replace("\\", "/")
                if not line:
                    continue
                image = osp.join(folder, osp.normpath(line))
                class_folder = relative(image, folder).split("/")[0]
                if class_folder not in labels:
                    raise UserError(f"{path}, line {number}: {line!r} is in no class folder of the task")
                if image in items:
                    raise UserError(f"{path}, line {number}: {line!r} stands there twice")
                items[image] = labels[class_folder]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: it must have a line <class>/<image> for each image") from None
    return list(items.items())
