"""Download the public files of a dataset or suite, list those to fetch by hand, and check the existing ones.

    python -m datasets.prepare general10 --root R
    python -m datasets.prepare general10 --root R --check

The `sources` of a dataset's class say what it consists of; `folder_tasks` stands for a user's own folder R. The exit
code is 0 if everything that is needed is there and, with --check, which opens every image, can be read. The output
names unusual numbers of images, images that are there twice, and files that are no images; with --check also every
task and its classes.
"""

import argparse
import os
import os.path as osp
import sys
from collections import Counter
from dataclasses import dataclass

import yaml
from tabulate import tabulate

import datasets  # noqa: F401, registers all datasets
from common.errors import UserError
from common.images import list_broken
from dassl.data.datasets import DATASET_REGISTRY

from ..base import SingleTaskDataset, Suite
from ..check_images import broken_images
from ..files import IMAGE_SUFFIXES, MOST, MissingFiles
from ..folder_tasks import FolderTasks
from ..sources import COOP
from ..splits import relative
from .describe import describe_images, describe_tasks
from .fetch import obtain

CONFIGS = osp.join(osp.dirname(datasets.__file__), "..", "configs", "datasets")


@dataclass(frozen=True)
class Report:
    """Result of examining a dataset.

    Attributes:
        found: "yes", "partly" or "no".
        missing: paths of missing files and folders; one that ends with a separator stands for all images in it.
        problem: the reason why existing files cannot be read, or "".
        classes: number of classes; None while files that tell it are missing.
        images: number of the dataset's images that exist.
        notes: sentences on unusual images.
        tasks: a line for each task, on its classes.
    """

    found: str
    missing: list
    problem: str
    classes: int
    images: int
    notes: list
    tasks: list


def read_configs():
    """Map each file of public datasets in configs/datasets (its name without .yaml) to the dataset's class."""
    classes = {}
    for entry in sorted(os.listdir(CONFIGS)):
        with open(osp.join(CONFIGS, entry), encoding="utf-8") as f:
            cls = DATASET_REGISTRY.get(yaml.safe_load(f)["DATASET"]["NAME"])
        if issubclass(cls, (Suite, FolderTasks)) or cls.sources:  # the others generate their images
            classes[osp.splitext(entry)[0]] = cls
    return classes


def members_of(names, configs):
    """Map name to class of the datasets in `names` and the members of suites; an unknown name is a UserError."""
    unknown = [name for name in names if name not in configs]
    if unknown:
        raise UserError(f"no files are known of a dataset {unknown[0]!r}: choose from {', '.join(configs)} "
                        "(outfits16 is made on first use)")
    classes = [member for name in names for member in getattr(configs[name], "members", (configs[name],))]
    by_class = {cls: name for name, cls in configs.items()}
    return {by_class[cls]: cls for cls in classes}


def has_split_zhou(cls, folder):
    return issubclass(cls, SingleTaskDataset) and osp.isfile(cls.split_zhou_path(folder))


def missing_paths(source, cls, folder):
    """Paths of a source that are needed and not there; paths of folders end with a separator.

    With CoOp's split file no other list is needed.
    """
    return [osp.join(folder, path, "") if path in source.folders else osp.join(folder, path)
            for path in (source.folders if has_split_zhou(cls, folder) else source.paths)
            if not source.is_there(path, folder)]


def examine(cls, root, thorough=False):
    """Make the `Report` on a dataset under `root`; `thorough` opens every image. Nothing is written below `root`."""
    folder = osp.normpath(osp.join(root, cls.dataset_dir))
    missing = [path for source in cls.sources for path in missing_paths(source, cls, folder)]
    problem, classes, images, notes, described = "", None, None, [], []
    if not missing:
        try:
            tasks = cls.read_files(folder)
        except MissingFiles as error:
            missing = [osp.join(path, "") for path in error.paths]  # class folders: all else is known to be there
        except (OSError, ValueError) as error:
            problem = str(error)
        else:
            listed = {path for _, parts in tasks for items in parts.values() for path, _ in items}
            absent = {path for path in listed if not osp.isfile(path)}
            classes = sum(len(task.classnames) for task, _ in tasks)
            images = len(listed) - len(absent)
            missing = group_by_folder(absent, listed)
            notes, described = describe_images(cls, tasks, absent), describe_tasks(tasks, absent)
            broken = broken_images(sorted(listed - absent)) if thorough else {}
            problem = cls.wrong_count(folder, classes) or (list_broken(broken) if broken else "")
    if images is None:
        images = sum(name.lower().endswith(IMAGE_SUFFIXES) for source in cls.sources for path in source.folders
                     for _, _, names in os.walk(osp.join(folder, path)) for name in names)
    partly = images or any(source.is_there(path, folder) for source in cls.sources for path in source.paths)
    found = "yes" if not missing and not problem else "partly" if partly else "no"
    return Report(found, missing, problem, classes, images, notes, described)


def group_by_folder(absent, listed):
    """Sort the paths of missing images; a folder that has none of its listed images stands for them."""
    total, lost = Counter(map(osp.dirname, listed)), Counter(map(osp.dirname, absent))
    empty = {folder for folder in lost if lost[folder] == total[folder]}
    folders = set()
    for folder in empty:
        while not osp.isdir(osp.dirname(folder)):
            folder = osp.dirname(folder)
        folders.add(osp.join(folder, ""))
    return sorted(folders) + sorted(path for path in absent if osp.dirname(path) not in empty)


def is_automatic(source, folder):
    """Return whether a program can get the source: by its address, or from an archive that is there."""
    return bool(source.url) or bool(source.archive) and osp.isfile(osp.join(folder, source.archive))


def download(name, cls, root, unverified):
    """Obtain every source that a program can get; an error is printed, and the next source is tried."""
    folder = osp.join(root, cls.dataset_dir)
    for source in cls.sources:
        if missing_paths(source, cls, folder) and is_automatic(source, folder):
            try:
                obtain(source, folder, unverified)
            except ValueError as error:
                print(f"{name}: {error}", file=sys.stderr)


def shortened(lines):
    """Return at most ten of `lines`, and how many others there are."""
    return [*lines[:MOST], *([f"... and {len(lines) - MOST:,} more"] if len(lines) > MOST else [])]


def show(reports, members, root, thorough):
    """Print the table of all reports, and say how to get the missing files; `thorough` also prints every task."""
    rows = [(name, report.found, "-" if report.classes is None else f"{report.classes:,}", f"{report.images:,}",
             "\n".join(shortened([relative(path, root) for path in report.missing])))
            for name, report in reports.items()]
    print(tabulate(rows, ["dataset", "found", "classes", "images", "missing"], disable_numparse=True,
                   colalign=("left", "left", "right", "right", "left")))
    automatic, optional = [], []
    for name, report in reports.items():
        cls, folder = members[name], osp.join(root, members[name].dataset_dir)
        lacking = [source for source in cls.sources if missing_paths(source, cls, folder)]
        if thorough and report.tasks:
            print(f"\n{name}, with the names as the model reads them:", *report.tasks, sep="\n  ")
        for text in [*report.notes, *([report.problem] if report.problem else [])]:
            print(f"\n{name}: {text}")
        if not report.problem and report.missing and not lacking:
            whence = (f"unpack them again from {cls.sources[0].page}, or move the folder of images away and run this "
                      "without --check" if cls.sources else "put them there, or take them off the lists")
            print(f"\n{name}: the images in {folder} are incomplete, and are left as they are: {whence}")
        for source in lacking:
            if is_automatic(source, folder):
                automatic.append(f"{name}: {source.url or osp.join(folder, source.archive)}")
            else:
                print(f"\n{name}, by hand: {source.note}\n  from {source.page}")
                print("\n".join(shortened([f"  to   {path}" for path in missing_paths(source, cls, folder)])))
                if source.archive:
                    print(f"  or   put {source.archive} into {folder} and run this without --check")
        if cls.split_zhou and not has_split_zhou(cls, folder):
            optional.append(cls.split_zhou_path(folder))
    if automatic:
        print("\nStill to be downloaded and unpacked, by this command without --check:", *automatic, sep="\n  ")
    if optional:
        print(f"\nOptional: CoOp's split files, by hand from {COOP}; without its file a dataset is split anew:",
              *optional, sep="\n  ")
    if thorough:
        doubts = sum(len(report.notes) + bool(report.problem) + bool(report.missing) for report in reports.values())
        print(f"\n{doubts:,} thing{'s need' if doubts > 1 else ' needs'} a look: see above" if doubts else
              "\nAll is fine: every image can be read, and nothing needs a look")


def main(argv=None):
    parser = argparse.ArgumentParser("python -m datasets.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("suites", nargs="+", metavar="SUITE", help="file in configs/datasets, without .yaml")
    parser.add_argument("--root", required=True, help="folder of all datasets, as train.py's --root")
    parser.add_argument("--check", action="store_true", help="download nothing, but open every image")
    parser.add_argument("--unverified", action="store_true",
                        help="fetch also what is sent over plain http or has no published checksum")
    args = parser.parse_args(argv)
    root = osp.abspath(osp.expanduser(args.root))
    try:
        members = members_of(args.suites, read_configs())
        if not osp.isdir(root):
            raise UserError(f"the folder {root} does not exist: make it, or check --root")
        if not args.check:
            for name, cls in members.items():
                download(name, cls, root, args.unverified)
        reports = {name: examine(cls, root, args.check) for name, cls in members.items()}
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130
    show(reports, members, root, args.check)
    return 0 if all(report.found == "yes" for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
