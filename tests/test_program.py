"""How programs end: one sentence for a user, a traceback for who extends the code, and both in the log."""

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from common.files import atomic_path
from common.program import Stopped, interrupted, noting_interrupts, program, sentence, until_sigterm
from runs.folder import RunFolder
from tests.helpers import REPOSITORY, run, train_args
from trainers.progress import Progress


def ended(error, capsys):
    """(exit status, stderr) of a program in which `error` is raised."""
    with pytest.raises(SystemExit) as stop, program():
        raise error
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("error, status, text", [
    (UserError("OPTIM.LR is 3"), 1, "error: OPTIM.LR is 3\n"),
    (UserError("two\nlines"), 1, "error: two lines\n"),
    (OSError(errno.ENOSPC, "No space left on device", "a/b"), 1, "error: the disk is full, a/b could not be written"),
    (PermissionError(errno.EACCES, "Permission denied", "a/b"), 1, "Permission denied: 'a/b'"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), 1, "error: the GPU has too little memory: set MODEL."),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (Stopped("stopped by SIGTERM"), 143, "stopped by SIGTERM"),
])
def test_a_user_reads_one_sentence(error, status, text, capsys):
    code, said = ended(error, capsys)
    assert code == status and text in said and said.count("\n") == 1
    assert said.endswith(" (SOFTCPT_TRACEBACK=1 shows where)\n") == isinstance(error, (OSError, torch.OutOfMemoryError))


@pytest.mark.parametrize("error", [UserError("OPTIM.LR is 3"), PermissionError(errno.EACCES, "Permission denied", "a")])
def test_a_traceback_is_shown_where_it_is_asked_for(error, monkeypatch):
    monkeypatch.setenv("SOFTCPT_TRACEBACK", "1")
    with pytest.raises(type(error)), program():
        raise error


@pytest.mark.parametrize("error", [ValueError("shapes cannot be multiplied"), RuntimeError("mat1"), KeyError("x")])
def test_errors_of_the_program_keep_their_traceback(error, capsys):
    with pytest.raises(type(error)), program():
        raise error


def test_sigterm_is_noted_inside_and_as_before_afterwards():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("ours"))
    try:
        with until_sigterm() as stop:
            assert not stop.requested
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested and not received
        signal.raise_signal(signal.SIGTERM)
        assert received == ["ours"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_in_a_worker_is_its_last_line():
    assert sentence(UserError("Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
                              "last):\n  File ...\ncommon.errors.UserError: the image is damaged\n")) == (
        "the image is damaged")


@pytest.mark.parametrize("error, logged", [
    (UserError("OPTIM.LR is 3"), ["error: OPTIM.LR is 3"]),
    (RuntimeError("mat1"), ["Traceback (most recent call last):", "RuntimeError: mat1", "error: mat1"])])
def test_the_log_says_how_a_run_failed(error, logged, tmp_path):
    with pytest.raises(type(error)), RunFolder(str(tmp_path / "run")) as folder, folder.log():
        print("before")
        raise error
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert lines[0] == "before" and [line for line in lines if line in logged] == logged
    assert ("Traceback (most recent call last):" in lines) == (len(logged) > 1)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_is_said_with_the_file(error, tmp_path, monkeypatch):
    if isinstance(error, RuntimeError):
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(UserError, match="the disk is full, .*/model.pth could not be written: free space"):
        with atomic_path(str(tmp_path / "model.pth")) as temporary:
            open(temporary, "w").close()
            raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_cannot_show_a_name_costs_nothing(encoding, photo_root, backbone, tmp_path):
    (tmp_path / "data").mkdir()
    for task in photo_root.iterdir():
        if task.is_dir():
            (tmp_path / "data" / task.name).symlink_to(task)
    (tmp_path / "data" / "tasks.yaml").write_text("tasks: [{folder: lightness, name: 猫 recognition}]\n", "utf-8")
    command = [sys.executable, "train.py", *train_args(tmp_path / "data", backbone, tmp_path / "run", "MTCoOpHard",
                                                       **{"DATASET.SPLIT_DIR": tmp_path / "splits"})]
    env = {"PYTHONIOENCODING": encoding}
    done = run(command, env=env)
    assert done.returncode == 0 and "(? recognition)" in done.stdout
    assert "(猫 recognition)" in (tmp_path / "run" / "log.txt").read_text("utf-8")
    table = run([sys.executable, "parse_test_res.py", str(tmp_path / "run")], env=env)
    assert table.returncode == 0 and "? recognition" in table.stdout


def test_a_closed_pipe_is_quiet(tmp_path):
    for seed in range(300):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "log.txt").write_text("=> result\n* total: 10\n* overall_metric: 50.00%\n")
    done = subprocess.run(f"{sys.executable} parse_test_res.py {tmp_path} | head -1", shell=True, cwd=REPOSITORY,
                          text=True, capture_output=True)
    assert done.stdout and not done.stderr


def test_train_imports_without_resource():
    code = "import sys; sys.modules['resource'] = None; import train, benchmarks.common"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr


def test_peak_memory_is_in_bytes_everywhere(monkeypatch):
    from runs.results import peak_memory
    ours = peak_memory(torch.device("cpu"))
    assert 100 * 2**20 < ours < 64 * 2**30
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory(torch.device("cpu")) <= ours / 1000


@pytest.mark.parametrize("module", ["train", "learned.predicting"])
def test_threads_are_told_to_sleep_before_pytorch_is_loaded(module):
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
import {module}
"""
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["3000"], done.stderr


def test_ctrl_c_while_tensorboard_is_written_ends_the_run_at_once(tmp_path, monkeypatch):
    """Its thread must hear of an item that is in its queue; else closing the writer waits for it for two minutes."""
    cfg = SimpleNamespace(TRAIN=SimpleNamespace(PRINT_FREQ=1), OUTPUT_DIR=str(tmp_path))
    progress = Progress(cfg, [0], 1)
    queue = progress.writer.file_writer.event_writer._async_writer._byte_queue
    notify, notified = queue.not_empty.notify, []

    def interrupt(*args):
        signal.raise_signal(signal.SIGINT)
        notified.append(notify(*args))

    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)  # a background job ignores Ctrl-C
    with pytest.raises(KeyboardInterrupt), noting_interrupts():
        queue.not_empty.notify = interrupt
        try:
            progress.add(0, 0, {"loss": torch.tensor(1.0)}, 0.1)
        finally:
            queue.not_empty.notify = notify
            with queue.mutex:  # so that this test ends at once if it fails
                notify()
    interrupted.clear()
    assert notified
    progress.writer.close()


def test_closing_tensorboard_hides_no_error(tmp_path, monkeypatch):
    """It fails, too, where the run's folder was deleted; its own failure is said where there is no other."""
    cfg = SimpleNamespace(TRAIN=SimpleNamespace(PRINT_FREQ=1), OUTPUT_DIR=str(tmp_path))

    def fail():
        raise FileNotFoundError("events.out")

    for error in (UserError("the folder was deleted"), None):
        progress = Progress(cfg, [0], 1)
        progress.writer.close()
        monkeypatch.setattr(progress.writer, "close", fail)
        with pytest.raises(type(error) if error else FileNotFoundError), progress:
            if error:
                raise error
