"""Tables from made-up logs with known numbers."""

import csv
import io

import pytest

import parse_test_res


def write_log(folder, accuracies, trained=True, finished=True, text=""):
    """A run's log: accuracies of two tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["epoch [1/1] batch [1/1] loss 1.0"] * trained
    if finished:
        lines += ["Finished training"] * trained
        mean = sum(accuracies) / 2
        lines += ["=> result", "* total: 1,234", f"* overall_metric: {mean:.2f}%", "=> per-task result"]
        lines += [f"* task: {i} ({name})\ttotal: {total}\tmetric: {x:.2f}%"
                  for i, (name, total, x) in enumerate(zip(("pets (all)", "cars"), ("1,200", "34"), accuracies))]
        lines += [f"* average: {mean:.2f}%"]
    (folder / "log.txt").write_text(text + "\n".join(lines) + "\n")


def table(capsys, *arguments):
    parse_test_res.main([str(a) for a in arguments])
    return capsys.readouterr()


@pytest.fixture
def experiment(tmp_path):
    write_log(tmp_path / "nata" / "seed1", (60, 40))
    write_log(tmp_path / "nata" / "seed2", (70, 50))
    return tmp_path / "nata"


def test_mean_and_spread(experiment, capsys):
    out = table(capsys, experiment).out
    assert "* overall_metric: 55.00% +- 5.00% (2 runs)" in out
    assert [line.split() for line in out.splitlines() if "pets" in line] == [
        ["0", "pets", "(all)", "1,200", "65.00", "5.00"]]
    assert "+- 6.93% (2 runs)" in table(capsys, experiment, "--ci95").out  # 1.96 * 5 / sqrt(2)


def test_csv_can_be_read_back(experiment, capsys):
    rows = list(csv.reader(io.StringIO(table(capsys, experiment, "--format", "csv").out)))
    assert rows == [["task", "total", "metric (%)", "std"], ["0 pets (all)", "1,200", "65.00", "5.00"],
                    ["1 cars", "34", "45.00", "5.00"], ["overall_metric", "", "55.00", "5.00"]]


def test_other_formats(experiment, capsys):
    assert "\\begin{tabular}" in table(capsys, experiment, "--format", "latex").out
    assert "| 1 cars" in table(capsys, experiment, "--format", "github").out


def test_last_result_of_a_resumed_log_counts(experiment, capsys):
    write_log(experiment / "seed2", (70, 50), text="epoch [1/2]\nFinished training\n=> result\n"
                                                   "* overall_metric: 1.00%\n")
    assert "55.00% +- 5.00%" in table(capsys, experiment).out


def test_validation_of_a_resumed_crashed_run_does_not_count(experiment, capsys):
    log = experiment / "seed2" / "log.txt"
    result = log.read_text().split("Finished training\n")[1].replace("60.00%", "99.00%")
    log.write_text(log.read_text() + "epoch [2/2] batch [1/1]\n" + result)
    assert "* overall_metric: 55.00% +- 5.00% (2 runs)" in table(capsys, experiment).out


@pytest.mark.parametrize("tail", [
    "Finished training\n",
    "Finished training\n=> result\n* overall_metric: 1.00%\n=> per-task result\n"
    "* task: 0 (pets (all))\ttotal: 1,200\tmetric: 1.00%\n"])
def test_last_complete_result_counts_if_a_later_one_breaks_off(experiment, capsys, tail):
    log = experiment / "seed2" / "log.txt"
    log.write_text(log.read_text() + "epoch [2/2] batch [1/1]\n" + tail)
    assert "* overall_metric: 55.00% +- 5.00% (2 runs)" in table(capsys, experiment).out


@pytest.mark.parametrize("result", [
    "* overall_metric: 1.2.3%\n", "* overall_metric: 1.00%\n=> per-task result\n",
    "* overall_metric: 1.00%\n* task: 0 (pets (all))\ttotal: 1,200\tmetric: 1.00%\n"])
def test_result_that_breaks_off_is_left_out(experiment, capsys, result):
    (experiment / "seed3").mkdir()
    (experiment / "seed3" / "log.txt").write_text("Finished training\n=> result\n" + result)
    got = table(capsys, experiment)
    assert "55.00% +- 5.00% (2 runs)" in got.out
    assert "seed3: unfinished: its log has no complete result" in got.err


def test_csv_of_several_experiments_is_one_table(experiment, capsys):
    write_log(experiment.parent / "coop" / "seed1", (10, 20))
    out = table(capsys, experiment.parent, "--multi-exp", "--format", "csv").out
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["experiment", "task", "total", "metric (%)", "std"]
    assert [row[0] for row in rows[1:]] == ["coop"] * 3 + ["nata"] * 3
    assert [row[3] for row in rows if row[1] == "overall_metric"] == ["15.00", "55.00"]


def test_broken_runs_are_listed_and_left_out(experiment, capsys):
    write_log(experiment / "seed3", (1, 1), finished=False)
    (experiment / "seed4").mkdir()
    (experiment / "seed5").mkdir()
    (experiment / "seed5" / "log.txt").write_bytes(b"\xff\xfe\x00")
    got = table(capsys, experiment)
    assert "55.00% +- 5.00% (2 runs)" in got.out
    for name, reason in (("seed3", "unfinished"), ("seed4", "no log.txt"), ("seed5", "no complete result")):
        assert any(name in line and reason in line for line in got.err.splitlines())


def test_test_logs_and_keyword(tmp_path, capsys):
    write_log(tmp_path, (20, 30), trained=False)
    assert "* overall_metric: 25.00%" in table(capsys, tmp_path).out == table(capsys, tmp_path, "--test-log").out
    assert "* average: 25.00%" in table(capsys, tmp_path, "--test-log", "--keyword", "average").out
    with pytest.raises(SystemExit, match="holds no finished run"):
        parse_test_res.main([str(tmp_path), "--test-log", "--keyword", "f1"])
    assert "no 'f1', only overall_metric, average" in capsys.readouterr().err


def test_several_experiments(experiment, capsys):
    write_log(experiment.parent / "coop" / "seed1", (10, 20))
    out = table(capsys, experiment.parent, "--multi-exp").out
    assert "Mean over 2 experiments: 35.00%" in out and out.count("seed1") == 2


def test_side_by_side_with_chart(experiment, tmp_path, capsys):
    write_log(tmp_path / "zeroshot", (11, 13), trained=False)
    write_log(tmp_path / "crashed" / "seed1", (1, 1), text="=> result\n* overall_metric: 1.00%\n", finished=False)
    chart = tmp_path / "charts" / "accuracy.svg"
    got = table(capsys, tmp_path, "--side-by-side", "--format", "csv", "--chart", chart)
    assert list(csv.reader(io.StringIO(got.out))) == [
        ["experiment", "pets (all)", "cars", "average", "std", "runs"],
        ["nata", "65.00", "45.00", "55.00", "5.00", "2"], ["zeroshot", "11.00", "13.00", "12.00", "0.00", "1"]]
    assert "crashed" in got.err and chart.read_text().count("<path") > 5
    assert [path.name for path in chart.parent.iterdir()] == ["accuracy.svg"]


def write_probe(folder, accuracy):
    """The log of a linear probe: no epochs, one task."""
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(
        f"C = 1 by 4 validation images\nFinished training\n=> result\n* total: 34\n* overall_metric: {accuracy:.2f}%\n"
        f"=> per-task result\n* task: 0 (cars)\ttotal: 34\tmetric: {accuracy:.2f}%\n* average: {accuracy:.2f}%\n")


@pytest.fixture
def probes(tmp_path):
    for task, start in (("task0", 10), ("task1", 20)):
        for shots in (1, 16):
            for seed in (1, 2):
                write_probe(tmp_path / task / f"{shots}shots" / f"seed{seed}", start + shots + 2 * seed)
    return tmp_path


def test_linear_probe(probes, capsys):
    assert "* overall_metric: 14.00% +- 1.00% (2 runs)" in table(capsys, probes / "task0" / "1shots").out
    assert "* overall_metric: 14.00% +- 1.00% (2 runs)" in table(capsys, probes / "task0" / "1shots", "--test-log").out
    got = table(capsys, probes / "task0", "--multi-exp")
    assert "Mean over 2 experiments: 21.50%" in got.out and not got.err  # 14 and 29
    got = table(capsys, probes, "--side-by-side", "--format", "csv")
    assert list(csv.reader(io.StringIO(got.out)))[1:] == [
        [f"task{i}/{n}shots", f"{10 * i + 13 + n:.2f}", f"{10 * i + 13 + n:.2f}", "1.00", "2"]
        for i in (0, 1) for n in (16, 1)]


def test_experiments_further_down_are_found(probes, capsys):
    write_log(probes / "nata" / "seed1", (60, 40))
    got = table(capsys, probes, "--multi-exp", "--format", "csv")
    rows = list(csv.reader(io.StringIO(got.out)))
    assert [row[0] for row in rows if row[1] == "overall_metric"] == [
        "nata", "task0/16shots", "task0/1shots", "task1/16shots", "task1/1shots"] and not got.err
    with pytest.raises(SystemExit, match="holds no finished run itself; --multi-exp or --table reads"):
        parse_test_res.main([str(probes)])


def test_runs_of_different_tasks_are_refused(experiment):
    path = experiment / "seed2" / "log.txt"
    path.write_text(path.read_text().replace("cars", "planes"))
    with pytest.raises(SystemExit, match="seed2 and .*seed1 were tested on different tasks"):
        parse_test_res.main([str(experiment)])


def test_missing_folder():
    with pytest.raises(SystemExit, match="/nowhere does not exist"):
        parse_test_res.main(["/nowhere"])
