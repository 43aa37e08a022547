"""From folders of images to a classifier: compares methods, tests the best one and exports it.

    python fit.py IMAGES --backbone ViT-B/32 --output OUT

IMAGES holds `<task>/<class>/<image>`, or `<class>/<image>` of one task. A call that was stopped goes on.
"""

import argparse
import sys

from common.program import program


def main(argv=None):
    parser = argparse.ArgumentParser(description="Compares methods on a folder of images, and exports the best one.")
    parser.add_argument("images", metavar="IMAGES", help="folder of <task>/<class>/<image>, or of <class>/<image>")
    parser.add_argument("--backbone", required=True, help="a CLIP, as for train.py")
    parser.add_argument("--output", required=True, metavar="OUT", help="folder of the report, classifier and runs")
    parser.add_argument("--methods", nargs="+", help="rows of the results table, or all (default: the quick ones)")
    parser.add_argument("--shots", type=int, default=-1, help="training images per class (default: all)")
    parser.add_argument("--opts", nargs="+", default=[], metavar="WORD", help="KEY VALUE ... of every run")
    args = parser.parse_args(argv)
    with program("goes on"):
        from learned.fitting import fit  # PyTorch is slow to import

        failed = fit(args)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
