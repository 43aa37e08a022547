"""What a program's start costs: imports, each in a process of its own, against that of PyTorch alone.

    python -m benchmarks.startup
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("torch", "train", "parse_test_res")


def measure(module):
    """Seconds and CPU seconds of a new Python that imports `module`."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=REPOSITORY, check=True)
    seconds, after = time.perf_counter() - start, os.times()
    return seconds, (after.children_user + after.children_system) - (before.children_user + before.children_system)


def main():
    parser = argparse.ArgumentParser("python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="times are medians of so many, in turn")
    repeats = parser.parse_args().repeats
    for module in MODULES:
        measure(module)  # reads the files from the disk
    times = [[measure(module) for module in MODULES] for _ in range(repeats)]
    medians = [tuple(map(statistics.median, zip(*column))) for column in zip(*times)]
    (torch_s, torch_cpu), *_ = medians
    rows = [(f"import {module}", seconds, cpu, seconds / torch_s, cpu / torch_cpu)
            for module, (seconds, cpu) in zip(MODULES, medians)]
    print(tabulate(rows, ["", "s", "CPU s", "of torch's s", "of torch's CPU s"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
