"""A whole sweep on Outfits16 with the tiny backbone: shots x seeds x methods, ours against the plain way, end to end.

    python -m benchmarks.sweep [--shots "1 2 4 8 16"] [--seeds "1 2 3"] [--epochs 50] [--prec fp64]

Every run is a process of `train.py` with one thread, as the scripts start it: zero-shot, CoOp shared and per task, and
SoftCPT-NATA. `plain` keeps no image features and encodes 77 positions of every prompt in every step. Each way starts
with an empty cache. Says also in how many runs both give the same result for every task, and how far they are apart
elsewhere. In fp32 the two encoders round differently, which some runs amplify; under --prec fp64 hardly any does.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from .common import REPOSITORY, main

METHODS = {  # name -> trainer, what it is told
    "zero-shot": ("ZeroshotCLIP", {}),
    "CoOp, shared": ("MTCoOpHard", {"TRAINER.MTCOOPH.TSC": False}),
    "CoOp, per task": ("MTCoOpHard", {"TRAINER.MTCOOPH.TSC": True}),
    "SoftCPT-NATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 4}),
}
PLAIN = "from benchmarks.plain import use_plain_encoder; use_plain_encoder(); import train; train.main()"


def one_run(way, method, shots, seed, args, place):
    """Seconds of one process, and its metric per task."""
    trainer, options = METHODS[method]
    output = place / way / method.replace(" ", "_") / f"{shots}-{seed}"
    options = {"DATASET.NUM_SHOTS": shots, "OPTIM.MAX_EPOCH": args.epochs, "DATALOADER.FEATURE_CACHE": way == "ours",
               **options, **{f"TRAINER.{node}.PREC": args.prec for node in ("MTCOOPH", "MTCOOP")}}
    config, flags = (f"{trainer}/tiny_ep50", []) if trainer != "ZeroshotCLIP" else ("ZeroShot/tiny", ["--eval-only"])
    command = [sys.executable, *(["-c", PLAIN] if way == "plain" else ["train.py"]), "--root", str(place / "data"),
               "--output-dir", str(output), "--seed", str(seed), "--trainer", trainer, *flags,
               "--dataset-config-file", "configs/datasets/outfits16.yaml",
               "--config-file", f"configs/trainers/{config}.yaml",
               *(str(part) for option in options.items() for part in option)]
    start = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": "1", "SOFTCPT_CACHE": str(place / "cache")})
    seconds = time.perf_counter() - start
    return seconds, [task["metric"] for task in json.loads((output / "results.json").read_text())["tasks"]]


def bench(args):
    shots, seeds = ([int(n) for n in text.split()] for text in (args.shots, args.seeds))
    rows, metrics, spent = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        one_run("ours", "zero-shot", 1, 0, args, place)  # makes the images
        runs = [(way, n, seed, method)
                for seed in seeds for n in shots for way in ("ours", "plain") for method in METHODS]
        for way, n, seed, method in (bar := tqdm(runs)):
            bar.set_description(f"{way}, seed {seed}, {n} shots, {method}")
            spent[way, n, seed, method], metrics[way, n, seed, method] = one_run(way, method, n, seed, args, place)
    for n in [*shots, "all"]:
        # one figure per seed, and their median
        seconds = {way: [sum(s for (w, m, k, _), s in spent.items() if (w, k) == (way, seed) and n in (m, "all"))
                         for seed in seeds] for way in ("ours", "plain")}
        ratios = [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"])]
        keys = [key[1:] for key in metrics if key[0] == "ours" and n in (key[1], "all")]
        pairs = [(metrics[("ours", *key)], metrics[("plain", *key)]) for key in keys]
        same = sum(ours == plain for ours, plain in pairs)
        apart = max(abs(a - b) for ours, plain in pairs for a, b in zip(ours, plain))
        average_apart = max(abs(statistics.mean(ours) - statistics.mean(plain)) for ours, plain in pairs)
        rows.append({"shots": n, "runs": len(keys), "s": sum(seconds["ours"]), "plain s": sum(seconds["plain"]),
                     "faster": statistics.median(ratios), "same results": same,
                     "largest difference of an average": average_apart, "of a task": apart})
    return rows


if __name__ == "__main__":
    main("benchmarks.sweep", None, bench, __doc__.splitlines()[0], shots="1 2 4 8 16", seeds="1 2 3", epochs=50,
         prec="fp32")
