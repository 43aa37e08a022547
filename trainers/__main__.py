"""List or make the runs of the registered methods, or print their keys.

    python -m trainers DATASET CFG [--shots 1 2 ...] [--seeds 1 ...] [--methods LABEL ...]  # lists a table's runs
    python -m trainers run --script NAME "DATASET CFG ..." -- WORD ...                    # makes those of a script
    python -m trainers --keys                                                             # prints all config keys

The scripts' variables (scripts/set_env.sh) are read from the environment.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

from common.errors import UserError
from common.program import end, program, sentence
from runs.commands import WrongCall, calls_of_rows, calls_of_script, read_words, settings_of_environment
from runs.keys import markdown


def run(arguments):
    """Make the runs that a script's words ask for, one after the other, each in a process of its own.

    Args:
        arguments: flags that say what the script does, "--" and its words.

    Raises:
        UserError: a run that can't be made. SystemExit: a run fails, with its status.
    """
    parser = argparse.ArgumentParser(prog="python -m trainers run")
    parser.add_argument("usage", help="names of the script's words, see runs.commands.calls_of_script")
    parser.add_argument("--script", required=True, help="its name")
    parser.add_argument("--trainer", default="", help="the method, where none of the words says it")
    parser.add_argument("--all-rows", action="store_true", help="make the runs of METHODS, rows of the results table")
    parser.add_argument("--place", default="", help="folder of the runs in that of the dataset, with {WORD}")
    parser.add_argument("--classes", default="all", help="base or new classes")
    parser.add_argument("--trained", nargs=2, metavar=("PLACE", "SCRIPT"), help="place of the models that are tested")
    at = arguments.index("--")
    args, words = parser.parse_args(arguments[:at]), arguments[at + 1:]
    settings = SimpleNamespace(**settings_of_environment())
    if args.all_rows:
        found, _ = read_words(args.script, args.usage, words)
        run_calls(calls_of_rows(settings, found["DATASET"], found["CFG"]), go_on=True)
    else:
        run_calls([("", call) for call in calls_of_script(
            settings, args.script, args.usage, words, args.trainer, place=args.place, classes=args.classes,
            trained=args.trained)])


def run_calls(calls, go_on=False):
    """Call `train.py` for each of [(label, arguments)]; ends with the status of the first that fails.

    Ctrl-C reaches the run itself; SIGTERM is passed on to it.

    Args:
        go_on: make the others where a run is refused or fails (status 1), name it in the end, and end with 1.
    """
    child, last, failed = None, "", []

    def pass_on(number, _):
        if child is None:
            sys.exit(128 + number)
        if number == signal.SIGTERM:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    for label, call in calls:
        if label != last:
            print(f"== {label}")
            last = label
        folder = call[call.index("--output-dir") + 1]
        print(f"Running {folder}", flush=True)
        child = subprocess.Popen([sys.executable, "train.py", *call])
        status = child.wait()
        if status == 1 and go_on:
            failed.append(folder)
        elif status:
            sys.exit(status if status > 0 else 128 - status)
    if failed:
        end("\n".join(f"failed: {folder}" for folder in failed), 1)


def show(arguments):
    """Print the keys, or the runs of a table: LABEL|command."""
    settings = settings_of_environment()
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", help="name of a file in configs/datasets")
    parser.add_argument("cfg", nargs="?", help="name of a file in configs/trainers")
    parser.add_argument("--shots", nargs="+", help="training images per class")
    parser.add_argument("--seeds", nargs="+", help="of the methods that train")
    parser.add_argument("--methods", nargs="+", help="rows of the results table, or all (default: the published)")
    parser.add_argument("--keys", action="store_true", help="print the config keys instead")
    parser.set_defaults(**settings)
    args = parser.parse_args(arguments)
    if args.keys:
        print(markdown())
        return
    if not args.cfg:
        raise UserError("python -m trainers needs DATASET and CFG, or --keys")
    for label, call in calls_of_rows(args, args.dataset, args.cfg):
        print(f"{label}|{shlex.join(['python', 'train.py', *call])}")


def main():
    with program("goes on from the last saved epoch"):
        try:
            if sys.argv[1:2] == ["run"]:
                run(sys.argv[2:])
            else:
                show(sys.argv[1:])
        except WrongCall as error:
            text = sentence(error)
            end(text if text.startswith("usage: ") else f"error: {text}", 2)


if __name__ == "__main__":
    main()
