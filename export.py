"""Export what a run has learned as ONNX, for use without this repository.

    python export.py RUN OUT [--epoch best]
"""

import argparse

from common.program import program
from runs.config import epoch_name


def main(argv=None):
    parser = argparse.ArgumentParser(description="Export what a run has learned as ONNX.")
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("out", help="folder to write, empty or not there")
    parser.add_argument("--epoch", type=epoch_name, help="which model: best, last or the number of an epoch (default: "
                        "best if the run kept one, else last)")
    args = parser.parse_args(argv)
    with program():
        from learned.exporting import export_run  # PyTorch is slow to import

        export_run(args)


if __name__ == "__main__":
    main()
