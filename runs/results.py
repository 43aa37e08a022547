"""`results.json`, which marks a run as finished."""

import os.path as osp
import sys

from common.errors import MissingFile
from common.files import read_json, write_json

RESULTS_FILE = "results.json"


def describe_suite(tasks):
    """The names, classes and templates of `tasks` (list of `Task`), as `results.json` holds them under `suite`."""
    return [{"name": task.name, "classes": list(task.classnames), "template": task.template} for task in tasks]


def write_results(cfg, row, identity, device, tasks, **figures):
    """Write a run's results into its folder.

    Args:
        row: its `Row` in the results tables. identity: as `identity_of` returns it.
        tasks: `per_task` of the evaluator, empty if nothing was tested.
        figures: other values by name: the suite (as `describe_suite` returns it), precision, counts, times in seconds.
    """
    figures = {key: round(value, 2) if key.endswith("_seconds") else value for key, value in figures.items()}
    write_json({
        "label": row.label, "order": row.order, "identity": identity, "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED,
        "overall_metric": sum(task["metric"] for task in tasks) / len(tasks) if tasks else None, "tasks": tasks,
        "computed": getattr(cfg, "computed", []), **figures,
        "peak_memory_mb": round(peak_memory(device) / 2**20, 1), "device": str(device), "config": cfg,
    }, osp.join(cfg.OUTPUT_DIR, RESULTS_FILE))


def last_line(folder):
    """The last line of a run's log that is not blank; "" if the log has none, or is not there."""
    path = osp.join(folder, "log.txt")
    if not osp.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as f:
        return next(reversed([line.strip() for line in f if line.strip()]), "")


def read_results(folder):
    """The content of a run's `results.json`, a dict.

    Raises:
        MissingFile, UserError: the file is not there, or is not JSON.
    """
    path = osp.join(folder, RESULTS_FILE)
    if not osp.isfile(path):
        line = last_line(folder)
        how = (f"its log ends with {line!r}" if line.startswith("error: ") else
               "the command that began it goes on with it")
        raise MissingFile(f"unfinished: it has no {RESULTS_FILE} ({how})")
    return read_json(path)


def print_results(results, folder):
    """Print what a finished run found, in the lines of its log."""
    print(f"{folder} is finished, with these settings")
    if results["tasks"]:
        print_tasks(results["tasks"])


def print_tasks(tasks, per_task=True):
    """Print the result of a test: the mean over the tasks and, with `per_task`, a line for each.

    Args:
        tasks: list of {"name", "total" (number of images), "metric" (percent)}.
    """
    mean = sum(task["metric"] for task in tasks) / len(tasks)
    print(f"=> result\n* total: {sum(task['total'] for task in tasks):,}\n* overall_metric: {mean:.2f}%")
    if per_task:
        print("=> per-task result")
        for i, task in enumerate(tasks):
            print(f"* task: {i} ({task['name']})\ttotal: {task['total']:,}\tmetric: {task['metric']:.2f}%")
        print(f"* average: {mean:.2f}%")


def peak_memory(device):
    """The peak memory of this process in bytes: on the GPU if `device` is one, else in the machine."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, KiB on Linux


def flatten(node, prefix=""):
    """Yield (key, value) of a yacs node, or of nested dicts, with dots between the names."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
