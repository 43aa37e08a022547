"""List or clear the image features that runs keep on disk.

    python -m features list     # what is kept, and its size
    python -m features clear    # delete all of it
"""

import argparse
import shutil

from common.program import program

from .store import default_folder, list_folders, megabytes


def main():
    parser = argparse.ArgumentParser(prog="python -m features", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["list", "clear"])
    parser.add_argument("--folder", default=default_folder(), help="default: %(default)s")
    args = parser.parse_args()
    with program():
        total = 0
        for description, folder, size in list_folders(args.folder):
            total += size
            known = {"features": "global", **description}
            what = ", ".join(str(known.get(key, "?")) for key in ("backbone", "features", "precision", "device",
                                                                  "transforms"))
            print(f"{megabytes(size):>12}  {folder}  {what if description else 'its space.json is damaged'}")
            if args.command == "clear":
                shutil.rmtree(folder)
        print(f"{megabytes(total):>12}  {'deleted' if args.command == 'clear' else 'in all'}, {args.folder}")


if __name__ == "__main__":
    main()
