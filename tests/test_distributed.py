"""One run on several processes by torchrun (gloo on the CPU): as in one process, in one folder; one ends, all end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from runs.checkpoints import load
from tests.helpers import REPOSITORY, call, call_until, results, train_args
from tests.test_text_encoder import relative_error
from trainers import distributed
from trainers.prompts import build_prompts
from trainers.text_encoder import TextEncoder

METHODS = {
    "NATA": ("MTCoOp", {}), "CATA": ("MTCoOp", {"CSC": True}), "CoOp-CS": ("MTCoOpHard", {"CSC": True}),
    "KgCoOp": ("KgCoOp", {}), "ProGrad": ("ProGrad", {}), "CoCoOp": ("CoCoOp", {"MAX_PROMPTS": 7}),
    "PLOT": ("PLOT", {"N": 2}),
}
NODES = {"MTCoOpHard": "MTCOOPH"}
# The direction of ProGrad's second gradient, which is small here, and PLOT's iteration amplify rounding.
TOLERANCES = {"ProGrad": 1e-8, "PLOT": 1e-10}


def torchrun(*arguments, count=2):
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count),
            *arguments]


def env(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **more}


@pytest.fixture
def arguments(photo_root, words, tmp_path):
    def of(method, output, *extra, **settings):
        name, options = METHODS[method]
        node = NODES.get(name, name.upper())
        return train_args(photo_root, words, output, name, *extra, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", f"TRAINER.{node}.PREC": "fp64", "OPTIM.LR": 0.1,
            **{f"TRAINER.{node}.{key}": value for key, value in options.items()}, **settings})
    return of


def learned(folder):
    """{part/name: value} of a run's last checkpoints."""
    return {f"{path.parent.name}/{name}": value for path in sorted(folder.glob("*/model.pth.tar-3"))
            for name, value in load(path)["state_dict"].items()}


def check_same(ours, theirs, tolerance=1e-12):
    there = learned(theirs)
    assert there and learned(ours).keys() == there.keys()
    for name, value in there.items():
        if value.is_floating_point():
            assert relative_error(learned(ours)[name], value) < tolerance, f"{theirs} {name}"
    assert [task["metric"] for task in results(ours)["tasks"]] == [task["metric"] for task in results(theirs)["tasks"]]


def test_runs_are_those_of_one_process(arguments, photo_root, words, tmp_path):
    """Also one that two processes go on with, and one that is finished already."""
    zero_shot = train_args(photo_root, words, tmp_path / "many" / "zs", "ZeroshotCLIP", "--eval-only",
                           **{"DATASET.SPLIT_DIR": tmp_path / "splits"})
    call(zero_shot[:5] + [str(tmp_path / "one" / "zs")] + zero_shot[6:])
    for method in METHODS:
        call(arguments(method, tmp_path / "one" / method))
    with pytest.MonkeyPatch.context() as monkeypatch:
        call_until(2, arguments("NATA", tmp_path / "many" / "resumed", **{"TRAIN.RESUME_SECONDS": 0}), monkeypatch)
    (tmp_path / "runs.json").write_text(json.dumps([
        zero_shot, *[arguments(method, tmp_path / "many" / method, **{"MODEL.TEXT_CHUNK": 2}) for method in METHODS],
        arguments("NATA", tmp_path / "many" / "resumed"), arguments("NATA", tmp_path / "many" / "NATA")]))
    done = subprocess.run(torchrun("-m", "tests.processes", str(tmp_path / "runs.json")), cwd=REPOSITORY, env=env(),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for method in METHODS:
        check_same(tmp_path / "many" / method, tmp_path / "one" / method, TOLERANCES.get(method, 1e-12))
    check_same(tmp_path / "many" / "resumed", tmp_path / "one" / "NATA")
    assert results(tmp_path / "many" / "zs")["tasks"] == results(tmp_path / "one" / "zs")["tasks"]
    assert done.stdout.count("Finished training") == len(METHODS) + 1
    assert done.stdout.count("is finished, with these settings") == 1
    assert (tmp_path / "many" / "NATA" / "log.txt").read_text().count("Finished training") == 1


@pytest.mark.parametrize("killed", ["first", "second"])
def test_the_end_of_one_process_ends_all_and_one_process_goes_on(killed, arguments, tmp_path):
    folder = tmp_path / "run"
    long = arguments("NATA", folder, **{"TRAIN.RESUME_SECONDS": 0, "OPTIM.MAX_EPOCH": 5000, "DATALOADER.VIEWS": 1})
    process = subprocess.Popen(torchrun("train.py", *long), cwd=REPOSITORY, env=env(), text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.time() + 100
    while not (folder / "resume.pth.tar").exists():
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.2)
    children = [int(pid) for pid in subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)],
                                                   capture_output=True, text=True).stdout.split()]
    first = json.loads((folder / ".lock.owner").read_text())["pid"]
    assert len(children) == 2 and first in children
    os.kill(first if killed == "first" else next(pid for pid in children if pid != first), signal.SIGKILL)
    errors = process.communicate(timeout=100)[1]
    assert process.returncode not in (0, None)
    assert errors.count("error: another process of this run has ended") == 1
    epoch = load(folder / "resume.pth.tar")["epoch"]
    assert epoch > 0
    assert killed == "first" or "error: another process" in (folder / "log.txt").read_text()
    with pytest.MonkeyPatch.context() as monkeypatch:
        call_until(epoch, long, monkeypatch)  # it begins with the next one
    assert f"(epoch = {epoch})" in (folder / "log.txt").read_text()

# ---------------------------------------------------------------- images
BATCH = 4


def processes(file, runs, count, *kill):
    """The runs by `count` processes; of each run, of each process, what is drawn of the images that it reads."""
    file.write_text(json.dumps(runs))
    done = subprocess.run(torchrun("-m", "tests.processes", str(file), *kill, count=count), cwd=REPOSITORY, env=env(),
                          capture_output=True, text=True)
    notes = [[file.with_name(f"{file.name}.{place}.{run}") for place in range(count)] for run in range(len(runs))]
    return done, [[note.read_text().splitlines() if note.exists() else [] for note in run] for run in notes]


def features_in(folder):
    """{key: bytes} of all packs below a folder."""
    packs = [load_file(path) for path in folder.rglob("*.safetensors")]
    return {key.numpy().tobytes(): row.numpy().tobytes() for pack in packs
            for key, row in zip(pack["keys"], pack["features"])}


def check_balance(read):
    """Each image is read once, and each process reads as many batches as the others but for one, all but one full."""
    images = sum(read, [])
    assert len(set(images)) == len(images) > 0
    for test in (False, True):
        counts = [sum(image.startswith(" ") == test for image in own) for own in read]  # a test draws nothing
        assert max(counts) - min(counts) <= BATCH and sum(count % BATCH > 0 for count in counts) <= 1, counts


@pytest.fixture
def in_batches(arguments, tmp_path):
    """Arguments of a run whose features are kept in a folder, or nowhere."""
    def of(method, output, features, *extra):
        return arguments(method, tmp_path / output, *extra, **{
            "DATALOADER.TEST.BATCH_SIZE": BATCH, "DATALOADER.FEATURE_CACHE": features is not None,
            "DATALOADER.FEATURE_CACHE_DIR": tmp_path / str(features)})
    return of


def test_each_process_encodes_its_share_of_the_images(in_batches, photo_root, tmp_path):
    """Global and local features, kept in the cache and in a temporary file. All name all images that can't be read."""
    call(in_batches("NATA", "one_NATA", "one"))
    call(in_batches("PLOT", "one_PLOT", "one"))
    broken = shutil.copytree(photo_root, tmp_path / "broken", ignore=shutil.ignore_patterns("split_fewshot"))
    for path in broken.glob("*/*/*.png"):
        path.write_bytes(b"no image")
    done, read = processes(tmp_path / "runs.json", [
        in_batches("NATA", "NATA", "many"), in_batches("PLOT", "PLOT", "many"), in_batches("NATA", "no_NATA", None),
        in_batches("PLOT", "no_PLOT", None), in_batches("NATA", "again_NATA", "many"),
        in_batches("NATA", "broken_run", None, "--root", str(broken))], 3)
    for run in read[:4]:
        check_balance(run)
    assert len({tuple(sorted(sum(run, []))) for run in read[:4]}) == 1 and not any(read[4])
    assert features_in(tmp_path / "many") == features_in(tmp_path / "one") != {}
    for name in ("NATA", "PLOT", "no_NATA", "no_PLOT", "again_NATA"):
        method = name.split("_")[-1]
        check_same(tmp_path / name, tmp_path / f"one_{method}", TOLERANCES.get(method, 1e-12))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and len(set(errors)) == 1 and "SKIP_BROKEN" in errors[0], done.stderr


@pytest.mark.parametrize("killed, count", [(0, 1), (1, 3)])
def test_a_killed_process_loses_the_packs_in_progress(killed, count, in_batches, tmp_path):
    """All end with a sentence, and another number of processes goes on."""
    call(in_batches("NATA", "calm", "calm_features"))
    run = in_batches("NATA", "run", "features")
    done, read = processes(tmp_path / "killed.json", [run], 2, str(killed), "7")
    read = set(sum(read[0], []))
    kept = len(features_in(tmp_path / "features"))
    assert done.returncode != 0 and kept > 0 and len(read) - kept <= 2 * BATCH
    ends = ("stopped by SIGTERM, which torchrun also sends", "error: another process of this run has ended")
    assert sum(map(done.stderr.count, ends)) == 1 and "trainers" not in done.stderr, done.stderr
    if count == 1:
        call(run)
    else:
        done, (again,) = processes(tmp_path / "resumed.json", [run], count)
        assert done.returncode == 0, done.stderr
        check_balance(again)
        assert len(sum(again, [])) == len(features_in(tmp_path / "calm_features")) - kept
    assert features_in(tmp_path / "features") == features_in(tmp_path / "calm_features")
    check_same(tmp_path / "run", tmp_path / "calm")


# ---------------------------------------------------------------- shares of classes
@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("owners", ["suite", "task", "class"])
def test_shares_have_the_same_rows(count, owners, backbone):
    from clip import clip

    encoder = TextEncoder(clip.load(backbone, device="cpu")[0])
    names = ["red " * (1 + (i * i) % 7) + "." for i in range(1000)]
    context_of = {"suite": [0] * 1000, "task": [i // 50 for i in range(1000)], "class": range(1000)}[owners]
    prompts = build_prompts(names, 4, context_of=context_of)
    sizes = distributed.shares(encoder.costs(prompts), count)
    assert sum(sizes) == 1000 and len(sizes) == count
    first = [sum(sizes[:i]) for i in range(count)]
    rows = []
    for begin, size in zip(first, sizes):
        index = torch.arange(begin, begin + size)
        used, context_of = prompts.context_of[index].unique(return_inverse=True)
        rows.append(encoder.rows(prompts.select(index, context_of)))
    assert max(rows) / (sum(rows) / count) < 1.1


def test_no_share_is_empty():
    assert distributed.shares(torch.tensor([1, 1, 100]), 3) == (1, 1, 1)
    assert distributed.shares(torch.tensor([100, 1, 1, 1]), 3) == (1, 1, 2)
    assert distributed.shares(torch.tensor([1, 100, 1]), 2) == (2, 1)
