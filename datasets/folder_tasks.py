"""A user's own data, with no code: `R/<task>/<class>/*.jpg` and an optional `R/tasks.yaml`."""

import os.path as osp

import yaml

from dassl.data.datasets import DATASET_REGISTRY
from dassl.errors import MissingFile, UserError
from dassl.utils import read_json, write_json

from .base import MultiTaskDataset, Task, TaskData
from .files import PARTS, images_of, list_folders, list_images
from .splits import split_folder, split_train_val, split_train_val_test, stored_split

TASK_KEYS = {"folder", "name", "classes", "template", "metric", "train", "val", "test"}
SUITE_KEYS = {"tasks", "template", "metric"}


@DATASET_REGISTRY.register()
class FolderTasks(MultiTaskDataset):
    """Every folder of the root is a task and every folder in it a class; underscores in names are spaces.

    `tasks.yaml` beside the folders may set, for the whole suite, `template` and `metric`, and, in the list
    `tasks`, per task: `folder`, `name`, `classes` (a list of class folders or a map folder: name), `template`,
    `metric`, and fixed `train`, `val`, `test`, each a folder `<task>/<train>/<class>/` or a text file of lines
    `<class>/<image>`, all relative to the task's folder. Its order is the task order. Without fixed parts each class
    is split 50/20/30 once and the split is stored; without `val`, a fifth of `train` is taken.
    """

    upright = True

    @classmethod
    def read(cls, folder, cfg):
        spec_path = osp.join(folder, "tasks.yaml")
        spec = read_spec(spec_path) if osp.isfile(spec_path) else {}
        where = spec_path if spec else folder
        entries = spec.get("tasks") or [{"folder": name} for name in list_folders(folder) if name != "split_fewshot"]
        if not entries:
            raise UserError(f"FolderTasks: {folder} has no task folders, it needs {folder}/<task>/<class>/<image>.jpg")
        store = osp.join(split_folder(folder, cfg), "split.json")
        stored = read_json(store) if osp.isfile(store) else {}
        known = len(stored)
        data = [read_task(folder, {**spec, **entry}, where, stored, store) for entry in entries]
        if len(stored) > known:
            write_json(stored, store)
        return data


def read_spec(path):
    """Read and check `tasks.yaml`; a wrong key or type is a UserError naming file, task and key."""
    try:
        with open(path, encoding="utf-8") as f:
            spec = yaml.safe_load(f) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("tasks", []), list):
        raise UserError(f"{path} must be a mapping with the keys {sorted(SUITE_KEYS)}, `tasks` being a list")
    for entry in [spec, *spec.get("tasks", [])]:
        known = SUITE_KEYS if entry is spec else TASK_KEYS
        if not isinstance(entry, dict) or (entry is not spec and not isinstance(entry.get("folder"), str)):
            raise UserError(f"{path}: the task entry {entry!r} must be a mapping with a `folder`")
        unknown = sorted(set(entry) - known)
        if unknown:
            raise UserError(f"{path}: unknown key {unknown[0]!r}, the keys are {sorted(known)}")
    return spec


def read_task(root, entry, where, stored, store):
    """One task of the suite as `TaskData`; `stored` collects the splits drawn here, by folder name."""
    folder = osp.join(root, entry["folder"])
    name = entry.get("name", entry["folder"].replace("_", " "))
    if not osp.isdir(folder):
        raise MissingFile(f"{where}: the task folder {folder} does not exist")
    fixed = {part: osp.join(folder, entry[part]) for part in PARTS if part in entry}
    if fixed and not {"train", "test"} <= set(fixed):
        raise UserError(f"{where}: task {name!r} fixes {sorted(fixed)}, but needs both train and test")
    class_folders = class_names_of(entry.get("classes"), folder, fixed, where)
    if not class_folders:
        raise UserError(f"{folder} has no class folders, it needs {folder}/<class>/<image>.jpg")
    task = Task(name, tuple(class_folders.values()), entry.get("template", Task.template),
                entry.get("metric", Task.metric))
    labels = {class_folder: label for label, class_folder in enumerate(class_folders)}
    if fixed:
        parts = {part: read_part(path, folder, labels, where) for part, path in fixed.items()}
        if "val" not in parts:
            parts["train"], parts["val"] = split_train_val(parts["train"])
        return TaskData(task, **parts)

    items = [(path, label) for class_folder, label in labels.items()
             for path in images_of(osp.join(folder, class_folder))]
    if entry["folder"] not in stored:
        drawn = zip(PARTS, split_train_val_test(items))
        stored[entry["folder"]] = {part: [osp.relpath(path, folder) for path, _ in chosen] for part, chosen in drawn}
    return TaskData(task, **stored_split(items, folder, stored[entry["folder"]], store))


def class_names_of(classes, folder, fixed, where):
    """{class folder: class name} from the yaml's `classes`, or from the folders themselves."""
    if classes is None:
        source = fixed.get("train", folder)
        if not osp.isdir(source):
            raise UserError(f"{where}: {source} is a list of images, so the task needs `classes`"
                             if osp.isfile(source) else f"{where}: {source} does not exist")
        classes = list_folders(source)
    if isinstance(classes, list):
        classes = {str(name): str(name).replace("_", " ") for name in classes}
    if not isinstance(classes, dict):
        raise UserError(f"{where}: `classes` of {folder} must be a list of folders or a map folder: name")
    return {str(class_folder): str(name) for class_folder, name in classes.items()}


def read_part(path, folder, labels, where):
    """A fixed part: a folder of class folders, or a text file of `<class>/<image>` lines."""
    if osp.isdir(path):
        return [(image, label) for class_folder, label in labels.items()
                if osp.isdir(osp.join(path, class_folder)) for image in list_images(osp.join(path, class_folder))]
    if not osp.isfile(path):
        raise MissingFile(f"{where}: {path} does not exist")
    items = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line:
                continue
            class_folder = line.split("/")[0]
            if class_folder not in labels:
                raise UserError(f"{path}, line {number}: {class_folder!r} is no class of the task")
            items.append((osp.join(folder, line), labels[class_folder]))
    return items
