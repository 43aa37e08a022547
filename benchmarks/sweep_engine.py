"""`sweep.py` against the scripts: the same results table on Outfits16 with the tiny backbone, end to end.

    python -m benchmarks.sweep_engine [--shots "1 2 4 8 16"] [--seeds "1 2 3"] [--epochs 50] [--threads 1]
        [--methods "ZS-CLIP CoOp-CA CoOp-MT SoftCPT-NATA"]

Both ways have all cores, runs of so many threads, and begin with an empty feature cache; the images are made before.
Says also how many runs have the same results in both, and the same learned values, bit for bit.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from .common import REPOSITORY, main

TIMES = ("train_seconds", "test_seconds", "encode_seconds", "wall_seconds", "peak_memory_mb", "config")


def seconds_of(way, args, place):
    """Wall seconds of a whole table, whose runs go below `place / way`."""
    env = {**os.environ, "DATA": str(place / "data"), "OUTPUT": str(place / way), "METHODS": args.methods,
           "SHOTS": args.shots, "SEEDS": args.seeds, "OPTS": f"OPTIM.MAX_EPOCH {args.epochs}",
           "PYTHON": sys.executable, "OMP_NUM_THREADS": str(args.threads), "SOFTCPT_CACHE": str(place / f"{way}-cache")}
    command = [sys.executable, "sweep.py"] if way == "sweep" else ["sh", "scripts/all_methods.sh"]
    start = time.perf_counter()
    subprocess.run([*command, "outfits16", "tiny_ep50"], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, env=env)
    return time.perf_counter() - start


def found(folder):
    """What a run found but for times, and the values that it learned, by name."""
    results = json.loads((folder / "results.json").read_text())
    values = {(path.parent.name, name): value for path in folder.glob("*/model.pth.tar-*")
              for name, value in torch.load(path, weights_only=True)["state_dict"].items()}
    return {key: value for key, value in results.items() if key not in TIMES}, values


def bench(args):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run(["sh", "scripts/zeroshot.sh", "outfits16", "tiny", "all"], cwd=REPOSITORY, check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "DATA": str(place / "data"),
                                                       "OUTPUT": str(place / "first"), "PYTHON": sys.executable,
                                                       "SOFTCPT_CACHE": str(place / "first-cache")})
        seconds = {way: seconds_of(way, args, place) for way in ("scripts", "sweep")}
        runs = [path.parent.relative_to(place / "scripts") for path in (place / "scripts").rglob("results.json")]
        pairs = [[found(place / way / run) for way in ("scripts", "sweep")] for run in runs]
    return [{"runs": len(runs), "cores": len(os.sched_getaffinity(0)), "threads": args.threads,
             "scripts s": seconds["scripts"], "sweep s": seconds["sweep"],
             "ratio": seconds["sweep"] / seconds["scripts"],
             "same results": sum(one[0] == other[0] for one, other in pairs),
             "same values": sum(one[1].keys() == other[1].keys() and all(
                 torch.equal(value, other[1][key]) for key, value in one[1].items()) for one, other in pairs)}]


if __name__ == "__main__":
    main("benchmarks.sweep_engine", None, bench, __doc__.splitlines()[0], shots="1 2 4 8 16", seeds="1 2 3", epochs=50,
         threads=1, methods="ZS-CLIP CoOp-CA CoOp-MT SoftCPT-NATA")
