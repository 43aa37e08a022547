"""A process that does one run after the other. It imports PyTorch when it has its environment, so not above."""

import os

# Variables that decide how a run computes or where it keeps features. A worker has those of the sweep's own process.
PASSED_ON = ("SOFTCPT_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "GOMP_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE", "HF_", "XDG_")


def environment():
    """What a worker is given of this process's environment."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


class Worker:
    """An actor of Ray, one task at a time, in the main thread.

    Args:
        directory: that relative paths stand in. environment: as the function of this name gives it.
        threads: that PyTorch has in a run.
    """

    def __init__(self, directory, environment, threads):
        os.chdir(directory)
        for name in list(os.environ):
            if name.startswith(PASSED_ON):
                del os.environ[name]  # Ray sets OMP_NUM_THREADS
        os.environ.update(environment, LOKY_MAX_CPU_COUNT=str(threads))
        from . import warm

        self.process, self.jobs = warm.Process(threads), {True: warm.make_features, False: warm.run_all}

    def pid(self):
        return os.getpid()

    def work(self, calls, features):
        """Do a job, the features of some runs or the runs themselves: (how it ended, a sentence), as `Process.do`."""
        return self.process.do(self.jobs[features], calls)
