"""Export what a run has learned as ONNX, for use without this repository.

    python export.py RUN OUT [--epoch best]
"""

import argparse

from common.program import program
from runs.config import add_run_flags


def main(argv=None):
    parser = argparse.ArgumentParser(description="Export what a run has learned as ONNX.")
    add_run_flags(parser)
    parser.add_argument("out", help="folder to write, empty or not there")
    args = parser.parse_args(argv)
    with program():
        from learned.exporting import export_run  # PyTorch is slow to import

        export_run(args)


if __name__ == "__main__":
    main()
