"""Gives the jobs of a sweep to workers, and repeats those that failed."""

import datetime
import sys
import time
from collections import Counter

import ray
from ray.exceptions import RayError

from common.program import Stopped, until_sigterm
from runs.results import last_line, read_results

ATTEMPTS = 3  # for a run, and for the start of a worker
BUSY_SECONDS = 5, 90  # before the second and third attempt at a locked folder, perhaps of a machine that is gone
LINE_SECONDS = 60  # between two lines, if the output is no terminal


class Sweep:
    """Does `jobs` (runs), and `features` (the jobs that make features for them), on a `Cluster`."""

    def __init__(self, jobs, features, cluster):
        order = sorted(jobs, key=lambda job: (job.state == "finished", job.weight), reverse=True)
        self.waiting = [*sorted(features, key=lambda job: -job.weight), *order]
        self.total, self.cluster = len(jobs), cluster
        self.ended, self.failed = [], []  # runs
        self.failures = Counter()  # job -> number of failures
        self.not_before = {}  # job -> time of its next attempt
        self.starting, self.running, self.idle = {}, {}, []  # reference -> worker, reference -> (job, worker), workers
        self.begun, self.seconds = {}, {}  # run -> when it began last, and what it took
        self.lost_starts, self.line = 0, Line()

    def work(self):
        """Do all jobs; returns [(folder, sentence)] of the runs that failed.

        Raises:
            RuntimeError: no worker can be started. Stopped: a SIGTERM came.
        """
        with until_sigterm() as stop:  # Ray's own handler would end the process at once
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
        """Handle what workers report within a second."""
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
            if job.after not in undone and self.not_before.get(job, 0) <= time.monotonic():
                worker = self.idle.pop()
                self.waiting.remove(job)
                self.running[worker.work.remote(job.calls, not job.folder)] = job, worker
                self.begun[job] = time.monotonic()

    def take_outcome(self, reference):
        job, worker = self.running.pop(reference)
        try:
            how, sentence = ray.get(reference)
        except RayError as error:
            how, sentence = "failed", f"its worker ended ({type(error).__name__})"
        if how == "failed":  # its process may be in any state, so the next run gets a new one
            self.cluster.end_worker(worker)
        else:
            self.idle.append(worker)
        if how == "done":
            if job.folder:
                self.ended.append(job)
                self.seconds[job] = time.monotonic() - self.begun[job]
                metric = read_results(job.folder)["overall_metric"]
                accuracy = "not tested" if metric is None else f"{metric:.2f}%"
                self.line.say(f"[{len(self.ended)}/{self.total}] {job.label:<12}  {accuracy}  {job.folder}")
        elif how == "refused" or self.failures[job] + 1 == ATTEMPTS:
            if job.folder:  # failed features are not reported: the runs make them, or say why not
                why = sentence if how == "refused" else f"{ATTEMPTS} times: {last_line(job.folder) or sentence}"
                self.failed.append((job.folder, why))
                self.line.say(f"failed: {job.folder}: {why}")
        else:
            self.failures[job] += 1
            if how == "busy":
                self.not_before[job] = time.monotonic() + BUSY_SECONDS[self.failures[job] - 1]
            self.waiting.insert(0, job)

    def status(self):
        jobs = [job for job, _ in self.running.values()]
        running = sum(bool(job.folder) for job in jobs)
        text = f"{len(self.ended)} of {self.total} runs done, {running} running, {len(self.failed)} failed"
        text += f", {len(jobs) - running} making features" if len(jobs) > running else ""
        left = [job for job in [*self.waiting, *jobs] if job.folder]
        done = [job for job in self.ended if job.state != "finished"]
        if left and done:
            now = time.monotonic()
            seconds = sum(self.expected(job, done) for job in left) - sum(now - self.begun[job] for job in jobs)
            text += f", {datetime.timedelta(seconds=max(0, int(seconds / max(1, len(jobs)))))} left"
        elif not (self.running or self.idle or self.starting) and left:
            text += ", no machine has room"
        return text

    def expected(self, job, done):
        """Seconds that a run takes, by those of its row that are done, else by all."""
        alike = [other for other in done if other.label == job.label and other.weight]
        if alike:
            return job.weight * sum(self.seconds[other] for other in alike) / sum(other.weight for other in alike)
        return sum(self.seconds[other] for other in done) / len(done)


class Line:
    """A line on stderr that changes in place; if stderr is no terminal, it is printed from time to time."""

    def __init__(self):
        self.live, self.text, self.printed = sys.stderr.isatty(), "", 0

    def show(self, text):
        if self.live and text != self.text:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif not self.live and time.monotonic() - self.printed >= LINE_SECONDS:
            print(text, file=sys.stderr, flush=True)
            self.printed = time.monotonic()
        self.text = text

    def say(self, text):
        """Print a line that stays, above the live one."""
        print(f"\r\033[K{text}" if self.live else text, file=sys.stderr, flush=True)
        self.text = ""
