"""A run folder and its owner: which calls go on with a run, which are refused, and what a kill at any moment costs."""

import json
import os
import shutil
import signal
import sys
import time
from functools import partial

import pytest
import torch

from common.errors import UserError
from common.program import Stopped
from runs.folder import RunFolder
from runs.identity import NEUTRAL, differences, settings_of
from runs.keys import all_keys
from runs.methods import TRAINERS
from tests.helpers import call, call_until, make_cfg, results, run, train_args
from trainers.mtcoop_hard import HardSharedCLIP, MTCoOpHard

NODE = "TRAINER.MTCOOPH"


@pytest.fixture
def arguments(photo_root, backbone, tmp_path):
    """Function from an output folder and changed options to the arguments of a run of three epochs."""
    def make(output, *extra, trainer="MTCoOpHard", root=photo_root, weights=backbone, **options):
        return train_args(root, weights, output, trainer, *extra, **{
            f"{NODE}.N_CTX": 2, f"{NODE}.PREC": "fp32", "DATASET.SPLIT_DIR": tmp_path / "splits",
            "TRAIN.RESUME_SECONDS": 0, **options})
    return make


def values(folder):
    """{part/name: tensor} of the last checkpoints below a run folder."""
    return {f"{path.parent.name}/{name}": value for path in sorted(folder.glob("*/model.pth.tar-3"))
            for name, value in torch.load(path, weights_only=True)["state_dict"].items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def nudged(backbone, tmp_path_factory):
    """The backbone with one weight changed a little."""
    weights = torch.load(backbone, weights_only=True)
    weights["visual.proj"] = weights["visual.proj"] * 1.01
    path = tmp_path_factory.mktemp("weights") / "nudged.pt"
    torch.save(weights, path)
    return str(path)


@pytest.fixture(scope="module")
def moved(photo_root, tmp_path_factory):
    """The same images elsewhere."""
    return shutil.copytree(photo_root, tmp_path_factory.mktemp("elsewhere") / "moved")


@pytest.fixture(scope="module")
def other_images(photo_root, tmp_path_factory):
    """The same tasks with another image."""
    root = shutil.copytree(photo_root, tmp_path_factory.mktemp("other") / "images")
    shutil.copy(root / "lightness" / "dark" / "00.png", root / "lightness" / "dark" / "99.png")
    return root


OTHER = {
    "seed": (dict(seed="7"), "SEED is 1 there and 7 here"),
    "shots": ({"DATASET.NUM_SHOTS": 1}, "DATASET.NUM_SHOTS is 2 there and 1 here"),
    "LR": ({"OPTIM.LR": 0.01}, "OPTIM.LR is 0.002 there and 0.01 here"),
    "method": (dict(trainer="KgCoOp"), "TRAINER.NAME is 'MTCoOpHard' there and 'KgCoOp' here"),
    "precision": ({f"{NODE}.PREC": "bf16"}, "precision (PREC) is 'fp32' there and 'bf16' here"),
    "epochs": ({"OPTIM.MAX_EPOCH": 9}, "OPTIM.MAX_EPOCH is 3 there and 9 here"),
    "classes": ({"DATASET.SUBSAMPLE_CLASSES": "base"}, "DATASET.SUBSAMPLE_CLASSES is 'all' there and 'base' here"),
    "data": (dict(root="other_images"), "data.test (the images) is "),
    "weights": (dict(weights="nudged"), "weights (MODEL.BACKBONE.NAME) is "),
}
NO_MATTER = {
    "workers": {"DATALOADER.NUM_WORKERS": 1}, "cache": {"DATALOADER.FEATURE_CACHE": False},
    "print frequency": {"TRAIN.PRINT_FREQ": 2}, "moved root": dict(root="moved"),
    "CHECKPOINT_TEXT": {"MODEL.CHECKPOINT_TEXT": True}, "TEXT_CHUNK": {"MODEL.TEXT_CHUNK": -1},
    "TEST.BATCH_SIZE": {"DATALOADER.TEST.BATCH_SIZE": 7},
}


@pytest.fixture
def folder_in(arguments, monkeypatch, tmp_path):
    """Function from "finished" or "unfinished" to the folder of such a run."""
    def make(state):
        if state == "finished":
            call(arguments(tmp_path / "run"))
        else:
            call_until(1, arguments(tmp_path / "run"), monkeypatch)
            assert (tmp_path / "run" / "resume.pth.tar").exists()
        return tmp_path / "run"
    return make


def change(options, request):
    """Fixtures' names as their values."""
    return {key: request.getfixturevalue(value) if key in ("root", "weights") else value
            for key, value in options.items()}


def contents(folder):
    """{path: bytes} of a run but for its lock."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("case", OTHER)
def test_other_settings_are_refused(case, state, arguments, folder_in, tmp_path, request):
    options, message = OTHER[case]
    options = change(options, request)
    folder = folder_in(state)
    before = contents(folder)
    extra = ["--seed", options.pop("seed")] if "seed" in options else []
    if case == "data":  # with the split of the other images
        options["DATASET.SPLIT_DIR"] = tmp_path / "their_splits"
    with pytest.raises(UserError) as error:
        call(arguments(folder, *extra, **options))
    article = "a" if state == "finished" else "an"
    assert f"holds {article} {state} run with other settings" in str(error.value)
    assert message in str(error.value) and "\n" not in str(error.value)
    if case == "epochs":
        assert "another schedule" in str(error.value)
    assert contents(folder) == before


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("case", NO_MATTER)
def test_what_changes_no_result_goes_on(case, state, arguments, folder_in, tmp_path, request, capsys, photo_root):
    call(arguments(tmp_path / "calm"))
    folder = folder_in(state)
    before = results(folder) if state == "finished" else None
    options = change(NO_MATTER[case], request)
    capsys.readouterr()
    call(arguments(folder, **options))
    printed = capsys.readouterr().out
    assert results(folder)["tasks"] == results(tmp_path / "calm")["tasks"]
    assert same(values(folder), values(tmp_path / "calm"))
    if state == "finished":
        assert "is finished, with these settings" in printed and results(folder) == before and "epoch [" not in printed
        assert f"* average: {before['overall_metric']:.2f}%" in printed
    else:
        assert "Resuming from" in printed and "epoch [1/3]" not in printed and "epoch [2/3]" in printed


@pytest.mark.parametrize("options", [{}, {"TEST.FINAL_MODEL": "best_val"}, {"TEST.NO_TEST": True},
                                     {"TRAIN.CHECKPOINT_FREQ": 1}])
def test_every_finished_run_can_be_called_again(options, arguments, tmp_path, capsys):
    call(arguments(tmp_path / "run", **options))
    before = contents(tmp_path / "run")
    call(arguments(tmp_path / "run", **options))
    assert "is finished, with these settings" in capsys.readouterr().out and contents(tmp_path / "run") == before
    tested = arguments(tmp_path / "test", "--eval-only", "--model-dir", str(tmp_path / "run"), **options)
    call(tested)
    before = contents(tmp_path / "test")
    call(tested)
    assert "is finished, with these settings" in capsys.readouterr().out and contents(tmp_path / "test") == before


def test_a_key_that_an_identity_lacks_has_its_default():
    assert differences({"SEED": 1}, {"SEED": 1, "OPTIM.ADAM_BETA1": 0.9, "INPUT.SIZE": [224, 224]}) == []
    assert differences({}, {"OPTIM.ADAM_BETA1": 0.5}) == ["OPTIM.ADAM_BETA1 is 0.9 there and 0.5 here"]
    assert differences({"model": "a"}, {}) == ["model (--model-dir) is 'a' there and 'none' here"]


def test_neutral_keys_are_keys_with_a_reason():
    assert set(NEUTRAL) <= set(all_keys()) and all(NEUTRAL.values())


def test_a_neutral_key_counts_where_a_method_reads_it():
    """PLOT's iteration stops by the mean over a batch of test images."""
    key = "DATALOADER.TEST.BATCH_SIZE"
    settings = {name: settings_of(make_cfg(options={key: 7}), TRAINERS[name]) for name in ("PLOT", "MTCoOp")}
    assert settings["PLOT"][key] == 7 and key not in settings["MTCoOp"]


def test_the_identity_stands_in_every_file(arguments, monkeypatch, tmp_path):
    call_until(1, arguments(tmp_path / "run"), monkeypatch)
    resumed = torch.load(tmp_path / "run" / "resume.pth.tar", weights_only=True)["identity"]
    call(arguments(tmp_path / "run"))
    checkpoint = torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-3", weights_only=True)["identity"]
    assert resumed == checkpoint == results(tmp_path / "run")["identity"]
    assert not any(key.startswith("TRAINER.MTCOOP.") or key in NEUTRAL for key in resumed)
    assert {"SEED", "OPTIM.LR", f"{NODE}.N_CTX", "precision", "weights", "data.train"} <= set(resumed)


def test_a_folder_without_identity_is_refused(arguments, tmp_path):
    call(arguments(tmp_path / "run"))
    written = results(tmp_path / "run")
    del written["identity"]
    (tmp_path / "run" / "results.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="results.json does not say what it depends on.* give another --output-dir"):
        call(arguments(tmp_path / "run"))
    (tmp_path / "run" / "results.json").unlink()
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-3"
    torch.save({key: value for key, value in torch.load(path).items() if key != "identity"}, path)
    with pytest.raises(UserError, match="model.pth.tar-3 does not say what it depends on"):
        call(arguments(tmp_path / "run"))


def test_a_kill_after_the_results_leaves_nothing_behind(arguments, tmp_path):
    call(arguments(tmp_path / "run"))
    (tmp_path / "run" / "resume.pth.tar").touch()
    call(arguments(tmp_path / "run"))
    assert not (tmp_path / "run" / "resume.pth.tar").exists()


def change_state(path, change):
    """Change what a resume file holds."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize("damage, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:1000]), "resume.pth.tar\" cannot be read"),
    *((partial(change_state, change=change), "resume.pth.tar is damaged")
      for change in (lambda state: state.pop("elapsed"), lambda state: state.update(epoch=-1),
                     lambda state: state["optimizer"].update(state={}), lambda state: state["optimizer"].clear(),
                     lambda state: next(iter(state["parts"]["prompt_learner"].values())).add_(1))),
    (lambda path: torch.save(torch.zeros(3), path), "resume.pth.tar has no"),
])
def test_a_damaged_resume_file_is_one_sentence(damage, message, arguments, monkeypatch, tmp_path):
    call_until(1, arguments(tmp_path / "run"), monkeypatch)
    damage(tmp_path / "run" / "resume.pth.tar")
    with pytest.raises(UserError) as error:
        call(arguments(tmp_path / "run"))
    assert message in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------- kills
def killed_before(n, arguments):
    """Run in a process of its own that kills itself before its n-th rename; the number of its renames if it ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        replace, count = os.replace, 0

        def counted(*args):
            nonlocal count
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*args)

        os.replace = counted
        code = 1
        try:
            with open(os.devnull, "w") as sys.stdout, open(os.devnull, "w") as sys.stderr:
                call(arguments)
            os.write(writer, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(reader) as pipe:
        printed = pipe.read()
    assert printed or os.WIFSIGNALED(status), "the run failed"
    return int(printed) if printed else None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("options", [
    {}, {"TRAIN.CHECKPOINT_FREQ": 2}, {"TEST.FINAL_MODEL": "best_val", "OPTIM.LR": 5.0}],
    ids=["last_step", "frequent", "best_val"])
def test_a_kill_before_any_rename_costs_nothing(options, arguments, tmp_path):
    def arguments_of(name):
        return arguments(tmp_path / name, **options, **{"DATASET.SPLIT_DIR": tmp_path / name / "s",
                                                        "DATALOADER.FEATURE_CACHE_DIR": tmp_path / name / "f"})
    n_renames = killed_before(0, arguments_of("calm"))
    expected = results(tmp_path / "calm")
    assert n_renames >= 8
    files = {path.name for path in (tmp_path / "calm" / "prompt_learner").iterdir()}
    assert files == {"checkpoint", "model.pth.tar-3"} | (
        {"model.pth.tar-2"} if "TRAIN.CHECKPOINT_FREQ" in options else set()) | (
        {"model-best.pth.tar"} if "TEST.FINAL_MODEL" in options else set())
    for n in range(1, n_renames + 1):
        name = f"killed{n}"
        assert killed_before(n, arguments_of(name)) is None
        assert killed_before(0, arguments_of(name))
        ours = results(tmp_path / name)
        assert ours["tasks"] == expected["tasks"] and ours["train_seconds"] > 0, n
        for path in sorted((tmp_path / "calm").glob("*/model*")):
            theirs, here = (torch.load(tmp_path / run_name / path.parent.name / path.name, weights_only=True)
                            for run_name in ("calm", name))
            assert same(theirs["state_dict"], here["state_dict"]) and theirs["epoch"] == here["epoch"], (n, path)
        assert not [*(tmp_path / name).glob("*.tmp"), *(tmp_path / name / "prompt_learner").glob("*.tmp")]
        assert not (tmp_path / name / "resume.pth.tar").exists()


def test_best_val_deploys_the_best_epoch(arguments, tmp_path, monkeypatch, capsys):
    scores = iter([10.0, 30.0, 20.0])
    tested = []

    def test(self, split=None):
        if split == "val":
            return next(scores)
        tested.append(self.learned()["prompt_learner"]["ctx"])
        self.evaluator.per_task = []
        return 0.0

    monkeypatch.setattr(MTCoOpHard, "test", test)
    call(arguments(tmp_path / "run", **{"TEST.FINAL_MODEL": "best_val", "TRAIN.CHECKPOINT_FREQ": 1, "OPTIM.LR": 1.0}))
    saved = {name: torch.load(tmp_path / "run" / "prompt_learner" / name, weights_only=True)
             for name in ("model-best.pth.tar", "model.pth.tar-2", "model.pth.tar-3")}
    assert saved["model-best.pth.tar"]["epoch"] == 2 and saved["model-best.pth.tar"]["val_result"] == 30
    assert torch.equal(tested[0], saved["model.pth.tar-2"]["state_dict"]["ctx"])
    assert not torch.equal(tested[0], saved["model.pth.tar-3"]["state_dict"]["ctx"])
    for extra, epoch in (([], 2), (["--load-epoch", "last"], 3), (["--load-epoch", "1"], 1)):
        capsys.readouterr()
        call(arguments(tmp_path / f"eval{epoch}", "--eval-only", "--model-dir", str(tmp_path / "run"), *extra,
                       **{"OPTIM.LR": 1.0, "TEST.FINAL_MODEL": "best_val"}))
        assert f"(epoch = {epoch})" in capsys.readouterr().out


def test_of_equal_epochs_the_first_is_the_best(arguments, tmp_path):
    call(arguments(tmp_path / "run", **{"TEST.FINAL_MODEL": "best_val", "OPTIM.LR": 1e-30}))  # nothing changes
    best = torch.load(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert best["epoch"] == 1


def test_a_run_that_fails_in_its_test_trains_no_epoch_again(arguments, tmp_path, monkeypatch, capsys):
    command = arguments(tmp_path / "run", **{"TRAIN.RESUME_SECONDS": 1000000})

    def full(self, part=None):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the disk is full"):
        patch.setattr(MTCoOpHard, "test", full)
        call(command)
    capsys.readouterr()
    call(command)
    printed = capsys.readouterr().out
    assert "(epoch = 3)" in printed and "epoch [" not in printed and results(tmp_path / "run")["train_seconds"] > 0


def test_sigterm_ends_a_run_after_its_epoch(arguments, tmp_path, monkeypatch, capsys):
    command = arguments(tmp_path / "run", **{"TRAIN.RESUME_SECONDS": 1000000})
    losses = MTCoOpHard.add_gradients

    def told_to_stop(self, *args):
        signal.raise_signal(signal.SIGTERM)
        return losses(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped by SIGTERM after epoch 1, which is sav"):
        patch.setattr(MTCoOpHard, "add_gradients", told_to_stop)
        call(command)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "stopped by SIGTERM" in log and "Traceback" not in log and "batch [2/2]" in log
    state = torch.load(tmp_path / "run" / "resume.pth.tar", weights_only=True)
    assert state["epoch"] == 1 and state["elapsed"] > 0
    capsys.readouterr()
    call(command)
    assert "(epoch = 1)" in capsys.readouterr().out
    call(arguments(tmp_path / "calm"))
    assert same(values(tmp_path / "run"), values(tmp_path / "calm"))


# ---------------------------------------------------------------------------- the lock
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_two_processes_one_gets_the_folder(tmp_path):
    for attempt in range(20):
        place = tmp_path / str(attempt)
        start = time.time() + 0.05
        children = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                code = 2
                try:
                    time.sleep(max(0, start - time.time()))
                    with RunFolder(str(place)):
                        for _ in range(30000):  # until the other was refused, however late it starts
                            if (tmp_path / f"{attempt}-refused").exists():
                                break
                            time.sleep(0.01)
                    code = 0
                except UserError as error:
                    told = f"another process works in {place}: pid " in str(error) and " on " in str(error)
                    code = 1 if told else 3
                    (tmp_path / f"{attempt}-refused").touch()
                finally:
                    os._exit(code)
            children.append(pid)
        assert sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children) == [0, 1], attempt


def test_a_run_is_refused_while_another_process_has_its_folder(arguments, tmp_path):
    with RunFolder(str(tmp_path / "run")):
        done = run([sys.executable, "train.py", *arguments(tmp_path / "run")])
    assert done.returncode == 1 and "error: another process works in" in done.stderr
    assert not (tmp_path / "run" / "log.txt").exists()


def test_temporaries_of_killed_runs_are_removed_but_not_other_runs(tmp_path):
    for name in (".results.json.12-0123abcd.tmp", "part/.model.pth.tar-3.12-0123abcd.tmp", "notes.tmp",
                 "other/.lock", "other/.results.json.12-0123abcd.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with RunFolder(str(tmp_path)):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tmp")}
    assert left == {"notes.tmp", "other/.results.json.12-0123abcd.tmp"}


# ---------------------------------------------------------------------------- testing what was learned
def test_eval_only_needs_a_model_and_another_folder(arguments, tmp_path):
    call(arguments(tmp_path / "run"))
    before = contents(tmp_path / "run")
    refusals = [
        (arguments(tmp_path / "x", "--eval-only"), "--eval-only tests what MTCoOpHard has learned"),
        (arguments(tmp_path / "x", "--model-dir", str(tmp_path / "run")), "--model-dir .* needs --eval-only"),
        (arguments(tmp_path / "x", "--load-epoch", "3"), "--load-epoch 3 .* needs --eval-only"),
        (arguments(tmp_path / "run", "--eval-only", "--model-dir", str(tmp_path / "run")), "model .--model-dir. is ''"),
        (arguments(tmp_path / "x", "--eval-only", "--model-dir", str(tmp_path)), "holds no checkpoints"),
        (arguments(tmp_path / "x", "--eval-only", "--model-dir", str(tmp_path / "run"), trainer="ProGrad"),
         "TRAINER.NAME is 'MTCoOpHard' there and 'ProGrad' here"),
        (arguments(tmp_path / "x", "--eval-only", "--model-dir", str(tmp_path / "run"), **{"DATASET.NUM_SHOTS": 1}),
         "DATASET.NUM_SHOTS is 2 there and 1 here"),
        (arguments(tmp_path / "x", "--eval-only", "--model-dir", "y", trainer="ZeroshotCLIP"), "learns nothing"),
    ]
    for command, message in refusals:
        with pytest.raises(UserError, match=message):
            call(command)
    assert contents(tmp_path / "run") == before and not (tmp_path / "x" / "results.json").exists()


def test_settings_left_out_are_those_of_the_model(photo_root, backbone, arguments, tmp_path):
    call(arguments(tmp_path / "run", **{"OPTIM.LR": 0.1}))
    call(["--root", str(photo_root), "--backbone", backbone, "--output-dir", str(tmp_path / "test"), "--trainer",
          "MTCoOpHard", "--eval-only", "--model-dir", str(tmp_path / "run"), "DATASET.NAME", "FolderTasks",
          "DATASET.SPLIT_DIR", str(tmp_path / "splits"), "DATALOADER.NUM_WORKERS", "0"])
    ours, theirs = results(tmp_path / "test"), results(tmp_path / "run")
    assert ours["tasks"] == theirs["tasks"] and ours["shots"] == 2 and ours["seed"] == 1
    assert {**ours["identity"], "model": ""} == theirs["identity"]


def test_nan_is_never_a_result(arguments, tmp_path, monkeypatch):
    call(arguments(tmp_path / "run"))
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-3"
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["ctx"][0, 0] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(FloatingPointError, match="model.pth.tar-3: ctx holds NaN"):
        call(arguments(tmp_path / "test", "--eval-only", "--model-dir", str(tmp_path / "run")))
    add_gradients, calls = MTCoOpHard.add_gradients, []

    def poisoned(self, *args):
        metrics = add_gradients(self, *args)
        calls.append(self.epoch)
        if len(calls) == 2:  # the last batch of the first epoch: no loss of that epoch sees it
            self.trained[0].grad[0] = float("inf")
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(MTCoOpHard, "add_gradients", poisoned)
        with pytest.raises(FloatingPointError, match="prompt_learner.ctx holds NaN or infinite values after epoch 1"):
            call(arguments(tmp_path / "poisoned"))
    assert not (tmp_path / "poisoned" / "results.json").exists()
    assert not (tmp_path / "poisoned" / "resume.pth.tar").exists()
    with monkeypatch.context() as patch:
        patch.setattr(HardSharedCLIP, "score", lambda self, images, texts: images @ texts.t() * (
            1 if torch.is_grad_enabled() else float("nan")))
        with pytest.raises(FloatingPointError, match="logits of the test images are NaN or infinite"):
            call(arguments(tmp_path / "logits"))
    assert not (tmp_path / "logits" / "results.json").exists()


def test_several_processes_of_torchrun_are_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="^torchrun starts several processes, but a run is one: call python train.py"):
        call(arguments(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("taken", [False, True])
def test_a_folder_that_is_deleted_is_not_written_to(taken, arguments, tmp_path, monkeypatch):
    """Nor is one that another run has made in its place."""
    check = MTCoOpHard.check_learned

    def delete(self):
        if self.epoch == 1 and self.cfg.SEED == 1:
            monkeypatch.setattr(MTCoOpHard, "check_learned", check)
            shutil.rmtree(tmp_path / "run")
            if taken:
                other = arguments(tmp_path / "run")
                other[other.index("--seed") + 1] = "2"
                RunFolder.entered.clear()  # as in another process
                call(other)
                RunFolder.entered[str(tmp_path / "run")] = (0, 0)
        check(self)

    monkeypatch.setattr(MTCoOpHard, "check_learned", delete)
    with pytest.raises(UserError, match="was deleted or replaced while this run worked in it: the run stops and writes"):
        call(arguments(tmp_path / "run", **{"TRAIN.RESUME_SECONDS": 0}))
    if taken:
        assert results(tmp_path / "run")["seed"] == 2
    else:
        assert not list(tmp_path.glob("run/*/model*")) and not (tmp_path / "run" / "results.json").exists()


def test_a_clock_that_is_set_back_changes_no_duration(arguments, tmp_path, monkeypatch):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 1e5 * (len(list((tmp_path / "run").glob("*"))) > 4))
    call(arguments(tmp_path / "run", **{"TRAIN.RESUME_SECONDS": 0}))
    written = results(tmp_path / "run")
    assert all(0 <= written[f"{what}_seconds"] < 1000 for what in ("train", "test", "encode", "wall"))


@pytest.mark.parametrize("seed", ["-5", "4294967296"])
def test_seeds_that_no_generator_takes_are_refused(seed, arguments, tmp_path):
    command = arguments(tmp_path / "run")
    command[command.index("--seed") + 1] = seed
    with pytest.raises(UserError, match=f"SEED is {seed} .set by --seed., but must be"):
        call(command)
