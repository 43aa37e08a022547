"""What the registered methods say of themselves.

    python -m trainers DATASET CFG [--shots 1 2 4 8 16] [--methods LABEL ...]   # the commands of all_methods.sh
    python -m trainers --keys                                                   # the table of all config keys
"""

import argparse

from common.errors import UserError
from common.program import program
from runs.keys import markdown
from runs.methods import commands


def main():
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", help="name of a file in configs/datasets")
    parser.add_argument("cfg", nargs="?", help="name of a file in configs/trainers")
    parser.add_argument("--shots", nargs="+", default=["1", "2", "4", "8", "16"], help="training images per class")
    parser.add_argument("--methods", nargs="*", default=(), help="rows of the results table (default: the published)")
    parser.add_argument("--keys", action="store_true", help="print the config keys instead")
    args = parser.parse_args()
    with program():
        if args.keys:
            print(markdown())
            return
        if not args.cfg:
            raise UserError("python -m trainers needs DATASET and CFG, or --keys")
        for label, command in commands(args.dataset, args.cfg, args.shots, args.methods):
            print(f"{label}|{command}")


if __name__ == "__main__":
    main()
