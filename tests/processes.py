"""Several runs by torchrun, one after another: `torchrun -m tests.processes FILE`, which holds their arguments."""

import json
import sys

import torch

from tests.helpers import call

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    with open(sys.argv[1], encoding="utf-8") as f:
        for arguments in json.load(f):
            call(arguments)
