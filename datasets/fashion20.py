"""Fashion-20: twenty attributes of clothes, shoes, hats and socks, each a task of its own; 78 classes."""

import csv
import os.path as osp

from common.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import MultiTaskDataset, Task, TaskData
from .files import check_official_file, find_class_folders, read_many_class_folders
from .sources import Source
from .splits import complete_parts, split_folder

# Garments in the images of tasks 0, 1 ... 19.
GARMENTS = (*["pants"] * 3, *["tops"] * 4, *["shoes"] * 7, "hat", "socks", "socks", "skirt", "tops", "underwear")


@DATASET_REGISTRY.register()
class Fashion20(MultiTaskDataset):
    """Twenty tasks, declared by `task_info.csv`; images in `images/<task>/<class>/`, both numbers from 0 on.

    The tasks have too few classes for base and new halves: these are refused.
    """

    dataset_dir = "fashion20"
    sources = (Source("https://www.sciencedirect.com/science/article/abs/pii/S0925231224010610",
                      folders=tuple(f"images/{number}" for number in range(len(GARMENTS))), files=("task_info.csv",),
                      note="Fashion-20, from the authors of this paper, who announced its release"),)
    class_count = 78

    @classmethod
    def read(cls, folder, cfg):
        if cfg.DATASET.SUBSAMPLE_CLASSES != "all":
            raise UserError("Fashion20 has no base and new classes: leave DATASET.SUBSAMPLE_CLASSES at all, not "
                             f"{cfg.DATASET.SUBSAMPLE_CLASSES!r}")
        store = split_folder(folder, cfg)
        return [TaskData(task, **complete_parts(parts, osp.join(folder, "images", str(number)),
                                                osp.join(store, f"split_task{number}.json")))
                for number, (task, parts) in enumerate(cls.read_files(folder))]

    @classmethod
    def read_files(cls, folder):
        tasks, folders = [], []
        for number, (name, classnames) in enumerate(read_task_info(osp.join(folder, "task_info.csv"))):
            images = osp.join(folder, "images", str(number))
            classes = [str(label) for label in range(len(classnames))]
            unknown = sorted(set(find_class_folders(images)) - set(classes))
            if unknown:
                raise UserError(f"{images} has the class folder {unknown[0]}, but task_info.csv names {len(classes)} "
                                 f"classes of task {name!r}: fetch both again")
            tasks.append(Task(name, classnames, f"a photo of {{}}, a type of {GARMENTS[number]}.", "mean_acc"))
            folders.append((images, classes))
        return [(task, {"all": items}) for task, items in zip(tasks, read_many_class_folders(folders))]


def read_task_info(path):
    """Read `task_info.csv`: a header line, then id, task name, an unused column and class names joined by commas.

    Columns are separated by tabs.

    Returns:
        [(task name, class names)] of tasks 0 to 19; underscores become spaces.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not of that form, or its ids are not 0 to 19; the message names file and line.
    """
    check_official_file(path)
    tasks = {}
    with open(path, encoding="utf-8-sig", newline="") as f:
        rows = csv.reader(f, delimiter="\t")
        try:
            next(rows, None)
            for row in rows:
                if any(cell.strip() for cell in row):
                    number, name, _, names = (cell.replace("_", " ").strip() for cell in row)
                    names = tuple(part.strip() for part in names.split(","))
                    if not name or "" in names or int(number) in tasks:
                        raise ValueError
                    tasks[int(number)] = name, names
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text: fetch the official file again") from None
        except (ValueError, csv.Error):  # ValueError also from a wrong number of columns or an id that is no number
            raise UserError(f"{path}, line {rows.line_num}: not the id of another task, its name, a third column and "
                             "class names joined by commas, with tabs between: fetch the official file again") from None
    if sorted(tasks) != list(range(len(GARMENTS))):
        raise UserError(f"{path} must describe the tasks 0 to {len(GARMENTS) - 1}, but describes "
                         f"{', '.join(map(str, sorted(tasks))) or 'none'}: fetch the official file again")
    return [tasks[number] for number in range(len(GARMENTS))]
