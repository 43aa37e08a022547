"""Remove the runs of an experiment.

    python -m runs remove FOLDER [--yes]

shows the runs in FOLDER and below, and asks. It refuses while a process works in one of them, and where the folder
holds a file that no run writes.
"""

import argparse
import contextlib
import os
import os.path as osp
import re

from common.errors import MissingFile, UserError
from common.program import confirm, program

from .checkpoints import checkpoint_files
from .folder import LOCK_FILE, OWNER_FILE, RESUME_FILE, TEMPORARY, RunFolder
from .outcome import CMAT_FILE, METRICS_FILE, PREDICTIONS_FILE
from .results import RESULTS_FILE

OWN = {"log.txt", RESULTS_FILE, RESUME_FILE, METRICS_FILE, PREDICTIONS_FILE, CMAT_FILE, LOCK_FILE, OWNER_FILE}
MARKS = {"log.txt", RESULTS_FILE, RESUME_FILE, LOCK_FILE}  # a folder with one of these is a run's
BELOW = re.compile(r"confusion/task\d+\.(csv|png|pt)|tensorboard/events\.out\.tfevents\..+"
                   r"|[^/]+/(checkpoint|model\.pth\.tar-\d+|model-best\.pth\.tar)")  # files in its folders
CHART = "accuracy.png"  # of a results table, which scripts draw beside the runs
SHOWN = 5  # files that an error names


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m runs", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["remove"])
    parser.add_argument("folder", help="folder of a run, or of several")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    args = parser.parse_args(arguments)
    folder = osp.normpath(args.folder)
    with program():
        runs, charts = find_files(folder)
        for path in runs:
            with RunFolder(path):  # refused where a process works
                pass
        size = sum(osp.getsize(path) for path in [*sum(runs.values(), []), *charts] if osp.isfile(path))
        for path in runs:
            print(f"{path} ({RunFolder(path).state()})")
        if args.yes or confirm(f"Remove {len(runs)} run{'s' * (len(runs) > 1)} ({size / 2**20:,.1f} MB)?"):
            remove(folder, runs, charts)
            print(f"{len(runs)} removed")


def find_files(root):
    """The files of the runs in a folder and below, and the charts of their tables: ({folder of a run: paths}, paths).

    Args:
        root: a path without a separator at its end.

    Raises:
        MissingFile: there is no such folder. UserError: it holds no run, or files of something else, or links.
    """
    if not osp.isdir(root):
        raise MissingFile(f"the folder {root} does not exist: check the path")
    if osp.islink(root):
        raise UserError(f"{root} is a link to {osp.realpath(root)}: name that folder itself")
    runs, charts, strange = {}, [], []
    for folder, names, files in os.walk(root, onerror=refuse):
        names.sort()
        if MARKS & {*files} or checkpoint_files(folder):
            runs[folder] = []
        run = next((above for above in parents(folder, root) if above in runs), None)
        links = [name for name in names if osp.islink(osp.join(folder, name))]
        for name in [*sorted(files), *links]:
            path = osp.join(folder, name)
            inside = osp.relpath(path, run).replace(os.sep, "/") if run else ""
            if osp.islink(path):
                strange.append(path)
            elif run and (inside in OWN or BELOW.fullmatch(inside)
                          or inside.count("/") < 2 and TEMPORARY.fullmatch(name)):
                runs[run].append(path)
            elif name == CHART and not run:
                charts.append(path)
            else:
                strange.append(path)
    if strange:
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        raise UserError(f"{root} holds what no run writes ({', '.join(strange[:SHOWN])}{more}): move it away, or name "
                        "a folder that holds runs alone")
    if not runs:
        raise UserError(f"{root} holds no run: nothing to remove")
    return runs, charts


def refuse(error):
    """Raise the error of a folder that can't be read."""
    raise error


def parents(folder, root):
    """Yield a folder and those above it, up to `root`."""
    yield folder
    while folder != root:
        folder = osp.dirname(folder)
        yield folder


def remove(root, runs, charts):
    """Remove what `find_files` found, and folders that are empty then; what was written meanwhile stays.

    Raises:
        FolderInUse: a process began to work in a run, which is left, and those after it.
    """
    for folder, files in runs.items():
        with RunFolder(folder):
            for path in [*files, osp.join(folder, LOCK_FILE), osp.join(folder, OWNER_FILE)]:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
    for path in charts:
        os.remove(path)
    for folder, _, _ in os.walk(root, topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)


if __name__ == "__main__":
    main()
