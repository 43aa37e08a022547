"""Several runs by torchrun, one after another: `torchrun -m tests.processes FILE [PLACE N]`.

FILE holds their arguments. A pack is written for every batch, and FILE.<place>.<run> lists what is drawn of the images
that a process reads; PLACE is the process that kills itself when it reads its Nth one.
"""

import itertools
import json
import os
import signal
import sys
import time

import torch

from runs.program import program
from tests.helpers import call
from trainers import image_features
from trainers.images import Images


def noted(file, kill_at, read=Images.__getitem__):
    """`Images.__getitem__` that does the above; `kill_at`: 0 for never, None for never but slowly."""
    count = itertools.count(1)

    def note(self, idx):
        if next(count) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if kill_at is None:
            time.sleep(0.1)
        with open(file, "a") as f:
            f.write(f"{self.draw(idx)} {self.data_source[idx].impath}\n")
        return read(self, idx)
    return note


def main(file, killed="", n=0):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    image_features.PACK_SECONDS = 0
    place = os.environ["RANK"]
    with open(file, encoding="utf-8") as f:
        for number, arguments in enumerate(json.load(f)):
            Images.__getitem__ = noted(f"{file}.{place}.{number}", int(n) if killed in ("", place) else None)
            call(arguments)


if __name__ == "__main__":
    with program():
        main(*sys.argv[1:])
