"""Predict images with what a run has learned.

    python predict.py RUN IMAGE|FOLDER|- ... [--task NAME] [--output x.csv] [--copy-to FOLDER] [--long]
    python predict.py RUN IMAGE|FOLDER|- ... --new-task "mushroom recognition" --classes "fly agaric,chanterelle"
"""

import argparse
import sys

from common.program import program
from runs.config import add_run_flags
from runs.show import file_name


def parse_args(argv):
    parser = argparse.ArgumentParser(description="Predict images with what a run has learned.")
    add_run_flags(parser)
    parser.add_argument("images", nargs="+", help="images, folders of images, or - for a list of paths on stdin")
    parser.add_argument("--task", default="", help="name of the task (default: all tasks of the run)")
    parser.add_argument("--long", action="store_true", help="--topk classes for each image and task, and its score")
    parser.add_argument("--topk", type=int, default=5, help="classes with --long and in JSON (default: %(default)s)")
    parser.add_argument("--min-probability", type=float, default=0.0, metavar="P",
                        help="from 0 to 1: an image with a smaller one has the class unknown")
    parser.add_argument("--output", type=file_name(".csv", ".json"), help="file to write instead of the table")
    parser.add_argument("--copy-to", default="", metavar="FOLDER",
                        help="copy each image into FOLDER/<task>/<class>/, or FOLDER/<class>/ of a single task")
    parser.add_argument("--excel", action="store_true", help="write the CSV with the mark by which Excel knows UTF-8")
    parser.add_argument("--batch", type=int, default=64,
                        help="images encoded at once, on a CPU at most 25 (default: %(default)s)")
    parser.add_argument("--new-task", default="", help="name of a task that was not trained on, made of names alone")
    parser.add_argument("--classes", default="",
                        help="of the new task: A,B,...; a JSON list, or x.json with one; @x.txt with a name a line")
    parser.add_argument("--template", default="", help="of the new task, {} for a class: needed by zero-shot CLIP")
    args = parser.parse_intermixed_args(argv)
    if min(args.topk, args.batch) < 1:
        parser.error(f"--topk {args.topk}, --batch {args.batch}: they must be 1 or more")
    if not 0 <= args.min_probability <= 1:
        parser.error(f"--min-probability {args.min_probability:g} must be from 0 to 1")
    if args.excel and not (args.output or "").endswith(".csv"):
        parser.error("--excel is of a CSV file: give --output x.csv, too")
    if bool(args.new_task) != bool(args.classes) or (args.template and not args.new_task):
        parser.error("--new-task NAME and --classes A,B,... belong together, and --template to both")
    if args.task and args.new_task:
        parser.error("--task is a task of the run, --new-task another one: give one of them")
    return args


def main(argv=None):
    args = parse_args(argv)
    with program():
        from learned.predicting import predict_run  # PyTorch is slow to import

        broken = predict_run(args)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
