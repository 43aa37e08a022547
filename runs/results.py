"""`results.json`, which marks a run as finished."""

import json
import os.path as osp
import sys

from common.errors import MissingFile, UserError

RESULTS_FILE = "results.json"


def describe_suite(tasks):
    """What a classifier of these tasks (list of `Task`) is made for, as `results.json` holds it under `suite`."""
    return [{"name": task.name, "classes": list(task.classnames), "template": task.template} for task in tasks]


def write_results(cfg, row, identity, device, tasks, **figures):
    """Write a run's results into its folder.

    Args:
        row: the `Row` of the results tables that the run belongs to.
        identity: as `identity_of`.
        tasks: `per_task` of the evaluator, empty if nothing was tested.
        figures: what else is known: the suite (as `describe_suite`), precision, counts, times in seconds.
    """
    from dassl.utils import write_json  # not above: it loads PyTorch, which tables do without

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
    """What to say of an unfinished run: the error that its log ends with, or that it can go on."""
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


def print_results(results, folder):
    """Say what a finished run found, in the lines of its log.

    Raises:
        UserError: the results lack a key, or hold a wrong type.
    """
    try:
        lines = [f"{folder} is finished, with these settings"]
        mean, tasks = results["overall_metric"], results["tasks"]
        if mean is not None:
            lines += ["=> result", f"* total: {sum(task['total'] for task in tasks):,}",
                      f"* overall_metric: {mean:.2f}%", "=> per-task result"]
            lines += [f"* task: {i} ({task['name']})\ttotal: {task['total']:,}\tmetric: {task['metric']:.2f}%"
                      for i, task in enumerate(tasks)]
            lines.append(f"* average: {mean:.2f}%")
    except KeyError as error:
        raise UserError(f"{osp.join(folder, RESULTS_FILE)} has no {error}: it is damaged, move the run away and run it "
                        "again") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{osp.join(folder, RESULTS_FILE)} holds a wrong type in overall_metric or tasks ({error}): it "
                        "is damaged, move the run away and run it again") from None
    print("\n".join(lines))


def peak_memory(device):
    """Bytes that the process has had at most, on the GPU where `device` is one."""
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
