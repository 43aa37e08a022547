"""A user's own data, without code: `R/<task>/<class>/*.jpg` and an optional `R/tasks.yaml`."""

import os.path as osp
import re

from common.errors import MissingFile, UserError
from common.names import did_you_mean
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import listdir_nohidden

from .base import MultiTaskDataset, Task, TaskData
from .files import (
    PARTS,
    describe_unread,
    find_class_folders,
    images_of,
    list_folders,
    list_images,
    near_paths,
    unread_in_class_folders,
)
from .image_tables import is_table, read_table
from .schemas import Declaration, TaskEntry, TasksFile, read_tasks_file
from .splits import SHARES, complete_parts, place_groups, relative, split_folder

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
    the task order. Without fixed parts each class is split 50/20/30, or by `split`, once and the split is stored;
    without `val`, a fifth of `train` is taken. Images of one of the `groups` stay together: they are the folders of
    images, `<task>/<class>/<group>/<image>`, or the values of a column of CSV files.
    """

    upright = True

    @classmethod
    def read(cls, folder, cfg):
        store, entries = osp.join(split_folder(folder, cfg), "split.json"), read_entries(folder)
        if unread := describe_unread(unread_in_class_folders([parts for _, _, parts, _ in entries])):
            print(f"Warning: {unread}")
        return [TaskData(task, **complete_parts(parts, osp.normpath(osp.join(folder, entry.folder)), store,
                                                store_key(entry), entry.split or SHARES, groups))
                for entry, task, parts, groups in entries]

    @classmethod
    def read_files(cls, folder):
        return [(task, parts) for _, task, parts, _ in read_entries(folder)]


def store_key(entry):
    """Return the key of a task's split in the file of all splits: another declaration has another split."""
    declared = [path for path in (entry.images, entry.train) if path and is_table(path)]
    declared += [f"split {entry.split}"] if entry.split and not entry.train else []
    declared += [f"groups {entry.groups}"] if entry.groups else []
    return "; ".join([entry.folder, *declared])


def read_entries(root):
    """Read [(`TaskEntry`, Task, official parts, groups)] of the tasks below `root`; errors name file and task.

    What an entry does not set is the suite's.
    """
    where = osp.join(root, "tasks.yaml")
    suite = read_tasks_file(where) if osp.isfile(where) else TasksFile()
    where = where if osp.isfile(where) else root
    entries = [entry.model_copy(update={key: getattr(suite, key) for key in Declaration.model_fields
                                        if getattr(entry, key) is None})
               for entry in suite.tasks or find_entries(root)]
    if suite.split and all(entry.train for entry in entries):
        raise UserError(f"{where}: `split` is of tasks without fixed train and test, but all have these: leave it out")
    read = []
    for entry in entries:
        default = osp.basename(root) if entry.folder == "." else entry.folder
        name = entry.name or default.replace("_", " ")
        twice = [other.folder for other, task, *_ in read if task.name == name]
        if twice:
            raise UserError(f"{where}: the tasks in {twice[0]} and {entry.folder} are both named {name!r}: name them "
                            "apart")
        try:
            read.append((entry, *read_task(root, entry, name)))
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
    paths = [osp.join(root, name) for name in folders]
    if parts or any(map(list_images, paths)) and not any(map(list_folders, paths)):
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


def read_task(root, entry, name):
    """Read (Task, official parts, {image: group} or None) of one task."""
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
            raise MissingFile(f"{path} does not exist{did_you_mean(near_paths(path))}")
    classes = entry.classes
    groups = entry.groups
    tables = {path: read_table(path, osp.normpath(osp.join(folder, entry.image_dir)), entry.columns, classes, groups)
              for path in sources.values() if is_table(path) and osp.isfile(path)}
    if groups not in (None, "folder") and len(tables) < len(sources):
        raise UserError(f"`groups: {groups}` is a column of CSV files, which are not all that the task has: list its "
                        "images in such, or set `groups: folder`")
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
    task = Task(name, tuple(classes.values()), entry.template or Task.template, entry.metric or Task.metric)
    labels = {class_folder: label for label, class_folder in enumerate(classes)}
    read = {part: tables.get(path) or (read_list(path, folder, labels, groups) if osp.isfile(path) else
                                       read_folders(path, labels, groups, all_needed=not fixed))
            for part, path in sources.items()}
    parts = {part: [(image, labels[key]) for image, key, _ in items] for part, items in read.items()}
    empty = set(labels.values()) - {label for items in parts.values() for _, label in items}
    if empty:
        name = task.classnames[min(empty)]
        own = ", ".join(osp.join(path, list(classes)[min(empty)]) for path in sources.values() if osp.isdir(path))
        raise UserError(f"class {name!r} has no image in any part{own and f' ({own})'}: add some, or leave it out")
    seen = {}
    for part, items in parts.items():
        for path, _ in items:
            if seen.setdefault(path, part) != part:
                raise UserError(f"{path} is in {seen[path]} and in {part}: an image must not be trained and tested on")
    groups = groups and {image: group for items in read.values() for image, _, group in items}
    if groups:
        place_groups(parts, groups)  # refuses groups that fixed parts divide
    return task, parts, groups


def read_folders(path, classes, groups, all_needed):
    """Read [(image, class folder, group)] in the class folders `classes` of a folder.

    The group is "" or, with groups, the folder `<class>/<group>` of the image.

    Raises:
        MissingFile: a class folder is missing or has no image, and all are needed.
        UserError: with groups, an image lies in no folder of a group.
    """
    items = []
    for class_folder in classes:
        folder = osp.join(path, class_folder)
        inner = list_folders(folder) if groups and osp.isdir(folder) else []
        if all_needed or osp.isdir(folder):
            images = images_of(folder) if all_needed and not inner else list_images(folder)
            items += [(image, class_folder, "") for image in images]
        items += [(image, class_folder, group) for group in inner for image in list_images(osp.join(folder, group))]
    loose = [image for image, _, group in items if groups and not group]
    if loose:
        raise UserError(f"{loose[0]} is in no folder of its group: with `groups: folder` images are "
                        "<class>/<group>/<image>")
    return items


def read_list(path, folder, classes, groups):
    """Read [(image, class folder, group)] of a text file of lines `<class>/<image>`, or `<class>/<group>/<image>`."""
    items = {}
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                line = line.strip().replace("\\", "/")
                if not line:
                    continue
                image = osp.join(folder, osp.normpath(line))
                class_folder, *inner = osp.dirname(relative(image, folder)).split("/")
                if class_folder not in classes:
                    raise UserError(f"{path}, line {number}: {line!r} is in no class folder of the task")
                if image in items:
                    raise UserError(f"{path}, line {number}: {line!r} stands there twice")
                if groups and not inner:
                    raise UserError(f"{path}, line {number}: {line!r} is in no folder of its group: with `groups: "
                                    "folder` lines are <class>/<group>/<image>")
                items[image] = class_folder, "/".join(inner)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: it must have a line <class>/<image> for each image") from None
    return [(image, *found) for image, found in items.items()]
