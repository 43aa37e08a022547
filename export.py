"""Export what a run has learned as ONNX and, with --torch, for PyTorch alone, for use without this repository.

    python export.py RUN OUT [--epoch best] [--torch]
"""

import argparse
import contextlib
import sys

from common.program import program
from runs.config import add_run_flags


def main(argv=None):
    parser = argparse.ArgumentParser(description="Export what a run has learned as ONNX.")
    add_run_flags(parser)
    parser.add_argument("out", help="folder to write, empty or not there")
    parser.add_argument("--torch", action="store_true", help="also write classifier.pt2, which PyTorch alone reads")
    args = parser.parse_args(argv)
    with program():
        from learned.exporting import export  # PyTorch is slow to import

        with contextlib.redirect_stdout(sys.stderr):
            export(args.run, args.out, args.epoch, args.torch)
        print(f"The classifier of {args.run} is in {args.out}; its README.md says how to use it")


if __name__ == "__main__":
    main()
