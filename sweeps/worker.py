"""A process that does one run after the other."""

import os

# Variables that change how a run computes or where it keeps features. A worker gets them from the sweep's process.
PASSED_ON = ("SOFTCPT_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "GOMP_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE", "HF_", "XDG_")


def environment():
    """The part of this process's environment that workers get."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


class Worker:
    """An actor of Ray, which does one task at a time in its main thread, in a `directory` and `environment()`."""

    def __init__(self, directory, environment, threads):
        os.chdir(directory)
        for name in list(os.environ):
            if name.startswith(PASSED_ON):
                del os.environ[name]  # Ray sets OMP_NUM_THREADS
        os.environ.update(environment, LOKY_MAX_CPU_COUNT=str(threads))
        from . import warm  # PyTorch reads the environment when it is imported

        self.process, self.jobs = warm.Process(threads), {True: warm.make_features, False: warm.run_all}

    def pid(self):
        return os.getpid()

    def work(self, calls, features):
        """Make the features of runs, or the runs themselves; returns what `Process.do` returns."""
        return self.process.do(self.jobs[features], calls)
