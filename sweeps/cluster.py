"""The Ray cluster of a sweep."""

import os
import socket
import subprocess
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # it prints nothing between our lines
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker without a share of a GPU sees none
if "RAY_AUTH_MODE" not in os.environ and os.path.exists(os.path.expanduser("~/.ray/auth_token")):
    os.environ["RAY_AUTH_MODE"] = "token"  # as with `ray start`, whose cluster we may join

import ray
from ray.exceptions import RayError

from common.errors import UserError

from .worker import Worker, environment

OBJECT_BYTES = 80 * 2**20  # the smallest object store that Ray takes: runs exchange files only


class Cluster:
    """A context in which Ray runs. Its end ends the workers, and a cluster that it started.

    Args:
        address: "local" starts a cluster on this machine; "auto" or an address joins one.
        threads: PyTorch's threads in a run. Without a GPU a run takes as many cores.
        gpus: share of a GPU that a run takes; None: one if the cluster has GPUs, else none.

    Raises:
        UserError: there is no such cluster, or no machine has room for a run.
    """

    def __init__(self, address, threads, gpus=None):
        self.address, self.threads, self.gpus = address, threads, gpus
        self.workers = set()

    def __enter__(self):
        local = {}
        if self.address == "local":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            local = {"num_cpus": max(cores, self.threads), "include_dashboard": False,
                     "object_store_memory": OBJECT_BYTES}
            subprocess.Popen([sys.executable, "-m", "sweeps.guard"], stdout=subprocess.DEVNULL)
        try:
            if ":" in self.address:  # Ray would wait minutes for it
                host, _, port = self.address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(self.address, log_to_driver=False, logging_level="CRITICAL", **local)
        except (ConnectionError, RayError, ValueError, OSError) as error:
            raise UserError(f"--address {self.address}: Ray can't be started or joined ({str(error).splitlines()[0]}); "
                            "`ray start --head` starts a cluster") from None
        if self.gpus is None:
            self.gpus = 1 if any(node.get("GPU", 0) >= 1 for node in self.nodes()) else 0
        self.cpus = 1 if self.gpus else self.threads
        if not self.room():
            ray.shutdown()
            need = f"{self.gpus} GPU" if self.gpus else f"{self.threads} cores (OMP_NUM_THREADS sets another number)"
            raise UserError(f"a run takes {need}, which no machine of the cluster has")
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            ray.kill(worker)
        ray.shutdown()

    @staticmethod
    def nodes():
        """The resources of each machine that is alive, dicts."""
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(self):
        """The number of runs that the cluster can do at once now."""
        return sum(self.room_on(node.get("CPU", 0), node.get("GPU", 0)) for node in self.nodes())

    def room_on(self, cpus, gpus):
        """The number of runs that a machine can do at once."""
        by_cpus = int(cpus / self.cpus)
        if not self.gpus:
            return by_cpus
        # a share below 1 lies on a single GPU
        return min(by_cpus, int(gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(gpus / self.gpus))

    def start_worker(self):
        """Start a worker: (worker, a reference that is ready when the worker is)."""
        actor = ray.remote(Worker).options(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, max_task_retries=0)
        worker = actor.remote(os.getcwd(), environment(), self.threads)
        self.workers.add(worker)
        return worker, worker.pid.remote()

    def end_worker(self, worker):
        self.workers.remove(worker)
        ray.kill(worker)
