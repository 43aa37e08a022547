"""`python -m sweeps.guard`: wait for the end of the process that started this one, then end what it has left.

A sweep that is killed can't end its cluster. Ray's own processes notice, the last of them after a minute or more.
"""

import contextlib
import os
import signal
import time

import psutil


def main():
    for number in (signal.SIGINT, signal.SIGTERM):  # they come to all processes of a terminal, or of a job
        signal.signal(number, signal.SIG_IGN)
    parent, started = psutil.Process(os.getppid()), set()
    while os.getppid() == parent.pid and parent.is_running():  # Windows keeps the number of a parent that has gone
        with contextlib.suppress(psutil.NoSuchProcess):
            started |= set(parent.children(recursive=True))
        time.sleep(0.5)
    for process in started - {psutil.Process()}:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil tells a new process with the same number
            process.kill()


if __name__ == "__main__":
    main()
