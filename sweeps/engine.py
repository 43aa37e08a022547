"""Gives the jobs of a sweep to workers, and gives those that failed to others."""

import datetime
import os.path as osp
import sys
import time

import ray
from ray.exceptions import RayError

from common.program import Stopped, until_sigterm
from runs.results import read_results

ATTEMPTS = 3  # of a run, or a worker's start
BUSY_SECONDS = 5, 90  # before the second and third attempt at a folder whose lock a machine that is gone may hold
LINE_SECONDS = 60  # between two lines, where the output is no terminal


class Sweep:
    """Does `Job`s on a `Cluster`.

    Args:
        jobs: the runs. features: the jobs that make features for them.
    """

    def __init__(self, jobs, features, cluster):
        order = sorted(jobs, key=lambda job: (job.state == "finished", job.weight), reverse=True)
        self.waiting = [*sorted(features, key=lambda job: -job.weight), *order]
        self.total, self.cluster = len(jobs), cluster
        self.ended, self.failed = [], []  # runs
        self.failures = {}  # job -> number of failures
        self.not_before = {}  # job -> time of its next attempt
        self.starting, self.running, self.idle = {}, {}, []  # reference -> worker, reference -> (job, worker), workers
        self.lost_starts = 0
        self.line = Line()
        self.began = time.time()

    def work(self):
        """Do all of them.

        Returns:
            [(folder, sentence)] of the runs that failed.

        Raises:
            RuntimeError: no worker can be started. Stopped: a SIGTERM came.
        """
        with until_sigterm() as stop:  # Ray's own way ends the process at once
            while (self.waiting or self.running) and not stop.requested:
                self.start_workers()
                self.give_jobs()
                self.line.show(self.status())
                self.take()
        if stop.requested:
            raise Stopped("stopped by SIGTERM; the same command goes on with each run from its last saved epoch")
        self.line.say(self.status())
        return self.failed

    def take(self):
        """What workers have to say, waiting a second at most."""
        pending = [*self.starting, *self.running]
        if not pending:
            time.sleep(0.5)
            return
        for reference in ray.wait(pending, timeout=1)[0]:
            if reference in self.starting:
                self.take_worker(reference)
            else:
                self.take_outcome(reference)

    def start_workers(self):
        here = len(self.starting) + len(self.running) + len(self.idle)
        for _ in range(min(self.cluster.room(), len(self.waiting) + len(self.running)) - here):
            worker, ready = self.cluster.start_worker()
            self.starting[ready] = worker

    def take_worker(self, reference):
        worker = self.starting.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            self.cluster.end_worker(worker)
            self.lost_starts += 1
            if self.lost_starts == ATTEMPTS:
                raise RuntimeError(f"{ATTEMPTS} workers ended while they started, the last one: {error}") from None
        else:
            self.lost_starts = 0
            self.idle.append(worker)

    def give_jobs(self):
        undone = {job for job, _ in self.running.values()} | set(self.waiting)
        for job in list(self.waiting):
            if not self.idle:
                return
            if job.after not in undone and self.not_before.get(job, 0) <= time.time():
                worker = self.idle.pop()
                self.waiting.remove(job)
                self.running[worker.work.remote(job.calls, not job.folder)] = job, worker

    def take_outcome(self, reference):
        job, worker = self.running.pop(reference)
        try:
            how, sentence = ray.get(reference)
        except RayError as error:
            how, sentence = "failed", f"its worker ended ({type(error).__name__})"
        if how == "failed":  # whatever happened there, the next run is not to suffer from it
            self.cluster.end_worker(worker)
        else:
            self.idle.append(worker)
        if how == "done":
            if job.folder:
                self.ended.append(job)
                self.line.say(f"[{len(self.ended)}/{self.total}] {outcome(job)}")
        elif how == "refused" or self.failures.get(job, 0) + 1 == ATTEMPTS:
            self.fail(job, sentence if how == "refused" else f"{ATTEMPTS} times: {last_line(job.folder) or sentence}")
        else:
            self.failures[job] = self.failures.get(job, 0) + 1
            if how == "busy":
                self.not_before[job] = time.time() + BUSY_SECONDS[self.failures[job] - 1]
            self.waiting.insert(0, job)

    def fail(self, job, sentence):
        """A run has failed for good; of features nothing is said, as the runs that need them make them or say why."""
        if job.folder:
            self.failed.append((job.folder, sentence))
            self.line.say(f"failed: {job.folder}: {sentence}")

    def status(self):
        done = len(self.ended)
        running = sum(1 for job, _ in self.running.values() if job.folder)
        features = len(self.running) - running
        text = f"{done} of {self.total} runs done, {running} running, {len(self.failed)} failed"
        text += f", {features} making features" if features else ""
        spent = sum(job.weight for job in self.ended if job.state != "finished")
        left = sum(job.weight for job in [*self.waiting, *(job for job, _ in self.running.values())] if job.folder)
        if spent and left:
            seconds = int((time.time() - self.began) * left / spent)
            text += f", {datetime.timedelta(seconds=seconds)} left"
        elif not (self.running or self.idle or self.starting) and left:
            text += ", no machine has room"
        return text


def outcome(job):
    """A finished run's row, accuracy and folder."""
    metric = read_results(job.folder)["overall_metric"]
    accuracy = "not tested" if metric is None else f"{metric:.2f}%"
    return f"{job.label:<12}  {accuracy}  {job.folder}"


def last_line(folder):
    """The last line of a run's log, "" if it has none."""
    try:
        with open(osp.join(folder, "log.txt"), encoding="utf-8", errors="replace") as f:
            return ([line.strip() for line in f if line.strip()] or [""])[-1]
    except OSError:
        return ""


class Line:
    """One line on stderr that changes in place; where that is no terminal, a line from time to time."""

    def __init__(self):
        self.live = sys.stderr.isatty()
        self.shown, self.at = "", 0

    def show(self, text):
        if self.live and text != self.shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif not self.live and time.time() - self.at >= LINE_SECONDS:
            print(text, file=sys.stderr, flush=True)
            self.at = time.time()
        self.shown = text

    def say(self, text):
        """A line that stays, above the live one."""
        print(f"\r\033[K{text}" if self.live else text, file=sys.stderr, flush=True)
        self.shown = ""
