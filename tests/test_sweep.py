"""`sweep.py`: the same runs as the scripts, bit for bit, whatever happens to the workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import psutil
import pytest
import torch

import sweep
from common.errors import UserError
from runs.methods import ROWS, TRAINERS
from runs.results import peak_memory
from sweeps import warm
from sweeps.cluster import Cluster, ray  # before other parts of Ray: it sets variables that Ray reads when imported
from sweeps.engine import Sweep
from sweeps.jobs import add_feature_jobs, list_jobs
from tests.commands import labelled_calls, make_recorder
from tests.helpers import REPOSITORY, hear_ctrl_c, results
from trainers import multitask_clip

from ray.cluster_utils import Cluster as Machines  # isort: skip

TIMES = ("train_seconds", "test_seconds", "encode_seconds", "wall_seconds", "peak_memory_mb", "config")
METHODS = ["CoOp-MT", "KgCoOp", "SoftCPT-NATA"]


@pytest.fixture(scope="module")
def options(backbone, tmp_path_factory):
    """Words that make runs of any of the scripts short ones on `photo_root`."""
    pairs = {"MODEL.BACKBONE.NAME": backbone, "INPUT.SIZE": "(32,32)", "DATALOADER.NUM_WORKERS": 0,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 4, "OPTIM.MAX_EPOCH": 3, "TRAIN.RESUME_SECONDS": 0,
             "DATASET.SPLIT_DIR": tmp_path_factory.mktemp("splits")}
    return [str(word) for pair in pairs.items() for word in pair]


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of one machine with one core; tests may add others."""
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False,
                                                              "object_store_memory": 80 * 2**20})
    yield machines
    machines.shutdown()


@pytest.fixture
def arguments(photo_root, options, tmp_path):
    """What `sweep.py` parses, for runs below `tmp_path`."""
    return SimpleNamespace(dataset="folder_tasks", cfg="tiny_ep50", methods=METHODS, shots=["2"], seeds=["1"],
                           opts=options, root=str(photo_root), output=str(tmp_path / "output"))


def command(arguments, *extra):
    """The same as a command line."""
    return ["sweep.py", arguments.dataset, arguments.cfg, "--methods", *arguments.methods, "--shots",
            *arguments.shots, "--seeds", *arguments.seeds, "--root", arguments.root, "--output",
            arguments.output, *extra, "--opts", *arguments.opts]


def environment(arguments, **others):
    """The same as the scripts take it."""
    return {**os.environ, "DATA": arguments.root, "OUTPUT": arguments.output, "PYTHON": sys.executable,
            "METHODS": " ".join(arguments.methods), "SHOTS": " ".join(arguments.shots),
            "SEEDS": " ".join(arguments.seeds), "OPTS": " ".join(arguments.opts), **others}


def outcome(folder):
    """What a run found and learned: its results but for times, and its values."""
    found = {key: value for key, value in results(folder).items() if key not in TIMES}
    values = {str(path.relative_to(folder)): torch.load(path, weights_only=True)["state_dict"]
              for path in sorted(Path(folder).rglob("model*"))}
    return found, {(path, name): value for path, part in values.items() for name, value in part.items()}


def equal(one, other):
    (found, values), (found_too, values_too) = outcome(one), outcome(other)
    return found == found_too and values.keys() == values_too.keys() and all(
        torch.equal(value, values_too[key]) for key, value in values.items())


# ------------------------------------------------------------------ the list of runs
@pytest.mark.parametrize("dataset, cfg", [("outfits16", "tiny_ep50"), ("general10", "rn50_ep50")])
def test_the_runs_are_those_of_the_scripts(dataset, cfg, tmp_path):
    arguments = SimpleNamespace(dataset=dataset, cfg=cfg, methods=[], shots=["1", "4"], seeds=["1", "2"],
                                root="my data", output="my output", opts=["OPTIM.MAX_EPOCH", "7"])
    env = environment(arguments, **make_recorder(tmp_path))
    expected, _ = labelled_calls(["sh", "all_methods.sh", dataset, cfg], env)
    assert [(job.label, *job.calls) for job in list_jobs(arguments)] == expected and len(expected) == 1 + 11 * 4


def test_all_are_the_rows_of_every_method(arguments):
    arguments.methods = ["all"]
    assert {job.label for job in list_jobs(arguments)} == {*ROWS}


def test_a_method_that_refuses_the_backbone_makes_no_features(arguments, monkeypatch):
    def refuse(*_):
        raise UserError("not this backbone")

    monkeypatch.setattr(TRAINERS["VPT"], "__init__", refuse)
    arguments.methods = ["VPT", "KgCoOp"]
    with mock.patch("trainers.multitask.MultiTaskTrainer.make_features") as made:
        warm.make_features([job.calls[0] for job in list_jobs(arguments)][::-1])  # KgCoOp comes first in the table
    made.assert_called_once()


@pytest.mark.parametrize("change, message", [
    ({"methods": ["CoOp"]}, "METHODS has 'CoOp'"), ({"opts": ["OPTIM.LR", "(1, 2)"]}, "OPTIM.LR is (1, 2)"),
    ({"opts": ["OPTIM.LRR", "1"]}, "did you mean OPTIM.LR?"), ({"cfg": "tiny 1"}, "tiny 1.yaml does not exist"),
    ({"shots": ["1", "x"]}, "SHOTS has 'x'"), ({"seeds": ["1 2"]}, "SEEDS has '1 2'"),
    ({"opts": ["--eval-only"]}, "OPTS is '--eval-only'"),
    ({"cfg": "nix"}, "configs/trainers/MTCoOpHard/nix.yaml does not exist")])
def test_wrong_calls_are_refused_before_anything_starts(change, message, arguments):
    vars(arguments).update(change)
    with pytest.raises(Exception, match=".*") as error:
        list_jobs(arguments)
    assert type(error.value).__name__ in ("UserError", "MissingFile", "WrongCall") and message in str(error.value)


def test_dry_run(arguments, monkeypatch, capsys):
    arguments.methods = ["LP-CLIP", "CoOp-MT"]
    arguments.shots = ["1", "2"]
    folders = [Path(job.folder.replace("*", "0")) for job in list_jobs(arguments)]
    for folder, name in zip(folders, ("results.json", "log.txt", "results.json", "resume.pth.tar")):
        folder.mkdir(parents=True)
        (folder / name).write_text("")
    monkeypatch.setattr(sys, "argv", command(arguments, "--dry-run"))
    sweep.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["finished", "LP-CLIP"], ["new", "LP-CLIP"], ["finished", "CoOp-MT"],
                                            ["unfinished", "CoOp-MT"]]
    assert [Path(line[2].replace("*", "0")) for line in lines] == folders


def test_features_are_made_once_for_all_runs_that_need_them(arguments):
    arguments.shots, arguments.methods = ["1", "2"], ["ZS-CLIP", "LP-CLIP", "CoOp-MT", "KgCoOp"]
    jobs = list_jobs(arguments)
    made = add_feature_jobs(jobs)
    assert [len(job.calls) for job in made] == [2, 2]
    assert [job.after in made for job in jobs] == [False] * 3 + [True] * 4  # ZS-CLIP and the probe encode no training
    # images with augmentation
    jobs[3].state = "finished"
    assert [len(job.calls) for job in add_feature_jobs(jobs)] == [2]


@pytest.mark.parametrize("share, cpus, gpus, room", [
    (0.6, 8, 1, 1), (0.6, 8, 2, 2), (0.5, 8, 2, 4), (0.5, 3, 2, 3), (1 / 3, 8, 1, 3), (1, 8, 2, 2), (2, 8, 5, 2),
    (0, 8, 2, 4)])
def test_room_of_a_machine(share, cpus, gpus, room):
    """A run's share is of one GPU; without a GPU it takes two cores here, else one."""
    cluster = Cluster("local", 2, share)
    cluster.cpus = 1 if share else 2
    assert cluster.room_on(cpus, gpus) == room


# ------------------------------------------------------------------ runs
@pytest.mark.slow
def test_three_runs_in_one_worker_are_those_of_the_scripts(arguments, machines, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", command(arguments, "--address", machines.address))
    with pytest.raises(SystemExit) as ended:
        sweep.main()
    ours = capsys.readouterr()
    assert ended.value.code == 0 and "3 of 3 runs done, 0 running, 0 failed" in ours.err
    assert all(f"[{i}/3] " in ours.err for i in (1, 2, 3))
    scripts = SimpleNamespace(**{**vars(arguments), "output": str(tmp_path / "scripts")})
    theirs = subprocess.run(["sh", "all_methods.sh", arguments.dataset, arguments.cfg], cwd=REPOSITORY / "scripts",
                            env=environment(scripts, SOFTCPT_CACHE=str(tmp_path / "cache")), capture_output=True,
                            text=True)
    assert theirs.returncode == 0, theirs.stderr
    assert ours.out.splitlines()[-5:] == theirs.stdout.splitlines()[-5:] and ours.out.count("|") > 10
    folders = [path.parent.relative_to(scripts.output) for path in Path(scripts.output).rglob("results.json")]
    assert len(folders) == 3 and all(equal(arguments.output / folder, scripts.output / folder) for folder in folders)
    # a second call runs nothing
    with pytest.raises(SystemExit):
        sweep.main()
    assert all((Path(arguments.output) / folder / "log.txt").read_text().count("** Config **") == 1
               for folder in folders)


def test_a_run_leaves_nothing_to_the_next(monkeypatch):
    monkeypatch.setattr(multitask_clip, "read_clip", multitask_clip.read_clip)
    process = warm.Process(torch.get_num_threads())

    def state():
        return (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd(),
                torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
                torch.rand(1).item(), dict(os.environ), [getattr(place, name) for place, name in warm.FLAGS])

    before = state()
    process.do(lambda _: None, [])

    def harm(_):
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(9)
        os.environ["SOFTCPT_CACHE"] = os.environ["SOFTCPT_NEW"] = "elsewhere"
        os.chdir("/")
        for place, name in warm.FLAGS:
            setattr(place, name, not getattr(place, name))
        raise MemoryError

    assert process.do(harm, []) == ("failed", "MemoryError")
    assert state() == before


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's clear_refs")
def test_a_run_counts_its_own_peak_of_memory(monkeypatch):
    monkeypatch.setattr(multitask_clip, "read_clip", multitask_clip.read_clip)
    process, peaks = warm.Process(torch.get_num_threads()), []

    def work(megabytes):
        torch.ones(megabytes * 2**20, dtype=torch.uint8)
        peaks.append(peak_memory(torch.device("cpu")) / 2**20)

    for megabytes in (500, 1):
        assert process.do(work, megabytes) == ("done", "")
    assert peaks[1] < peaks[0] - 400


def test_a_copy_of_clip_is_the_runs_own():
    read = []

    def reader(name, quick_gelu):
        read.append(name)
        return torch.nn.Linear(2, 2)

    kept = warm.kept_clip(reader)
    first = kept("one")
    values = first.weight.detach().clone()
    with torch.no_grad():
        first.weight.zero_()
    assert torch.equal(kept("one").weight, values) and read == ["one"]
    kept("one", True)
    kept("tiny")
    assert read == ["one", "one", "tiny"]


def kill(folder, times, done):
    """SIGKILL the process that has a run's folder, `times` times, each time once the run is saved."""
    for _ in range(times):
        pid = None
        while pid is None and not done.is_set():
            try:
                (Path(folder) / "resume.pth.tar").stat()
                pid = json.loads((Path(folder) / ".lock.owner").read_text())["pid"]
            except (OSError, ValueError):
                time.sleep(0.005)
        if pid:
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=300)
            (Path(folder) / ".lock.owner").unlink(missing_ok=True)


@pytest.mark.slow
def test_killed_workers_a_refused_run_and_a_lost_machine(arguments, machines, tmp_path):
    """Of six runs on two machines one is killed once, one three times, one is refused, and a machine goes away."""
    arguments.shots = ["1", "2"]
    arguments.opts = [*arguments.opts, "OPTIM.MAX_EPOCH", "60"]
    jobs = list_jobs(arguments)
    once, always, refused = jobs[0], jobs[2], jobs[4]
    calm = SimpleNamespace(**{**vars(arguments), "output": str(tmp_path / "calm"), "methods": METHODS[:1]})
    other = [word if word != "60" else "1" for word in refused.calls[0]]
    warm.run_all([list_jobs(calm)[0].calls[0], other])
    machine = machines.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    done = threading.Event()
    killers = [threading.Thread(target=kill, args=(job.folder, times, done))
               for job, times in ((once, 1), (always, 3))]
    with Cluster(machines.address, 1) as cluster:
        assert cluster.room() == 2
        work = Sweep(jobs, add_feature_jobs(jobs), cluster)
        seen = set()

        def watch():
            while not done.is_set():
                if len(work.running) == 2:
                    seen.add("both")
                if len(work.ended) == 2 and "gone" not in seen:
                    seen.add("gone")
                    machines.remove_node(machine)
                time.sleep(0.01)

        threads = [*killers, threading.Thread(target=watch)]
        for thread in threads:
            thread.start()
        try:
            failed = dict(work.work())
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert cluster.room() == 1
    assert seen == {"both", "gone"}
    assert failed.keys() == {always.folder, refused.folder}
    assert failed[always.folder].startswith("3 times: epoch [") or "Resuming" in failed[always.folder]
    assert failed[refused.folder].startswith(f"{refused.folder} holds a finished run with other settings: OPTIM.MAX")
    assert refused not in work.failures  # one attempt
    assert len(work.ended) == 4 and all((Path(job.folder) / "results.json").exists() for job in work.ended)
    assert "Resuming from" in (Path(once.folder) / "log.txt").read_text()
    assert equal(once.folder, list_jobs(calm)[0].folder)


@pytest.mark.slow
@pytest.mark.parametrize("number, status, said", [
    (signal.SIGINT, 130, "interrupted; the same command goes on from the last saved epoch"),
    (signal.SIGTERM, 143, "stopped by SIGTERM; the same command goes on with each run from its last saved epoch"),
    (signal.SIGKILL, -9, "")])
def test_a_signal_ends_a_sweep_and_all_its_processes(number, status, said, arguments):
    """On a cluster of its own; Ctrl-C as a terminal does it, to the whole process group."""
    arguments.methods, arguments.opts = METHODS[:1], [*arguments.opts, "OPTIM.MAX_EPOCH", "100000",
                                                                  "DATALOADER.VIEWS", "1"]
    folder = Path(list_jobs(arguments)[0].folder)
    process = subprocess.Popen([sys.executable, *command(arguments)], cwd=REPOSITORY, stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=hear_ctrl_c)
    deadline = time.time() + 300
    while not (folder / "resume.pth.tar").exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    others = psutil.Process(process.pid).children(recursive=True)
    assert json.loads((folder / ".lock.owner").read_text())["pid"] in [other.pid for other in others]
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    if said:
        assert err.splitlines() == ["0 of 1 runs done, 0 running, 0 failed", said]
    assert not out
    # Ray's own would stay for more than a minute; nobody may collect those that have ended
    left = psutil.wait_procs(others, timeout=20)[1]
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert list_jobs(arguments)[0].state == "unfinished"
    torch.load(folder / "resume.pth.tar", weights_only=True)


def test_no_cluster_is_said_in_one_sentence(arguments):
    from common.errors import UserError

    assert not ray.is_initialized()
    with pytest.raises(UserError, match="Ray can't be started or joined"):
        with Cluster("127.0.0.1:1", 1):
            pass
