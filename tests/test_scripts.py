"""The shell scripts, called as the README says, on Outfits16 with the tiny backbone and few epochs."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from tests.commands import labelled_calls, make_recorder
from tests.helpers import REPOSITORY, results

NATA = "outfits16 tiny_ep50 1 0 False 4 False 16 False lin 1".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Environment of the scripts: data and output folders of this module, one seed, three epochs."""
    folder = tmp_path_factory.mktemp("scripts")
    return {**os.environ, "DATA": str(folder / "data"), "OUTPUT": str(folder / "output"), "PYTHON": sys.executable,
            "SEEDS": "1", "OPTS": "OPTIM.MAX_EPOCH 3"}


def sh(script, arguments, env, code=0):
    done = subprocess.run(["sh", script, *arguments], cwd=REPOSITORY / "scripts", env=env, capture_output=True,
                          text=True)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def run_folders(env):
    return {os.path.dirname(os.path.join(folder, name)) for folder, _, names in os.walk(env["OUTPUT"])
            for name in names if name == "results.json"}


@pytest.mark.slow
@pytest.mark.parametrize("script, arguments, key, value", [
    ("main_mtcoop.sh", NATA, "n_params", 4 * 64 + 128 * 16 * 64),
    ("method.sh", "KgCoOp outfits16 tiny_ep50 1".split(), "n_params", 16 * 4 * 64),
    ("method.sh", "PLOT outfits16 tiny_ep50 1 TRAINER.PLOT.N 2".split(), "n_params", 16 * 2 * 16 * 64),
])
def test_script_runs_once_and_notices_other_options(script, arguments, key, value, place):
    before = run_folders(place)
    sh(script, arguments, place)
    made = run_folders(place) - before
    assert len(made) == 1
    folder, = made
    written = results(folder)
    assert written[key] == value
    if script != "main_mtcoop.sh":  # all of them do the same then
        return
    again = sh(script, arguments, place)
    assert f"{folder} is finished, with these settings\n" in again.stdout and results(folder) == written
    other = sh(script, arguments, {**place, "OPTS": f"{place['OPTS']} INPUT.INTERPOLATION nearest"}, code=1)
    assert "INPUT.INTERPOLATION is 'bicubic' there and 'nearest' here" in other.stderr and results(folder) == written


@pytest.mark.slow
def test_base_to_new(place):
    assert "run main_mtcoop_base2new_train.sh" in sh("main_mtcoop_base2new_test.sh", NATA, place, code=1).stderr
    sh("main_mtcoop_base2new_train.sh", NATA, place)
    before = run_folders(place)
    sh("main_mtcoop_base2new_test.sh", NATA, place)
    new = results((run_folders(place) - before).pop())
    base = results(next(folder for folder in before if "train_base" in folder))
    # 4 4 3 3 4 ... classes: base has the larger half of each task
    assert base["n_classes"] > new["n_classes"] > 0
    assert base["n_tasks"] == new["n_tasks"] == 16


@pytest.mark.slow
def test_transfer_to_tasks_that_were_not_seen(place, tmp_path):
    place = {**place, "OUTPUT": str(tmp_path), "OPTS": "OPTIM.MAX_EPOCH 1"}
    target = [*NATA, "outfits16", "task6,task7"]
    assert "run main_mtcoop.sh with the same" in sh("transfer.sh", target, place, code=1).stderr
    sh("main_mtcoop.sh", NATA, {**place, "OPTS": "OPTIM.MAX_EPOCH 1 DATASET.SUBSAMPLE_TASKS task0,task3"})
    (trained,) = run_folders(place)
    sh("transfer.sh", target, place)
    (tested,) = run_folders(place) - {trained}
    assert "transfer/outfits16_task6,task7" in tested
    assert [task["total"] for task in results(trained)["tasks"]] == [160, 120]
    assert [task["total"] for task in results(tested)["tasks"]] == [120, 120]


def test_wrong_call_prints_usage(place):
    done = sh("main_mtcoop_hard.sh", ["outfits16"], place, code=2)
    assert done.stderr == "usage: sh main_mtcoop_hard.sh DATASET CFG SHOTS N_CTX CSC TSC\n" and done.stdout == ""


@pytest.mark.parametrize("script", ["main_mtcoop.sh", "main_mtcoop_hard.sh", "main_mtcoop_cls_sample.sh",
                                    "main_mtcoop_base2new_train.sh", "main_mtcoop_base2new_test.sh", "zeroshot.sh",
                                    "zeroshot_base2new.sh", "linearprob.sh", "transfer.sh", "transfer_hard.sh",
                                    "all_methods.sh"])
@pytest.mark.parametrize("n", [1, 15])
def test_too_few_or_many_words_print_usage(script, n, recording):
    calls, said = recorded(script, ["outfits16"] * n, recording, code=2)
    assert not calls and said.startswith(f"usage: sh {script} DATASET CFG") and said.count("\n") == 1


def test_wrong_call_of_a_method_prints_usage(recording):
    calls, said = recorded("method.sh", ["PLOT"], recording, code=2)
    assert not calls and said == "usage: sh method.sh TRAINER DATASET CFG SHOTS [KEY VALUE ...]\n"


@pytest.mark.parametrize("script, words, message", [
    ("method.sh", ["PLOTT", "outfits16", "tiny_ep50", "1"],
     "TRAINER is 'PLOTT', but must be the name of a trainer: did you mean PLOT?"),
    ("method.sh", ["MTCoOpHard", "outfits16", "tiny_ep50", "1"], "method.sh does not take N_CTX of MTCoOpHard"),
    ("zeroshot.sh", ["outfits16", "tiny", "3", "xyzzy"], "TRAINER is 'xyzzy', but must be one of "),
    ("zeroshot.sh", ["outfits16", "tiny", "task3"], "TASK is 'task3', but must be the number of a task, or all")])
def test_words_that_name_nothing(script, words, message, recording):
    calls, said = recorded(script, words, recording, code=2)
    assert not calls and said.startswith(f"error: {message}")


# ------------------------------------------------------------------ arguments that a shell could read otherwise
HARD = "outfits16 tiny_ep50 1 16 False True".split()
NASTY = ["*", "a  b ", "", "-1",
         """a * ' " ;touch evil; $(touch evil) `touch evil` |b &c \\n\\c ~ $HOME ! ( = [a-z]* größe %s"""]
WITH_WORDS = [  # script, arguments, places of those that may be any text
    ("main_mtcoop.sh", NATA, (0, 1, 3, 9)), ("main_mtcoop_hard.sh", HARD, (0, 1, 3, 5)),
    ("main_mtcoop_cls_sample.sh", [*NATA, "0.1"], (0, 10, 11)), ("main_mtcoop_base2new_train.sh", NATA, (0, 10)),
    ("zeroshot.sh", ["outfits16", "tiny", "3", "ZeroshotCLIP"], (0, 1)),
    ("zeroshot_base2new.sh", ["outfits16", "tiny", "3", "new"], (0, 1, 3)),
    ("method.sh", ["PLOT", "outfits16", "tiny_ep50", "1", "TRAINER.PLOT.N", "2"], (1, 2, 4, 5)),
    ("linearprob.sh", ["outfits16", "RN50", "1"], (0, 1))]


def recorded(script, arguments, env, code=0):
    """Argument lists of `train.py` that a script makes of its words; and what it says on stderr."""
    calls, said = labelled_calls(["sh", script, *arguments], env, code)
    return [call for _, call in calls], said


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return {**os.environ, **make_recorder(tmp_path_factory.mktemp("recording")), "SEEDS": "1", "SHOTS": "1",
            "DATA": "my data *", "OUTPUT": "my output *"}


@pytest.mark.parametrize("script, arguments, places", WITH_WORDS)
def test_an_argument_stays_one_whatever_is_in_it(script, arguments, places, recording):
    (plain,), _ = recorded(script, arguments, recording)
    assert plain[plain.index("--root") + 1] == "my data *"
    marked = [f"MARK{i}." if i in places else word for i, word in enumerate(arguments)]
    (expected,), _ = recorded(script, marked, recording)
    for nasty in NASTY:
        call = [nasty if i in places else word for i, word in enumerate(arguments)]
        (call,), _ = recorded(script, call, recording)
        assert call == [re.sub(r"MARK\d+\.", lambda _: nasty, word) for word in expected]
    assert not [*REPOSITORY.glob("evil"), *(REPOSITORY / "scripts").glob("evil")]


@pytest.mark.parametrize("script, arguments, places", WITH_WORDS)
def test_an_argument_is_never_an_option(script, arguments, places, recording):
    bad = [(place, "--eval-only") for place in places] + [(places[0], word) for word in ("-", "--", "a\nb", "x\n")]
    for place, nasty in bad:
        calls, said = recorded(script, [*arguments[:place], nasty, *arguments[place + 1:]], recording, code=2)
        assert calls == [] and said.count("\n") == 1 and said.startswith(f"error: an argument of {script} is '")
        assert said.endswith("but must not begin with - or have several lines\n")


@pytest.mark.parametrize("script, place", [("main_mtcoop.sh", 2), ("main_mtcoop_hard.sh", 2), ("method.sh", 3)])
def test_shots_are_a_number(script, place, recording):
    arguments = next(arguments for name, arguments, _ in WITH_WORDS if name == script)
    for nasty in ("", "x", "1 2", "*", "1;ls", "1.5"):
        calls, said = recorded(script, [*arguments[:place], nasty, *arguments[place + 1:]], recording, code=2)
        assert calls == [] and said == f"error: SHOTS has '{nasty}', but must be whole numbers\n"


@pytest.mark.parametrize("variable, value, message", [
    ("SHOTS", "1 x", "SHOTS has 'x', but must be whole numbers"), ("SHOTS", "*", "SHOTS has '*'"),
    ("SHOTS", "1;ls", "SHOTS has '1;ls'"), ("SHOTS", "--keys", "SHOTS has '--keys'"),
    ("SHOTS", " ", "SHOTS is blank, but must have a number"), ("SEEDS", "1 $(ls)", "SEEDS has '$(ls)'"),
    ("OPTS", "--eval-only", "OPTS is '--eval"), ("DATA", "-x", "DATA is '-x'"), ("OUTPUT", "a\nb", "OUTPUT is 'a b'")])
def test_variables_are_checked_before_any_run(variable, value, message, recording):
    calls, said = recorded("all_methods.sh", ["outfits16", "tiny_ep50"], {**recording, variable: value}, code=2)
    assert calls == [] and said.startswith("error: ") and message in said and said.count("\n") == 1


def test_variables_are_words_and_no_patterns(recording):
    env = {**recording, "SHOTS": "1 2", "OPTS": "INPUT.SIZE * X a\tY"}
    calls, _ = recorded("linearprob.sh", ["outfits16", "RN50", "2"], env)
    assert [call[-5:] for call in calls] == 2 * [["INPUT.SIZE", "*", "X", "a", "Y"]]
    assert [call[call.index("DATASET.NUM_SHOTS") + 1] for call in calls] == ["1", "2"]
    assert {call[call.index("DATASET.SUBSAMPLE_TASKS") + 1] for call in calls} == {"task0,task1,task2"}
    for wrong in ("1000", "x", ""):
        calls, said = recorded("linearprob.sh", ["outfits16", "RN50", wrong], recording, code=2)
        assert calls == [] and said == f"error: MAX_TASK is '{wrong}', but must be the number of a task, or all\n"


@pytest.mark.slow
def test_all_methods(place, tmp_path):
    env = {**place, "OUTPUT": str(tmp_path / "output"), "SHOTS": "1", "OPTS": "OPTIM.MAX_EPOCH 1",
           "METHODS": "ZS-CLIP LP-CLIP SoftCPT-CATA"}
    done = sh("all_methods.sh", ["outfits16", "tiny_ep50"], env)
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    # learned values: 16 linear heads on 128 features, two times 4 vectors of 64, a matrix of the meta network
    assert [[text.strip() for text in row[:2]] for row in rows] == [
        ["ZS-CLIP", "0"], ["LP-CLIP", f"{129 * 56:,}"],
        ["SoftCPT-CATA", f"{2 * 4 * 64 + 256 * 16 * 64:,}"]]
    assert (tmp_path / "output" / "outfits16" / "accuracy.png").stat().st_size > 10000


def test_all_methods_refuses_an_unknown_one_before_it_runs_any(place):
    done = sh("all_methods.sh", ["outfits16", "tiny_ep50"], {**place, "METHODS": "ZS-CLIP SoftCPT"}, code=2)
    assert "METHODS has 'SoftCPT'" in done.stderr and "== ZS-CLIP" not in done.stdout


def test_error_stops_a_sweep(place):
    done = sh("main_mtcoop.sh", ["outfits16", "tiny_ep50", "1", "0", "False", "4", "False", "16", "False", "lim", "1"],
              {**place, "SEEDS": "1 2"}, code=1)
    assert "PG_TYPE is 'lim'" in done.stderr and "seed2" not in done.stdout


KILLED = """
import os, signal

replace = os.replace

def killed(source, target):  # with the script that called it, once the run is saved
    replace(source, target)
    if str(target).endswith("resume.pth.tar"):
        os.killpg(0, signal.SIGKILL)

os.replace = killed
"""


@pytest.mark.slow
def test_killed_sweep_resumes_to_the_same_values(place, tmp_path):
    def final(output):
        folder = next((tmp_path / output).rglob("prompt_gen"))
        return torch.load(folder / "model.pth.tar-3", weights_only=True)["state_dict"]["proj"]

    envs = {name: {**place, "OUTPUT": str(tmp_path / name), "OPTS": "OPTIM.MAX_EPOCH 3 TRAIN.RESUME_SECONDS 0"}
            for name in ("calm", "killed")}
    sh("main_mtcoop.sh", NATA, envs["calm"])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLED)  # which every Python imports when it starts
    killed = subprocess.run(["sh", "main_mtcoop.sh", *NATA], cwd=REPOSITORY / "scripts", capture_output=True,
                            env={**envs["killed"], "PYTHONPATH": str(tmp_path / "site")}, start_new_session=True)
    assert killed.returncode == -signal.SIGKILL and list((tmp_path / "killed").rglob("resume.pth.tar"))
    assert not list((tmp_path / "killed").rglob("results.json"))
    done = sh("main_mtcoop.sh", NATA, envs["killed"])
    assert "Resuming from" in done.stdout and torch.equal(final("killed"), final("calm"))
