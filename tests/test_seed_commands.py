"""Every command of the published description, word for word, on miniature suites with a tiny backbone.

`tests/data/seed_commands.txt` holds the lines of that description which begin with "sh " or "python ", in their order:

    grep -E '^(sh|python) ' DESCRIPTION > tests/data/seed_commands.txt

With SOFTCPT_SEED_README=DESCRIPTION in the environment, a test compares the two.

The shell part of a command is run with an interpreter that writes down how it was called; the rest is then done in this
process, one epoch and one seed each, since a new Python for every run would take several seconds.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import parse_test_res
from datasets.class_folders import ClassFolders
from datasets.general10 import General10
from tests.commands import BASE2NEW, execute, make_recorder, run_folders, shell
from tests.conftest import DATA
from tests.helpers import REPOSITORY, results
from tests.miniature import FASHION, GENERAL, ONE_TASK, SUITES, make_class_folders, make_fashion20, make_small_general

pytestmark = pytest.mark.usefixtures("few_classes")

COMMANDS = (DATA / "seed_commands.txt").read_text().splitlines()
PARSE = "python parse_test_res.py PATH_TO_RESULTS"
N_GENERAL = 3  # classes of each member of the miniature General-10 ...
WHOLE = ("fgvc_aircraft",)  # ... but of this one, which has no split file
N_CLASSES = {"general10": 10 * [N_GENERAL], "plant6": [len(ONE_TASK[name][0][1]) for name in SUITES["plant6"][1]],
             "fashion20": [n for _, n, _ in FASHION]}

# What the arguments after DATASET and CFG mean.
HARD = ["DATASET.NUM_SHOTS", *(f"TRAINER.MTCOOPH.{key}" for key in ("N_CTX", "CSC", "TSC"))]
SOFT = ["DATASET.NUM_SHOTS", *(f"TRAINER.MTCOOP.{key}" for key in (
    "CLASS_N_CTX", "CLASS_CSC", "TASK_N_CTX", "TASK_CSC", "N_CTX", "CSC", "PG_TYPE", "PG_RATIO"))]
MEANING = {"main_mtcoop_hard.sh": HARD, "main_mtcoop.sh": SOFT, BASE2NEW.format("train"): SOFT,
           BASE2NEW.format("test"): SOFT, "main_mtcoop_cls_sample.sh": [*SOFT, "TRAINER.MTCOOP.CLS_SAMPLE_RATE"],
           "zeroshot.sh": ["DATASET.SUBSAMPLE_TASKS"],
           "zeroshot_base2new.sh": ["DATASET.SUBSAMPLE_TASKS", "DATASET.SUBSAMPLE_CLASSES"], "linearprob.sh": []}
EVALUATED = ("zeroshot.sh", "zeroshot_base2new.sh", BASE2NEW.format("test"))  # they test and train nothing


def extract(text):
    """The command lines of the description."""
    return [line for line in text.splitlines() if re.match("(sh|python) ", line)]


def test_list_is_that_of_the_description():
    assert len(COMMANDS) == len(set(COMMANDS)) == 82
    path = Path(os.environ.get("SOFTCPT_SEED_README", ""))
    if not path.is_file():
        pytest.skip("SOFTCPT_SEED_README names no file")
    assert COMMANDS == extract(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone):
    """Environment of the scripts: miniature suites, a tiny backbone, one epoch, one seed, and the recorder."""
    folder = tmp_path_factory.mktemp("seed")
    make_small_general(folder / "data", N_GENERAL)
    for config in SUITES["plant6"][1]:
        make_class_folders(folder / "data", config)
    make_fashion20(folder / "data")
    options = {"MODEL.BACKBONE.NAME": backbone, "INPUT.SIZE": "(32,32)", "OPTIM.MAX_EPOCH": 1,
               "DATALOADER.NUM_WORKERS": 0}
    return {**os.environ, **make_recorder(folder), "DATA": str(folder / "data"), "OUTPUT": str(folder / "output"),
            "SEEDS": "1", "OPTS": " ".join(str(item) for pair in options.items() for item in pair)}


def look_up(config, key):
    for name in key.split("."):
        config = config[name]
    return config


def check_table(text, written):
    """A table that `parse_test_res.py` prints of one run has the numbers of its `results.json`."""
    rows = re.findall(r"^\d+ (.+?) +([\d,]+) +([\d.]+) +0\.00$", text, re.M)
    assert [(name, int(total.replace(",", "")), float(percent)) for name, total, percent in rows] == [
        (task["name"], task["total"], pytest.approx(task["metric"], abs=0.006)) for task in written["tasks"]]
    mean = re.search(r"^\* overall_metric: ([\d.]+)% \+- 0\.00% \(1 runs\)$", text, re.M)[1]
    assert float(mean) == pytest.approx(written["overall_metric"], abs=0.006)


def check(command, folder, capsys):
    """A run folder holds what its command asked for, and a table can be made of it."""
    _, script, suite, _, *words = command.split()
    written = results(folder)
    selection = written["config"]["DATASET"]
    half = {"all": lambda n: n, "base": lambda n: (n + 1) // 2, "new": lambda n: n // 2}
    sizes = list(map(half[selection["SUBSAMPLE_CLASSES"]], N_CLASSES[suite]))
    if selection["SUBSAMPLE_TASKS"] != "all":
        sizes = [sizes[int(task.removeprefix("task"))] for task in selection["SUBSAMPLE_TASKS"].split(",")]
    assert written["dataset"].lower() == suite
    assert (written["n_tasks"], written["n_classes"]) == (len(sizes), sum(sizes))
    for key, word in zip(MEANING[script], words, strict=True):
        value = look_up(written["config"], key)
        assert (float(word) == value) if isinstance(value, float) else (str(value) == word), key
    trained = script not in EVALUATED
    if trained:
        # a class gives all it has where it has fewer than the shots: 2 to 4 images in General-10, else 5
        lowest, highest = (2, 4) if suite == "general10" else (5, 5)
        n_train, shots = written["n_train"], written["shots"]
        assert min(shots, lowest) * sum(sizes) <= n_train <= min(shots, highest) * sum(sizes)
    capsys.readouterr()
    experiment = folder.parent if folder.name == "seed1" else folder
    parse_test_res.main([str(experiment)])
    check_table(capsys.readouterr().out, written)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sh main_")])
def test_methods(command, place, monkeypatch, capsys):
    folder, = execute(command, place, monkeypatch)
    check(command, folder, capsys)
    assert results(folder)["trainer"] == ("MTCoOpHard" if "hard" in command else "MTCoOp")


@pytest.mark.parametrize("taskid", ["0", "5"])
@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sh zeroshot")])
def test_zero_shot(command, taskid, place, monkeypatch, capsys):
    folder, = execute(command, {**place, "taskid": taskid}, monkeypatch)
    check(command.replace("$taskid", f"task{taskid}"), folder, capsys)
    assert results(folder)["trainer"] == "ZeroshotCLIP"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sh linearprob.sh ")])
def test_linear_probe(command, place, monkeypatch, capsys):
    folders = execute(command, {**place, "SHOTS": "1 2"}, monkeypatch)  # else as many again, which take minutes
    _, _, dataset, _, last = command.split()
    model = Path(place["OPTS"].split()[1]).stem  # runs are filed under the backbone that OPTS sets
    assert len(N_CLASSES[dataset]) == int(last) + 1
    assert [folder.relative_to(place["OUTPUT"]).parts for folder in folders] == [
        (dataset, "LP", model, f"tasks_{last}", f"{shots}shots", "seed1") for shots in (1, 2)]
    for folder in folders:
        check(" ".join(command.split()[:-1]), folder, capsys)


@pytest.fixture(scope="module")
def real_place(place, tmp_path_factory):
    """The same with this interpreter, which is also what `python` finds, and an output folder of its own."""
    folder = tmp_path_factory.mktemp("real")
    make_small_general(folder / "data", N_GENERAL, WHOLE)
    for cls in General10.members:  # its lists are refused by a process of its own, a split file is not
        if cls.split_zhou and not issubclass(cls, ClassFolders):
            images = folder / "data" / cls.dataset_dir / cls.image_dir
            names, parts = cls.read_official(str(folder / "data" / cls.dataset_dir))
            split, seen = {part: [] for part in ("train", "val", "test")}, Counter()
            for path, label in (item for items in parts.values() for item in items):
                part = ("train", "val", "test", "train")[seen[label] % 4]
                seen[label] += 1
                split[part].append([str(Path(path).relative_to(images)), label, list(names)[label]])
            Path(cls.split_zhou_path(str(folder / "data" / cls.dataset_dir))).write_text(json.dumps(split))
    for other in Path(place["DATA"]).iterdir():
        if not (folder / "data" / other.name).exists():
            (folder / "data" / other.name).symlink_to(other)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(0o755)
    return {**place, "PYTHON": sys.executable, "DATA": str(folder / "data"), "OUTPUT": str(folder / "output"),
            "taskid": "5", "SHOTS": "1",  # of linearprob.sh; the others say theirs in words
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
@pytest.mark.parametrize("script", MEANING)  # in this order, a base-to-new test comes after its training
def test_first_command_of_each_script_with_the_real_interpreter(script, real_place, capsys, monkeypatch):
    monkeypatch.setitem(N_CLASSES, "general10", [n if config in WHOLE else N_GENERAL
                                                 for config, (_, _, n, *_) in GENERAL.items()])
    command = next(line for line in COMMANDS if line.split()[1] == script)
    before = run_folders(real_place)
    shell(command, real_place)
    folder, = run_folders(real_place) - before
    words = command.replace("$taskid", "task5").split()
    check(" ".join(words[:-1] if script == "linearprob.sh" else words), folder, capsys)


def test_tables_with_the_real_interpreter(place, real_place, monkeypatch):
    folder, = execute(next(line for line in COMMANDS if "main_mtcoop.sh" in line), place, monkeypatch)
    command = PARSE.replace("PATH_TO_RESULTS", str(folder.parent))
    done = subprocess.run(["sh", "-c", command], cwd=REPOSITORY, env=real_place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    check_table(done.stdout, results(folder))


def test_every_command_is_tested():
    assert {line.split()[1] for line in COMMANDS} == {*MEANING, PARSE.split()[1]}
    assert sum(line.startswith(("sh main_", "sh zeroshot", "sh linearprob.sh ")) for line in COMMANDS) == 81
    assert COMMANDS[-1] == PARSE
