"""A user's own data, without code: `R/<task>/<class>/*.jpg` and an optional `R/tasks.yaml`."""

import os.path as osp
import re

from common.errors import MissingFile, UserError
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import listdir_nohidden

from .base import MultiTaskDataset, Task, TaskData
from .files import PARTS, did_you_mean, find_class_folders, images_of, list_folders, list_images
from .image_tables import is_table, read_table
from .schemas import TaskEntry, TasksFile, read_tasks_file
from .splits import complete_parts, relative, split_folder

# Names of folders and CSV files that are parts, without signs between words, and perhaps with "set", "data" or
# "images" after it.
PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@DATASET_REGISTRY.register()
class FolderTasks(MultiTaskDataset):
    """Every folder of the root is a task and every folder in it a class; underscores in names are spaces.

    A root or task whose folders are `train`, `test` and perhaps `val`, each with class folders, is one task with these
    fixed parts, and so is a root whose folders hold images themselves. `tasks.yaml` beside the folders may set, for
    the whole suite, `template` and `metric`, and, in the list `tasks`, per task: `folder`, `name`, `classes` (a list
    of class folders or a map folder: name), `template`, `metric`, and fixed `train`, `val`, `test`, each a folder
    `<task>/<train>/<class>/`, a text file of lines `<class>/<image>` or a CSV file with the labels (`image_tables`),
    all relative to the task's folder; or `images`, a CSV file of all images. Images in CSV files are relative to
    `image_dir`, by default the task's folder; `columns` names the columns `image` and `label`. The order of `tasks` is
    the task order. Without fixed parts each class is split 50/20/30 once and the split is stored; without `val`, a
    fifth of `train` is taken.
    """

    upright = True

    @classmethod
    def read(cls, folder, cfg):
        store = osp.join(split_folder(folder, cfg), "split.json")
        return [TaskData(task, **complete_parts(parts, osp.normpath(osp.join(folder, entry.folder)), store,
                                                store_key(entry)))
                for entry, task, parts in read_entries(folder)]

    @classmethod
    def read_files(cls, folder):
        return [(task, parts) for _, task, parts in read_entries(folder)]


def store_key(entry):
    """Return the key of a task's split in the file of all splits."""
    lists = [path for path in (entry.images, entry.train) if path and is_table(path)]
    return "; ".join([entry.folder, *lists])


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
    lists = find_lists(root, folders)
    if not folders and not lists:
        raise UserError(f"FolderTasks: {root} has no task folders, it needs {root}/<task>/<class>/<image>.jpg")
    parts = lists or find_parts(root, folders)
    if parts or all(list_images(osp.join(root, name)) and not list_folders(osp.join(root, name)) for name in folders):
        print(f"Note: {root} is taken for one task, {osp.basename(root)!r}, "
              + (f"with the fixed parts {', '.join(parts.values())}" if parts else "whose folders are its classes"))
        return [TaskEntry(folder=".", **parts)]
    entries = []
    for name in folders:
        folder = osp.join(root, name)
        inner = list_folders(folder)
        entries.append(TaskEntry(folder=name, **(find_lists(folder, inner) or find_parts(folder, inner))))
    fixed = [entry.folder for entry in entries if entry.train]
    if fixed:
        print(f"Note: the tasks in {', '.join(fixed)} have the fixed parts of their folders or CSV files train and "
              "test")
    return entries


def part_of(name):
    """Return the part that a folder or file of this name holds, without suffix, or None."""
    plain = re.sub("[^a-z]|(set|data|images)$", "", re.sub("[^a-z]", "", name.lower()))
    return next((part for part in PARTS if plain in PART_FOLDERS[part]), None)


def find_lists(folder, names):
    """Return {part: CSV file} if `folder` has such for train and test, and {} if its folders `names` tell classes.

    Raises:
        UserError: two files have the name of one part.
    """
    lists = {}
    for file in sorted(filter(is_table, listdir_nohidden(folder))):
        lists.setdefault(part_of(osp.splitext(file)[0]), []).append(file)
    lists.pop(None, None)
    if (not {"train", "test"} <= set(lists) or sum(not part_of(name) for name in names) > 1
            or any(list_folders(osp.join(folder, name)) for name in names)):
        return {}
    for part, files in lists.items():
        if len(files) > 1:
            raise UserError(f"{folder} has {' and '.join(files)}: say in tasks.yaml which is {part}")
    return {part: file for part, (file,) in lists.items()}


def find_parts(folder, names):
    """Return {part: folder} if the folders `names` in `folder` are a task's parts, {} if they are no parts.

    Raises:
        UserError: there are other folders beside parts, or parts without train or test.
    """
    found = [(part_of(name), name) for name in names if part_of(name)]
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
    if entry.images and (fixed or not is_table(entry.images)):
        raise UserError(f"`images: {entry.images}` must be a CSV file of all images, "
                        f"{'without fixed train and test beside it' if fixed else 'whose name ends with .csv'}")
    sources = fixed or {"all": osp.join(folder, entry.images) if entry.images else folder}
    for path in sources.values():
        if not osp.exists(path):
            raise MissingFile(f"{path} does not exist{did_you_mean(path)}")
    classes = entry.classes
    tables = {path: read_table(path, osp.normpath(osp.join(folder, entry.image_dir)), entry.columns, classes)
              for path in sources.values() if is_table(path) and osp.isfile(path)}
    if not tables and (entry.columns or entry.image_dir != "."):
        raise UserError("it has `columns` or `image_dir`, which are of CSV files, but none as train, test or images")
    if classes is None:
        lists = [path for path in fixed.values() if not osp.isdir(path) and path not in tables]
        if lists:
            raise UserError(f"{lists[0]} is a list of images, so the task needs `classes`")
        keys = {key for path in sources.values()
                for key in ([label for _, label, _ in tables[path]] if path in tables else
                            find_class_folders(path, skip=("split_fewshot",)))}
        classes = {key: key.replace("_", " ") for key in sorted(keys)}
    task = Task(name, tuple(classes.values()), entry.template or suite.template or Task.template,
                entry.metric or suite.metric or Task.metric)
    labels = {class_folder: label for label, class_folder in enumerate(classes)}
    parts = {part: [(image, labels[key]) for image, key, _ in tables[path]] if path in tables else
             read_part(path, folder, labels) if fixed else
             [(image, label) for class_folder, label in labels.items()
              for image in images_of(osp.join(folder, class_folder))] for part, path in sources.items()}
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
