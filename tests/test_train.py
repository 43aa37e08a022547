"""Whole runs through `train.py`: what they write, resuming, evaluation, and clear errors."""

import os
import re
import shutil
import sys

import pytest
import torch

import train
from common.errors import UserError
from learned.loading import load_run
from tests.helpers import call, call_until, make_cfg, results, run, train_args
from trainers.mtcoop import sample_classes


def final_values(folder):
    """{part/name: tensor} of the last checkpoint of every part below a run folder."""
    return {f"{path.parent.name}/{name}": value for path in sorted(folder.glob("*/model.pth.tar-*"))
            for name, value in torch.load(path, weights_only=True)["state_dict"].items()}


CSC = {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_N_CTX": 2}
VARIANTS = {
    "NATA": ({}, 3), "NATS": ({"TRAINER.MTCOOP.TASK_CSC": True}, 3),
    "CATA": (CSC, 4), "CSTA": ({**CSC, "TRAINER.MTCOOP.CLASS_CSC": True}, 4),
    "CATS": ({**CSC, "TRAINER.MTCOOP.TASK_CSC": True, "TRAINER.MTCOOP.PG_TYPE": "linmean"}, 4),
    "CSTS": ({**CSC, "TRAINER.MTCOOP.CLASS_CSC": True, "TRAINER.MTCOOP.TASK_CSC": True,
              "TRAINER.MTCOOP.PG_TYPE": "lincls"}, 4),
    "sampled": ({**CSC, "TRAINER.MTCOOP.CLS_SAMPLE_RATE": 0.5}, 4),
    "no task context": ({"TRAINER.MTCOOP.TASK_N_CTX": 0}, 3),
    "no learned contexts": ({"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_N_CTX": 0,
                             "TRAINER.MTCOOP.TASK_N_CTX": 0}, 4),
    "frozen": ({**CSC, "TRAINER.MTCOOP.FREEZE_CLS_PROMPT": 1}, 4),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_softcpt_learns_saves_and_is_tested_again(variant, photo_root, backbone, tmp_path):
    options, n_parts = VARIANTS[variant]
    options = {"TRAINER.MTCOOP.PREC": "fp32", "TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4,
               "DATASET.SPLIT_DIR": tmp_path / "splits", **options}
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", **options))
    values = final_values(tmp_path / "run")
    assert len(list((tmp_path / "run").glob("*/model.pth.tar-3"))) == n_parts
    assert all(torch.isfinite(value).all() for value in values.values())
    for path in (tmp_path / "run").glob("*/model.pth.tar-3"):  # only what was learned, under Dassl's keys
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["optimizer"] is None is checkpoint["scheduler"] and checkpoint["epoch"] == 3
    written = results(tmp_path / "run")
    assert written["n_params"] == sum(p.numel() for p in trainer.trained)
    assert [task["total"] for task in written["tasks"]] == [12, 8] and written["n_train"] == 10
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Finished training" in log and "* total: 20\n" in log
    assert f"* overall_metric: {written['overall_metric']:.2f}%\n" in log
    assert f"* task: 1 (lightness)\ttotal: 8\tmetric: {written['tasks'][1]['metric']:.2f}%\n" in log
    assert re.search(r"epoch \[3/3\] batch \[\d+/2\].*loss .*acc .*lr .*eta ", log)
    assert not (tmp_path / "run" / "resume.pth.tar").exists()
    call(train_args(photo_root, backbone, tmp_path / "test", "MTCoOp", "--eval-only", "--model-dir",
                    str(tmp_path / "run"), **options))
    assert results(tmp_path / "test")["tasks"] == written["tasks"]


@pytest.mark.parametrize("options, n_values", [
    ({}, 4 * 64), ({"TRAINER.MTCOOPH.TSC": True}, 2 * 4 * 64), ({"TRAINER.MTCOOPH.CSC": True}, 5 * 4 * 64),
    ({"TRAINER.MTCOOPH.TSC": True, "TRAINER.MTCOOPH.CTX_INIT": "a_photo_of"}, 2 * 3 * 64),
])
def test_coop(options, n_values, photo_root, backbone, tmp_path):
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard",
                    **{"TRAINER.MTCOOPH.N_CTX": 4, "DATASET.SPLIT_DIR": tmp_path / "splits", **options}))
    assert results(tmp_path / "run")["n_params"] == n_values
    assert "computing in fp32 on the CPU" in (tmp_path / "run" / "log.txt").read_text()  # the default is fp16


def test_every_line_of_the_log_has_its_losses(photo_root, backbone, tmp_path):
    for freq, n_lines in ((1, 2), (2, 1), (5, 1)):
        call(train_args(photo_root, backbone, tmp_path / str(freq), "MTCoOpHard", **{
            "TRAIN.PRINT_FREQ": freq, "OPTIM.MAX_EPOCH": 1, "DATASET.SPLIT_DIR": tmp_path / "splits"}))
        lines = re.findall(r"^epoch \[1/1\].*$", (tmp_path / str(freq) / "log.txt").read_text(), re.M)
        assert len(lines) == n_lines and all(" loss " in line and " acc " in line for line in lines)


def test_optimizer_steps_once_or_once_per_part(photo_root, backbone, tmp_path, monkeypatch):
    steps = {}

    def count(i):
        steps[once][i] += 1

    for once in (True, False):
        trainer = call(train_args(photo_root, backbone, tmp_path / str(once), "MTCoOp", "--no-train",
                                  **{"OPTIM.STEP_PER_PART": not once, "DATASET.SPLIT_DIR": tmp_path / "splits"}))
        steps[once] = [0, 0]
        kinds = type(trainer.optimizer), type(trainer.scheduler)
        with monkeypatch.context() as patch:
            for i, kind in enumerate(kinds):
                patch.setattr(kind, "step", lambda self, *args, i=i, step=kind.step: count(i) or step(self, *args))
            trainer.max_epoch = 1
            trainer.train()
    # Two batches; prompt_learner, task_prompt_learner, prompt_gen. PyTorch steps a scheduler once when it is made.
    assert steps == {True: [2, 1 + 1], False: [6, 1 + 3]}


def test_zero_shot_on_a_suite_and_on_a_task(photo_root, backbone, tmp_path):
    def features(name, trainer="ZeroshotCLIP", **options):
        trainer = call(train_args(photo_root, backbone, tmp_path / name, trainer, "--eval-only",
                                  **{"DATASET.SPLIT_DIR": tmp_path / "splits", **options}))
        assert [task["total"] for task in results(tmp_path / name)["tasks"]] == (
            [8] if options else [12, 8])
        return torch.nn.functional.normalize(trainer.model.class_features(), dim=1)
    suite = features("suite")
    torch.testing.assert_close(features("task1", **{"DATASET.SUBSAMPLE_TASKS": "task1"}), suite[3:])
    ensemble = features("ensemble", "ZeroshotCLIP2")
    assert ensemble.shape == suite.shape and not torch.allclose(ensemble, suite, atol=1e-3)


def test_a_stopped_run_resumes_to_the_same_values_and_keeps_its_log(photo_root, backbone, tmp_path, monkeypatch):
    options = {"OPTIM.MAX_EPOCH": 5, "TRAIN.RESUME_SECONDS": 0, "TRAINER.MTCOOP.CSC": True,
               "TRAINER.MTCOOP.CLASS_N_CTX": 2, "TRAINER.MTCOOP.CLS_SAMPLE_RATE": 0.5,
               "DATASET.SPLIT_DIR": tmp_path / "splits"}
    calm, stopped = (train_args(photo_root, backbone, tmp_path / name, "MTCoOp", **options)
                     for name in ("calm", "stopped"))
    call(calm)
    call_until(2, stopped, monkeypatch)
    call(stopped)
    # one log of both pieces
    log = (tmp_path / "stopped" / "log.txt").read_text()
    assert log.index("epoch [2/5]") < log.index("Resuming from") < log.index("epoch [3/5]") and "epoch [5/5]" in log
    assert log.count("batch [1/2]") == 5
    ours, expected = final_values(tmp_path / "stopped"), final_values(tmp_path / "calm")
    assert ours.keys() == expected.keys() and len(ours) == 3
    assert all(torch.equal(ours[name], expected[name]) for name in ours)
    assert results(tmp_path / "stopped")["tasks"] == results(tmp_path / "calm")["tasks"]


def test_sampled_classes_keep_positives_and_their_tasks():
    task_of_class = torch.tensor([0] * 10 + [1] * 5 + [2] * 7)
    labels = torch.tensor([3, 3, 8, 20])
    counts = set()
    for _ in range(20):
        classes = sample_classes(labels, task_of_class, 0.3)
        assert {3, 8, 20} <= set(classes.tolist()) and classes.tolist() == sorted(set(classes.tolist()))
        counts.add(tuple(task_of_class[classes].bincount(minlength=3).tolist()))
    assert counts == {(2 + 3, 0, 1 + 2)}  # ceil(0.3 * 8) = 3 and ceil(0.3 * 6) = 2 others; no sample of task 1


def test_metrics_by_hand():
    from datasets.base import Task
    from trainers.evaluation import ClassificationMT
    tasks = [Task("a", ("x", "y", "z"), metric="mean_acc"), Task("b", ("u", "v"))]
    evaluator = ClassificationMT(make_cfg(), tasks)
    labels = torch.tensor([0, 0, 0, 1, 3, 3, 4])
    predicted = torch.tensor([0, 0, 1, 1, 3, 4, 4])
    evaluator.process(torch.nn.functional.one_hot(predicted, 5).float(), labels)
    assert evaluator.evaluate()["overall_metric"] == pytest.approx((100 * (2 / 3 + 1) / 2 + 100 * 2 / 3) / 2)
    a, b = evaluator.per_task
    assert (a["overall_acc"], a["mean_acc"]) == (75.0, pytest.approx(100 * (2 / 3 + 1) / 2))  # "z" does not occur
    assert (b["overall_acc"], b["mean_acc"]) == (pytest.approx(200 / 3), 75.0)


def test_the_console_shows_what_differs_and_the_log_all(photo_root, backbone, tmp_path, capsys):
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", "--no-train",
                    **{"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.LR": 0.25, "TRAIN.PRINT_FREQ": 10}))
    shown, log = capsys.readouterr().out, (tmp_path / "run" / "log.txt").read_text()
    assert shown.startswith(f"Run {tmp_path / 'run'}: all settings are in its log.txt, those ")
    assert "\n  OPTIM.LR: 0.25\n" in shown and "PRINT_FREQ" not in shown and shown in log  # 10 is its default
    for text in ("** Config **\n", "** System info **\n", "PRINT_FREQ: 10\n", "PyTorch: "):
        assert text in log and text not in shown


ERRORS = {
    "missing root": (["--root", "/nowhere"], {}, "the folder /nowhere does not exist"),
    "unknown backbone": (["--backbone", "RN51"], {}, "unknown CLIP model 'RN51'"),
    "no backbone": ([], {"MODEL.BACKBONE.NAME": ""}, "MODEL.BACKBONE.NAME is '' .*, but must "
                    "name a CLIP: set it by --backbone"),
    "no dataset": ([], {"DATASET.NAME": ""}, "DATASET.NAME is '', but must be one of .*Caltech101, .*Outfits16"),
    "unknown dataset": ([], {"DATASET.NAME": "Outfits6"}, "DATASET.NAME is 'Outfits6', .*did you mean Outfits16[?]"),
    "misspelt key": ([], {"TRAINER.MTCOOP.N_CTXS": 3}, "TRAINER.MTCOOP.N_CTXS .*did you mean TRAINER.MTCOOP.N_CTX[?]"),
    "wrong type": ([], {"OPTIM.MAX_EPOCH": "many"}, "OPTIM.MAX_EPOCH"),
    "unknown trainer": (["--trainer", "CoOpp"], {}, "CoOpp"),
    "image size": ([], {"INPUT.SIZE": "(64, 64)"}, "reads 32x32 images"),
    "class-specific on new": ([], {"DATASET.SUBSAMPLE_CLASSES": "new", "TRAINER.MTCOOP.CSC": True,
                                   "TRAINER.MTCOOP.CLASS_CSC": True, "TRAINER.MTCOOP.TASK_CSC": True},
                              "^(?!.*TASK_CSC).*CLASS_CSC learns something of its own for every class, and what it "
                              "learned exists only for"),
    "no checkpoint": (["--eval-only", "--model-dir", "/nowhere"], {}, "/nowhere holds no checkpoints"),
    "resume from nothing": (["--resume", "/nowhere"], {}, "--resume /nowhere: there is no resume.pth.tar"),
    "precision": ([], {"TRAINER.MTCOOP.PREC": "fp8"}, "PREC is 'fp8'"),
    "no config file": (["--config-file", "configs/none.yaml"], {}, "configs/none.yaml does not exist"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_clear_errors(case, photo_root, backbone, tmp_path, capsys, monkeypatch):
    extra, options, message = ERRORS[case]
    arguments = train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", *extra,
                           **{"DATASET.SPLIT_DIR": tmp_path / "splits", **options})
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    err = capsys.readouterr().err
    text = err.splitlines()[-1]
    assert stop.value.code == 1 and "Traceback" not in err
    assert text.startswith("error: ") and re.search(message, text), text
    assert not (tmp_path / "run" / "results.json").exists()


def test_truncated_image_and_corrupt_weights(photo_root, backbone, tmp_path):
    root = shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-2000])
    weights = tmp_path / "bad.pt"
    weights.write_bytes(open(backbone, "rb").read()[:100000])
    for name, clip_file, message in (("image", backbone, r"\.png"), ("weights", weights, "bad.pt")):
        done = run([sys.executable, "train.py", *train_args(root, clip_file, tmp_path / name, "MTCoOpHard",
                                                            **{"DATALOADER.NUM_WORKERS": 2})])
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and last.startswith("error: ") and re.search(message, last), done.stderr
        assert not (tmp_path / name / "results.json").exists()


def test_seed_zero_is_a_seed(photo_root, backbone, tmp_path):
    arguments = train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", "--no-train",
                           **{"DATASET.SPLIT_DIR": tmp_path / "splits"})
    arguments[arguments.index("--seed") + 1] = "0"
    assert call(arguments).cfg.SEED == 0
    assert os.listdir(tmp_path / "splits" / photo_root.name).count("shot_2-seed_0.json") == 1


def test_several_templates_of_a_task_are_averaged(photo_root, backbone, tmp_path):
    """Each class has the mean of its templates' features at length 1; the report, predicting and resuming know them."""
    root = shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))
    (root / "tasks.yaml").write_text('template: ["a photo of a {}.", "art of the {}."]\n'
                                     'tasks: [{folder: colour_naming}, {folder: lightness, template: "a {}."}]\n')
    trainer = call(train_args(root, backbone, tmp_path / "run", "ZeroshotCLIP", **{"DATASET.SPLIT_DIR": tmp_path / "s"}))
    ours, model = trainer.model.class_features(), trainer.model
    photo, art, plain = (model.template_features([template] * 2) for template in (
        "a photo of a {}.", "art of the {}.", "a {}."))
    expected = torch.nn.functional.normalize((photo[:3] + art[:3]) / 2, dim=1)
    torch.testing.assert_close(ours, torch.cat([expected, plain[3:]]))
    loaded = load_run(str(tmp_path / "run"))
    torch.testing.assert_close(loaded.model.class_features(), ours)
    (root / "tasks.yaml").write_text("template: []\n")
    with pytest.raises(UserError, match="tasks.yaml"):
        call(train_args(root, backbone, tmp_path / "x", "ZeroshotCLIP", **{"DATASET.SPLIT_DIR": tmp_path / "s"}))
