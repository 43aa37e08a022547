"""Makes the results table of scripts/all_methods.sh with its runs in parallel, on the cores, GPUs and machines of Ray.

    python sweep.py DATASET CFG [--methods ...] [--shots 1 2 4 8 16] [--seeds 1 2 3] [--opts KEY VALUE ...]
"""

import argparse
import os
import sys

import torch

import parse_test_res
from common.program import program
from runs.commands import settings_of_environment
from sweeps.jobs import REPOSITORY, add_feature_jobs, list_jobs


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="name of a file in configs/datasets")
    parser.add_argument("cfg", help="name of a file in configs/trainers")
    parser.add_argument("--methods", nargs="+", help="rows, or all (default: the published)")
    parser.add_argument("--shots", nargs="+", help="training images per class")
    parser.add_argument("--seeds", nargs="+", help="seeds of the methods that train")
    parser.add_argument("--opts", nargs="+", metavar="WORD", help="KEY VALUE ... of every run")
    parser.add_argument("--root", help="folder of the datasets")
    parser.add_argument("--output", help="folder of the runs")
    parser.add_argument("--address", default="local", help="of a Ray cluster to join: auto, or HOST:PORT")
    parser.add_argument("--gpus-per-run", type=float, help="such as 0.25 (default: 1 where there are GPUs)")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their states, and start nothing")
    parser.set_defaults(**settings_of_environment())
    return parser.parse_args()


def main():
    args = parse_args()
    os.chdir(REPOSITORY)
    with program("goes on from the last saved epoch"):
        jobs = list_jobs(args)
        if args.dry_run:
            for job in jobs:
                print(f"{job.state:<10}  {job.label:<12}  {job.folder}")
            return
        from sweeps.cluster import Cluster  # Ray is slow to import
        from sweeps.engine import Sweep

        with Cluster(args.address, torch.get_num_threads(), args.gpus_per_run) as cluster:
            failed = Sweep(jobs, add_feature_jobs(jobs), cluster).work()
    folder = os.path.join(args.output, args.dataset)
    parse_test_res.main(["--table", folder, "--format", "github", "--chart", os.path.join(folder, "accuracy.png")])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
