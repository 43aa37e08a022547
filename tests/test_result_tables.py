"""The tables of `results.json` files, on made-up run folders with known numbers."""

import csv
import io
import subprocess
import sys

import pytest

import parse_test_res
from runs.tables import harmonic_mean
from tests.result_folders import TASKS, cells, change, out, write_run, write_seeds


@pytest.fixture
def suite(tmp_path):
    """CoOp-CA and SoftCPT-NATA with 1 and 4 shots, two seeds, and zero-shot."""
    root = tmp_path / "mine"
    coop = {"label": "CoOp-CA", "n_params": 2048}
    write_seeds(root / "MTCoOpHard" / "rn50_1shots", (50, 52), seconds=60, **coop)
    write_seeds(root / "MTCoOpHard" / "rn50_4shots", (60, 64), shots=4, seconds=180, **coop)
    write_seeds(root / "MTCoOp" / "rn50_1shots", (55, 57))
    write_seeds(root / "MTCoOp" / "rn50_4shots", (56, 58), shots=4)
    write_run(root / "ZeroshotCLIP" / "rn50" / "all", (60, 54), label="ZS-CLIP")
    return root


def test_table_of_methods_and_shots(suite, capsys):
    got = cells(out(capsys, "--table", suite, "--format", "github").out)
    assert list(got) == ["method", "ZS-CLIP", "CoOp-CA", "SoftCPT-NATA"]
    assert got["method"] == ["#Params", "train (min)", "1 shot", "4 shots", "average"]
    assert got["ZS-CLIP"] == ["0", "", "**57.00**", "57.00", "**57.00**"]
    # seeds: (50 + 60) / 2 and (52 + 64) / 2 on average; 60 and 180 seconds
    assert got["CoOp-CA"] == ["2,048", "2.0", "51.00 +- 1.00", "**62.00 +- 2.00**", "56.50 +- 1.50"]
    assert got["SoftCPT-NATA"] == ["1,000", "2.0", "56.00 +- 1.00", "57.00 +- 1.00", "56.50 +- 1.00"]


def test_table_in_other_formats(suite, capsys):
    latex = out(capsys, "--table", suite, "--format", "latex").out
    assert r"\textbf{62.00 $\pm$ 2.00}" in latex and r"\#Params" in latex and "**" not in latex
    plain = out(capsys, "--table", suite, "--ci95").out
    assert plain.startswith("Mine (2 tasks, 200 test images), RN50\n")
    assert "62.00 +- 2.77" in plain and "*" not in plain  # 1.96 * 2 / sqrt(2)
    rows = list(csv.DictReader(io.StringIO(out(capsys, "--table", suite, "--format", "csv").out)))
    assert [rows[1][key] for key in ("dataset", "method", "n_params", "4 shots", "4 shots std", "average std")] == [
        "Mine", "CoOp-CA", "2048", "62.00", "2.00", "1.50"]
    assert rows[0]["1 shot"] == "57.00" and rows[0]["1 shot std"] == ""


def test_ties_are_all_bold_and_a_single_value_is_not(tmp_path, capsys):
    write_seeds(tmp_path / "a", (50,), label="ProGrad")
    write_seeds(tmp_path / "b", (50.001,), label="KgCoOp")
    write_seeds(tmp_path / "c", (40,), label="KgCoOp", shots=2)
    got = cells(out(capsys, "--table", tmp_path, "--format", "github").out)
    assert got["ProGrad"][2:] == ["**50.00**", "", ""] and got["KgCoOp"][2:] == ["**50.00**", "40.00", "45.00"]


def test_rows_are_in_their_order_then_by_label(tmp_path, capsys):
    for label in ("SoftCPT-NATA", "ProGrad", "KgCoOp", "ZS-CLIP"):
        write_run(tmp_path / label, (1, 2), label=label)
    change(tmp_path / "ProGrad", "order", to=90)
    got = cells(out(capsys, "--table", tmp_path, "--format", "github").out)
    assert list(got)[1:] == ["ZS-CLIP", "KgCoOp", "ProGrad", "SoftCPT-NATA"]


def test_other_settings_are_other_rows(suite, capsys):
    write_seeds(suite / "MTCoOp" / "short", (90, 92), **{"TRAINER.MTCOOP.N_CTX": 4})
    write_seeds(suite / "MTCoOp" / "cpu", (70,), precision="fp32", **{"TRAINER.MTCOOP.N_CTX": 4})
    got = cells(out(capsys, "--table", suite, "--format", "github").out)
    assert got["SoftCPT-NATA [N_CTX=4, precision=fp16]"][2:] == ["**91.00 +- 1.00**", "", ""]
    assert got["SoftCPT-NATA [N_CTX=4, precision=fp32]"][2:] == ["70.00", "", ""]
    assert got["SoftCPT-NATA [N_CTX=16, precision=fp16]"][2] == "56.00 +- 1.00"
    assert got["CoOp-CA"][2] == "51.00 +- 1.00"


def test_epochs_that_a_method_computes_of_its_shots_are_no_other_row(tmp_path, capsys):
    for shots, epochs in ((1, 100), (16, 200)):
        write_run(tmp_path / f"{shots}shots" / "seed1", (50, 52), shots=shots, **{"OPTIM.MAX_EPOCH": epochs})
    got = cells(out(capsys, "--table", tmp_path, "--format", "github").out)
    assert {*got} - {"method"} == {"SoftCPT-NATA [MAX_EPOCH=100]", "SoftCPT-NATA [MAX_EPOCH=200]"}
    for shots in (1, 16):
        change(tmp_path / f"{shots}shots" / "seed1", "computed", to=["OPTIM.MAX_EPOCH"])
    got = cells(out(capsys, "--table", tmp_path, "--format", "github").out)
    assert {*got} - {"method"} == {"SoftCPT-NATA"}


def test_other_weights_or_test_images_are_other_rows(suite, capsys):
    write_seeds(suite / "MTCoOp" / "tuned", (90,), weights="ffff4567890")
    got = cells(out(capsys, "--table", suite, "--format", "github").out)
    # said of all rows of the table: none of the others can be compared with that one just so
    assert got["SoftCPT-NATA [weights=ffff4567]"][2] == "**90.00**" and "CoOp-CA [weights=0123abcd]" in got
    assert got["SoftCPT-NATA [weights=0123abcd]"][2] == "56.00 +- 1.00" and "ZS-CLIP [weights=0123abcd]" in got
    change(suite / "MTCoOp" / "tuned" / "seed1", "identity", "weights", to="0123abcdef")
    change(suite / "MTCoOp" / "tuned" / "seed1", "identity", "data.test", to="ffff4567890")
    got = cells(out(capsys, "--table", suite, "--format", "github").out)
    assert got["SoftCPT-NATA [test=ffff4567]"][2] == "**90.00**" and "CoOp-CA [test=all all ]" in got


def test_other_backbones_datasets_and_tasks_are_other_tables(suite, capsys):
    write_seeds(suite / "vit", (90,), backbone="ViT-B/16")
    write_seeds(suite / "other", (80,), dataset="Other")
    write_run(suite / "one", (70,), tasks=("cars",), which_tasks="task1")
    text = out(capsys, "--table", suite, "--format", "github").out
    titles = [line for line in text.splitlines() if line.startswith(("Mine", "Other"))]
    assert titles == ["Mine (cars, 100 test images), RN50", "Mine (2 tasks, 200 test images), RN50",
                      "Mine (2 tasks, 200 test images), ViT-B/16", "Other (2 tasks, 200 test images), RN50"]
    assert text.count("SoftCPT-NATA") == 4 and "**90" not in text
    assert len(list(csv.reader(io.StringIO(out(capsys, "--table", suite, "--format", "csv").out)))) == 7


def test_the_same_run_twice_is_refused(suite):
    write_run(suite / "copy" / "seed1", (1, 2))
    with pytest.raises(SystemExit, match="seed1 are both SoftCPT-NATA on Mine, 1 shot, seed 1, with the same"):
        parse_test_res.main(["--table", str(suite)])


def test_unfinished_and_broken_runs_are_listed(suite, capsys):
    write_run(suite / "MTCoOp" / "rn50_4shots" / "seed3", (1, 1), shots=4, seed=3, finished=False)
    (suite / "MTCoOp" / "rn50_4shots" / "seed4").mkdir()
    write_run(suite / "x" / "seed5", (1, 1)).joinpath("results.json").write_text("{")
    change(write_run(suite / "x" / "seed6", (1, 1)), "identity")
    write_run(suite / "x" / "seed8", (1, 1), classes="new")
    refused = write_run(suite / "x" / "seed9", (1, 1), finished=False)
    with open(refused / "log.txt", "a") as f:
        f.write("error: OPTIM.LR is 3\n")
    got = out(capsys, "--table", suite, "--format", "github")
    assert cells(got.out)["SoftCPT-NATA"][3] == "57.00 +- 1.00"
    for name, reason in (("seed3", "(the command that began it goes on with it)"), ("seed4", "unfinished"),
                         ("seed9", "(its log ends with 'error: OPTIM.LR is 3')"), ("seed5", "is not valid JSON"),
                         ("seed6", "run it again"), ("seed8", "--base2new")):
        assert any(name in line and reason in line for line in got.err.splitlines())
    with pytest.raises(SystemExit, match="holds no finished run"):
        parse_test_res.main(["--table", str(suite / "x")])


@pytest.mark.parametrize("keys, value, reason", [
    (["label"], None, "has no 'label'"), (["order"], None, "has no 'order', another version of this code wrote it"),
    (["identity", "weights"], None, "has no 'weights'"), (["tasks", 1, "metric"], None, "has no 'metric'"),
    (["tasks"], [], "holds no accuracy per task")])
def test_what_results_json_lacks_is_named(keys, value, reason, suite, capsys):
    change(write_run(suite / "x" / "seed6", (1, 1)), *keys, to=value)
    for mode in (["--table"], ["--paper", "Plant6"], ["--base2new"]):
        try:
            parse_test_res.main([*mode, str(suite)])
        except SystemExit as stop:
            assert "no finished run" in str(stop)
        lines = capsys.readouterr().err.splitlines()
        assert any("x/seed6: its results.json" in line and reason in line for line in lines)


def test_missing_seeds_are_said(suite, capsys):
    write_run(suite / "MTCoOp" / "rn50_4shots" / "seed3", (95, 85), shots=4, seed=3)
    got = out(capsys, "--table", suite, "--format", "github")
    # 56, 58 and 90; the average has no spread, as its shots are not of the same seeds
    assert cells(got.out)["SoftCPT-NATA"][2:] == ["56.00 +- 1.00", "**68.00 +- 15.58**", "**62.00**"]
    assert "  SoftCPT-NATA, 1 shot: seed 3" in got.err and "NATA, 4 shots" not in got.err


def test_runs_on_one_task_are_a_table_of_that_task(suite, capsys):
    for i, value in enumerate((40, 50)):
        for seed in (1, 2):
            write_run(suite / "LP" / f"task{i}" / f"seed{seed}", (value + seed,), label="LP-CLIP", seed=seed,
                      tasks=TASKS[i:i + 1], which_tasks=f"task{i}", seconds=30)
    got = out(capsys, "--table", suite, "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(got.out)) if row["method"] == "LP-CLIP"]
    assert [(row["tasks"], row["1 shot"], row["train_minutes"]) for row in rows] == [
        ("1", "51.50", "0.5"), ("1", "41.50", "0.5")]  # cars, pets
    assert "Left out" not in got.err
    write_run(suite / "copy", (1,), label="LP-CLIP", tasks=TASKS[:1], which_tasks="task0")
    with pytest.raises(SystemExit, match="are both LP-CLIP on Mine, 1 shot, seed 1, with the same"):
        parse_test_res.main(["--table", str(suite)])


def test_a_test_of_another_runs_model_is_no_row(suite, capsys):
    before = out(capsys, "--table", suite).out
    write_run(suite / "transfer" / "seed1", (99, 99), model="elsewhere/seed1")
    got = out(capsys, "--table", suite)
    assert got.out == before and "1 run that test another run's model (--eval-only)" in got.err


def test_zero_shot_alone(suite, capsys):
    got = cells(out(capsys, "--table", suite / "ZeroshotCLIP", "--format", "github").out)
    assert got == {"method": ["#Params", "train (min)", "average"], "ZS-CLIP": ["0", "", "57.00"]}


@pytest.mark.parametrize("name", ["chart.png", "chart.svg"])
def test_charts(name, suite, tmp_path, capsys):
    got = out(capsys, "--table", suite, "--chart", tmp_path / "charts" / name)
    written = (tmp_path / "charts" / name).read_bytes()
    assert written.startswith(b"\x89PNG") or written.count(b"<path") > 20
    assert f"charts/{name}" in got.err and len(list((tmp_path / "charts").iterdir())) == 1
    write_seeds(suite / "vit", (90,), backbone="ViT-B/16")
    out(capsys, "--table", suite, "--chart", tmp_path / "two" / name)
    assert sorted(path.stem for path in (tmp_path / "two").iterdir()) == ["chart-1", "chart-2"]


def test_chart_needs_a_mode_that_draws(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_test_res.main(["--base2new", str(tmp_path), "--chart", "a.png"])
    assert "--chart needs --side-by-side or --table" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- beside the paper
def write_paper_runs(root, shots, value=60, **run):
    for n in shots:
        for seed in (1, 2):
            write_run(root / f"{n}shots" / f"seed{seed}", [value + n / 10 + seed] * 6, shots=n, seed=seed,
                      dataset="Plant6", tasks=[f"task {i}" for i in range(6)], **run)


def test_ours_beside_the_papers(tmp_path, capsys):
    write_paper_runs(tmp_path / "nata", (1, 2, 4, 8, 16))
    write_paper_runs(tmp_path / "nats", (1, 4, 16), label="SoftCPT-NATS")
    write_paper_runs(tmp_path / "mt", (1, 2, 4, 8, 16), label="CoOp-MT", backbone="ViT-B/16")
    write_run(tmp_path / "zs", [50] * 6, label="ZS-CLIP", dataset="Plant6",
              tasks=[f"task {i}" for i in range(6)])
    write_run(tmp_path / "else", (1, 2))
    got = out(capsys, "--paper", "plant-6", tmp_path, "--format", "github")
    table = cells(got.out)
    # shots 1 2 4 8 16 average 6.2: 60.62 + 1 and + 2; published 67.68
    assert table["SoftCPT-NATA"] == ["62.12 +- 0.50", "67.68", "-5.56", "1 2", ""]
    assert table["SoftCPT-NATS"] == ["", "67.13", "", "1 2", "no run with 2, 8 shots"]
    assert table["CoOp-MT"] == ["62.12 +- 0.50", "63.90", "-1.78", "1 2", "backbone ViT-B/16, the paper's is RN50"]
    assert table["ZS-CLIP"] == ["50.00", "50.96", "-0.96", "", ""]
    assert table["PLOT"] == ["", "66.14", "", "", "no run"]
    assert "else: 1 run on other datasets than Plant6" in got.err


def test_part_of_a_suite_is_not_compared(tmp_path, capsys):
    write_run(tmp_path / "seed1", (50,), dataset="Plant6", tasks=("pets",), which_tasks="task0")
    with pytest.raises(SystemExit, match="no finished run"):
        parse_test_res.main(["--paper", "Plant6", str(tmp_path)])
    assert "1 run on a part of the tasks of Plant6" in capsys.readouterr().err


def test_unknown_suite(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_test_res.main(["--paper", "Outfits16", str(tmp_path)])
    assert "accuracies are published of General10, Plant6, RS8, Fashion20" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ base-to-new
@pytest.fixture
def base2new(tmp_path):
    root = tmp_path / "base2new"
    for seed, base, new in ((1, (80, 60), (50, 40)), (2, (90, 70), (60, 20))):
        write_run(root / "train_base" / "MTCoOp" / f"seed{seed}", base, classes="base", seed=seed)
        write_run(root / "test_new" / "MTCoOp" / f"seed{seed}", new, classes="new", seed=seed,
                  model=str(root / "train_base" / "MTCoOp" / f"seed{seed}"))
    for classes, values in (("base", (60, 60)), ("new", (70, 50))):
        write_run(root / f"zeroshot_{classes}", values, label="ZS-CLIP", classes=classes)
    return root


def test_harmonic_mean():
    assert harmonic_mean(60, 40) == pytest.approx(48) and harmonic_mean(0, 0) == 0


def test_base_to_new(base2new, capsys):
    write_run(base2new / "train_base" / "MTCoOp" / "seed3", (1, 1), classes="base", seed=3)
    got = out(capsys, "--base2new", base2new, "--format", "csv")
    assert "seed3: SoftCPT-NATA on Mine, 1 shot, seed 3 is there for the base classes, but not" in got.err
    rows = [list(row.values())[2:] for row in csv.DictReader(io.StringIO(got.out))]
    # H of the means: 2 * 85 * 55 / 140 and 2 * 65 * 30 / 95; the average's is 2 * 75 * 42.5 / 117.5
    assert rows == [["average", "ZS-CLIP", "1", "60.00", "", "60.00", "", "60.00"],
                    ["average", "SoftCPT-NATA", "1", "75.00", "5.00", "42.50", "2.50", "54.26"],
                    ["pets", "ZS-CLIP", "1", "60.00", "", "70.00", "", "64.62"],
                    ["pets", "SoftCPT-NATA", "1", "85.00", "5.00", "55.00", "5.00", "66.79"],
                    ["cars", "ZS-CLIP", "1", "60.00", "", "50.00", "", "54.55"],
                    ["cars", "SoftCPT-NATA", "1", "65.00", "5.00", "30.00", "10.00", "41.05"]]


def test_base_to_new_marks_the_best_of_each_task(base2new, capsys):
    write_seeds(base2new / "train_base" / "4", (70,), classes="base", shots=4)
    write_seeds(base2new / "test_new" / "4", (60,), classes="new", shots=4)
    got = out(capsys, "--base2new", base2new, "--format", "github").out
    lines = [[x.strip() for x in line.strip("|").split("|")] for line in got.splitlines() if line.startswith("| pets")]
    assert lines == [["pets", "ZS-CLIP", "1", "60.00", "**70.00**", "64.62"],
                     ["pets", "SoftCPT-NATA", "1", "**85.00 +- 5.00**", "55.00 +- 5.00", "**66.79**"],
                     ["pets", "ZS-CLIP", "4", "60.00", "**70.00**", "64.62"],
                     ["pets", "SoftCPT-NATA", "4", "**75.00**", "65.00", "**69.64**"]]


def test_runs_on_all_classes_are_no_base_to_new(suite):
    with pytest.raises(SystemExit, match="no finished run"):
        parse_test_res.main(["--base2new", str(suite)])


def test_base_to_new_of_other_test_images(base2new, capsys):
    write_run(base2new / "train_base" / "MTCoOp" / "seed3", (1, 1), classes="base", seed=3)
    write_run(base2new / "test_new" / "MTCoOp" / "seed3", (1, 1), classes="new", seed=3, **{"data.test": "ffff4567890"})
    rows = csv.reader(io.StringIO(out(capsys, "--base2new", base2new, "--format", "csv").out))
    assert [row[3] for row in rows if row[2] == "average"] == [
        "ZS-CLIP [test=all base+all new ]", "SoftCPT-NATA [test=all base+all new ]",
        "SoftCPT-NATA [test=all base+ffff4567]"]
    write_run(base2new / "other" / "seed3", (1, 1), classes="base", seed=3, **{"data.test": "ffff4567890"})
    with pytest.raises(SystemExit, match="with the same settings, but tested on other images: move one"):
        parse_test_res.main(["--base2new", str(base2new)])


def test_base_to_new_of_another_model_is_left_out(base2new, capsys):
    change(base2new / "test_new" / "MTCoOp" / "seed2", "identity", "model", to="another epoch")
    got = out(capsys, "--base2new", base2new, "--format", "csv")
    assert "seed2: SoftCPT-NATA on Mine, 1 shot, seed 2 tests another model, or another epoch of it, than" in got.err
    assert ["average", "SoftCPT-NATA", "1", "70.00"] == [*csv.reader(io.StringIO(got.out))][2][2:6]


def test_other_class_names_are_another_row(suite, capsys):
    """Tasks that were edited between two seeds have no common mean."""
    change(suite / "MTCoOp" / "rn50_1shots" / "seed2", "identity", "data.tasks", to="ffff4567890")
    got = cells(out(capsys, "--table", suite, "--format", "github").out)
    assert {name for name in got if name.startswith("SoftCPT-NATA")} == {
        "SoftCPT-NATA [suite=all all]", "SoftCPT-NATA [suite=ffff4567]"}


def test_all_images_and_validation_images_are_called_so(suite, capsys):
    write_seeds(suite / "MTCoOp" / "rn50_all", (90, 91), shots=-1)
    write_run(suite / "val", (80, 82), **{"TEST.SPLIT": "val"})
    chart = suite / "chart.png"
    got = out(capsys, "--table", suite, "--format", "github", "--chart", chart).out
    assert "Mine (2 tasks, 200 validation images), RN50" in got and "Mine (2 tasks, 200 test images), RN50" in got
    header = next(line for line in got.splitlines() if "all images" in line)
    assert header.index("4 shots") < header.index("all images") < header.index("average")


def test_tables_load_no_pytorch():
    code = "import sys, parse_test_res; sys.exit('torch' in sys.modules or 'trainers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
