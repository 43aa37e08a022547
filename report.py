"""One HTML page of a folder of runs: tables, charts, confusion matrices, settings and times.

    python report.py OUTPUT out.html [--thumbnails N | --no-thumbnails]

The page holds all it needs, and nothing is fetched when it is read.
"""

import argparse
import os.path as osp
import sys

from common.program import program
from learned.reporting import write_report
from parse_test_res import list_left_out
from runs.show import file_name


def parse_args(argv):
    parser = argparse.ArgumentParser(description="One HTML page of a folder of runs.")
    parser.add_argument("dir", metavar="OUTPUT", help="folder of the runs, which may lie anywhere below it")
    parser.add_argument("out", metavar="out.html", type=file_name(".html"), help="file to write")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--thumbnails", type=int, default=600, metavar="N",
                      help="small images in the page, at most (default: %(default)s)")
    many.add_argument("--no-thumbnails", dest="thumbnails", action="store_const", const=0, help="no images")
    args = parser.parse_args(argv)
    if args.thumbnails < 0:
        parser.error(f"--thumbnails {args.thumbnails}: it must be 0 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    with program():
        left_out, notes = write_report(args.dir, args.out, args.thumbnails)
        list_left_out(left_out)
        print(*notes, f"The report of {args.dir} is {args.out} ({osp.getsize(args.out) / 1e6:.1f} MB)", sep="\n",
              file=sys.stderr)


if __name__ == "__main__":
    main()
