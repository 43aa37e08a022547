"""List or clear the image features that runs keep on disk.

    python -m features list                                     # what is kept: of which images, how much, since when
    python -m features clear [--dataset NAME] [--backbone NAME] [--older-than DAYS] [--yes]

`clear` shows what it would remove, and asks. What a running process uses stays. `list` takes the same choices.
"""

import argparse
import os.path as osp
import time

from tabulate import tabulate

from common.program import confirm, program

from .kept import list_kept, remove
from .store import default_folder, megabytes

DAY = 24 * 3600
HEADERS = ["size", "features", "last used", "dataset", "images", "backbone", "kind", "precision", "device"]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m features", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["list", "clear"])
    parser.add_argument("--dataset", help="only of this dataset: its DATASET.NAME, or its folder (--root of the runs)")
    parser.add_argument("--backbone", help="only of this backbone, as runs name it")
    parser.add_argument("--older-than", type=days, metavar="DAYS", help="only what was last used so many days ago")
    parser.add_argument("--folder", default=default_folder(), help="default: %(default)s")
    parser.add_argument("--yes", action="store_true", help="clear without asking")
    args = parser.parse_args(arguments)
    with program():
        kept = [one for one in list_kept(args.folder) if chosen(one, args)]
        if kept:
            print(tabulate([row_of(one) for one in kept], HEADERS, "plain", disable_numparse=True,
                           colalign=["right"] * 3))
        print(f"{megabytes(sum(one.size for one in kept))} in {args.folder}")
        if args.command == "clear" and kept and (args.yes or confirm("Remove these features?")):
            left, users = remove(args.folder, kept)
            print(f"{megabytes(sum(one.size for one in kept) - sum(one.size for one in left))} removed")
            for folder, user in users.items():
                print(f"{user} uses {folder}, which is left: clear it when that has ended")


def days(text):
    """Read a number of days."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of days, 0 or more")
    return value


def chosen(kept, args):
    """Whether a `Kept` is among those that the command line names."""
    return ((args.dataset is None or args.dataset == kept.dataset
             or bool(kept.root) and osp.abspath(osp.expanduser(args.dataset)) == kept.root)
            and (args.backbone is None or args.backbone == kept.description.get("backbone"))
            and (args.older_than is None or time.time() - kept.used > args.older_than * DAY))


def row_of(kept):
    """The texts of a `Kept`, one for each of `HEADERS`."""
    known = {"features": "global", **kept.description} if kept.description else {"backbone": "space.json is damaged"}
    seeds = sorted(name.removeprefix("train-seed") for name in kept.groups - {"test"})
    images = ["test"] * ("test" in kept.groups) + [f"training, seed {' '.join(seeds)}"] * bool(seeds)
    return [megabytes(kept.size), f"{kept.count:,}", age(time.time() - kept.used),
            (f"{kept.dataset} in {kept.root}" if kept.root else kept.dataset) or "?", "; ".join(images),
            *[str(known.get(key, "?")) for key in ("backbone", "features", "precision", "device")]]


def age(seconds):
    """A time that has passed, in words."""
    if seconds < DAY:
        return f"{max(seconds, 0) / 3600:.0f} hours ago"
    return f"{seconds / DAY:.0f} days ago"


if __name__ == "__main__":
    main()
