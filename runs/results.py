"""`results.json`, which marks a run as finished."""

import json
import os.path as osp
import reprlib
import sys

from pydantic import BaseModel, Field, ValidationError

from common.errors import MissingFile, UserError
from common.files import write_json
from common.keys import in_words

RESULTS_FILE = "results.json"


class TaskResult(BaseModel, strict=True):
    """The result on a task: its name, number of test images, and accuracy in percent."""

    name: str
    total: int
    metric: float = Field(allow_inf_nan=False)


class Results(BaseModel, strict=True):
    """The part of `results.json` that is printed again; `tasks` is empty if nothing was tested."""

    tasks: list[TaskResult]


def describe_suite(tasks):
    """Names, classes and templates of tasks (list of `Task`), as `results.json` holds them under `suite`."""
    return [{"name": task.name, "classes": list(task.classnames), "template": task.template} for task in tasks]


def write_results(cfg, row, identity, device, tasks, **figures):
    """Write a run's results into its folder.

    Args:
        row: the `Row` of the results tables that the run belongs to.
        identity: as `identity_of`.
        tasks: `per_task` of the evaluator, empty if nothing was tested.
        figures: other values by name: the suite (as `describe_suite`), precision, counts, times in seconds.
    """
    figures = {key: round(value, 2) if key.endswith("_seconds") else value for key, value in figures.items()}
    write_json({
        "label": row.label, "place": row.place, "identity": identity, "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED,
        "overall_metric": sum(task["metric"] for task in tasks) / len(tasks) if tasks else None, "tasks": tasks,
        **figures, "peak_memory_mb": round(peak_memory(device) / 2**20, 1), "device": str(device),
        "config": to_plain(cfg),
    }, osp.join(cfg.OUTPUT_DIR, RESULTS_FILE))


def how_it_ended(folder):
    """How an unfinished run ended, in words: the error at the end of its log, or that it can go on."""
    try:
        with open(osp.join(folder, "log.txt"), encoding="utf-8", errors="replace") as f:
            line = next(reversed(f.read().splitlines()), "")
    except OSError:
        line = ""
    return f"its log ends with {line!r}" if line.startswith("error: ") else "the command that began it goes on with it"


def read_results(folder):
    """The content of a run's `results.json`, a dict.

    Raises:
        MissingFile, UserError: it is not there, or is no JSON object.
    """
    path = osp.join(folder, RESULTS_FILE)
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
    except FileNotFoundError:
        raise MissingFile(f"unfinished: it has no {RESULTS_FILE} ({how_it_ended(folder)})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): it is damaged, move the run away and run it again"
                        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object but a {type(found).__name__}: move the run away and run it again")
    return found


def validated(model, results):
    """`results`, the content of a `results.json`, as a pydantic `model`.

    Raises:
        UserError: a key is missing, or has a value of another kind; the message begins with "results.json".
    """
    try:
        return model.model_validate(results)
    except ValidationError as found:
        error = found.errors()[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    if error["type"] == "missing":
        raise UserError(f"{RESULTS_FILE} has no {key!r}")
    wanted = "an object" if error["type"] in ("dict_type", "model_type") else in_words(error).removeprefix("must be ")
    raise UserError(f"{RESULTS_FILE} holds {reprlib.repr(error['input'])} as {key!r}, not {wanted}")


def print_results(results, folder):
    """Print what a finished run found, in the lines of its log.

    Raises:
        UserError: the results lack a key, or hold a wrong type.
    """
    try:
        tasks = validated(Results, results).tasks
    except UserError as error:
        raise UserError(f"{folder}: {error}: it is damaged, move the run away and run it again") from None
    print(f"{folder} is finished, with these settings")
    if tasks:
        print_tasks([task.model_dump() for task in tasks])


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
    """Peak memory of this process in bytes: the GPU's if `device` is one, else the machine's."""
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


def to_plain(cfg):
    """A yacs node as nested dicts, for JSON."""
    return {key: to_plain(value) for key, value in cfg.items()} if isinstance(cfg, dict) else cfg


def flatten(node, prefix=""):
    """Yield (key, value) of a yacs node, or of nested dicts, with dots between the names."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
