"""`results.json`, which marks a run as finished."""

import os.path as osp
import resource

import torch

from dassl.utils import write_json

RESULTS_FILE = "results.json"


def write_results(cfg, device, tasks, **figures):
    """Write a run's results into its folder.

    Args:
        tasks: `per_task` of the evaluator, empty if nothing was tested.
        figures: what else is known: precision, counts, times in seconds.
    """
    peak = (torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    figures = {key: round(value, 2) if key.endswith("_seconds") else value for key, value in figures.items()}
    write_json({
        "trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED,
        "overall_metric": sum(task["metric"] for task in tasks) / len(tasks) if tasks else None, "tasks": tasks,
        **figures, "peak_memory_mb": round(peak, 1), "device": str(device), "config": to_plain(cfg),
    }, osp.join(cfg.OUTPUT_DIR, RESULTS_FILE))


def to_plain(cfg):
    """A yacs node as nested dicts, for JSON."""
    return {key: to_plain(value) for key, value in cfg.items()} if isinstance(cfg, dict) else cfg
