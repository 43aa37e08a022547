"""report.py: what the page holds against the run folders, and the page in a browser that sorts and chooses."""

import csv
import io
import json
import re
import shutil
import sys
import time

import numpy as np
import pytest
from PIL import Image
from torch.nn import functional as F

import report
from common.csv_files import write_csv
from learned import reporting, verdict
from learned.contexts import contexts_of
from learned.loading import load_run
from runs.compare import pairs_of, row_of
from runs.outcome import COLUMNS, CONFUSION, figures_of
from tests.browser import CHROMIUM, Browser
from tests.helpers import call, metrics, results, run, train_args
from tests.result_folders import out, write_run

TASKS = ('<b id="evil">pets</b>', "車の認識")
CLASSES = (("</script><script>throw 1</script>", "<!-- cat", 'a "big" & \'small\' dog', "bird"), ("赤い車", "青い車"))
COUNTS = ([[5, 2, 1, 0], [3, 5, 0, 0], [0, 0, 8, 0], [0, 7, 0, 1]], [[9, 1], [2, 8]])


def add_outcome(folder, root, tasks, predictions=True):
    """Give a made-up run on `tasks`, numbers of those above, its figures, confusions, predictions and config."""
    path = folder / "results.json"
    written = json.loads(path.read_text())
    options = {"MTCOOP": {"N_CTX": 16}, "OTHER": {"N_CTX": 1}}  # zero-shot reads neither, and none reads the second
    about = {"config": {"SEED": 1, "DATASET": {"ROOT": str(root)}, "TRAINER": {"NAME": written["label"], **options}},
             "test_seconds": 2.5, "peak_memory_mb": 512.0, "device": "cpu",
             "suite": [{"name": TASKS[t], "classes": CLASSES[t], "template": "{}"} for t in tasks],
             "identity": written["identity"] | {"TRAINER.NAME": written["label"]}}
    path.write_text(json.dumps(written | about))
    lines, n, figures = [], 0, []
    for place, t in enumerate(tasks):
        rows = [[name, *counts] for name, counts in zip(CLASSES[t], COUNTS[t])]
        write_csv(str(folder / f"{CONFUSION.format(place)}.csv"), ["", *CLASSES[t]], rows)
        for i, counts in enumerate(COUNTS[t]):
            for j, count in enumerate(counts):
                for _ in range(count):
                    n += 1
                    lines.append((f"images/{t}/{n:02d}.png", TASKS[t], CLASSES[t][i], CLASSES[t][j], n / 100))
        own = [(CLASSES[t].index(truth), CLASSES[t].index(guess), p) for _, task, truth, guess, p in lines
               if task == TASKS[t]]
        figures.append(figures_of(TASKS[t], CLASSES[t], *map(np.array, zip(*own))))
    (folder / "metrics.json").write_text(json.dumps({"tasks": figures}))
    if predictions:
        write_csv(str(folder / "predictions.csv"), COLUMNS, lines)
    for image, *_ in lines:
        if not (root / image).exists():
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (90, 45), (200, 30, 30)).save(root / image)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of three methods; one unfinished, one of base classes."""
    path = tmp_path_factory.mktemp("report")
    root, runs = path / "data", path / "runs"
    add_outcome(write_run(runs / "zs", (60, 70), label="ZS-CLIP", tasks=TASKS), root, (0, 1))
    for shots in (1, 4):
        for seed in (1, 2):
            value = 50 + 3 * shots + seed
            add_outcome(write_run(runs / f"soft{shots}" / f"seed{seed}", (value, value + 10), shots=shots, seed=seed,
                                  tasks=TASKS), root, (0, 1), predictions=seed == 1)
            add_outcome(write_run(runs / f"lp/{shots}shots/seed{seed}", (value, value + 7), "LP-CLIP", shots=shots,
                                  seed=seed, tasks=TASKS), root, (0, 1))
    write_run(runs / "later", (1, 2), finished=False)
    write_run(runs / "half", (80, 90), classes="base", tasks=TASKS)
    return path


@pytest.fixture(scope="module")
def page(folder):
    """The page of these runs, made by a process that must not load PyTorch."""
    path = folder / "out.html"
    script = "import report, sys; report.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = run([sys.executable, "-c", script, str(folder / "runs"), str(path)])
    assert done.returncode == 0, done.stderr
    assert "later: unfinished" in done.stderr and "1 run on half of the classes" in done.stderr
    return path


def read(path):
    """The data of a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text("utf-8"), re.S)[1])


def make(folder, path, *arguments):
    report.main([str(folder), str(path), *arguments])
    return read(path)


def test_its_tables_are_those_of_parse_test_res(page, folder, capsys):
    table, = read(page)["tables"]
    header, *lines = csv.reader(io.StringIO(out(capsys, "--table", folder / "runs", "--format", "csv").out))
    assert [line[3] for line in lines] == [row["name"] for row in table["rows"]] == ["ZS-CLIP", "LP-CLIP",
                                                                                     "SoftCPT-NATA"]
    for line, row in zip(lines, table["rows"]):
        expected = line[header.index("1 shot"):]
        found = [text for pair in (*row["cells"], row["average"]) for text in
                 (f"{pair[0]:.2f}", "" if pair[1] is None else f"{pair[1]:.2f}")]
        assert found == expected
        assert line[5] == row["minutes"] and line[4] == row["params"].replace(",", "")
    soft = table["rows"][2]
    assert soft["per_task"] == [[[54.5, 0.5], [64.5, 0.5]], [[63.5, 0.5], [73.5, 0.5]]]
    assert table["rows"][1]["per_task"][1] == [[63.5, 0.5], [70.5, 0.5]]
    assert table["best"] == [[0], [2], [0]]


def test_what_it_holds_of_each_run(page, folder):
    data = read(page)
    table, = data["tables"]
    assert [task for task, _ in table["tasks"]] == list(TASKS)
    assert len(table["runs"]) == 9
    for about in table["runs"]:
        assert about["memory"] == 512 and about["test"] == 2.5
        for t, task in enumerate(about["details"]):
            assert tuple(data["classes"][task["classes"]]) == CLASSES[t]
            matrix = np.zeros(np.size(COUNTS[t]), dtype=int)
            matrix[task["cells"][::2]] = task["cells"][1::2]
            assert (matrix.reshape(np.shape(COUNTS[t])) == COUNTS[t]).all()
            with_images = about["row"] != 2 or about["seed"] == 1
            assert ("no_images" in about) != with_images
            worst = [(i, j, count) for i, j, count, _ in task["worst"]]
            assert worst == ([(3, 1, 7), (1, 0, 3), (0, 1, 2), (0, 2, 1)] if t == 0 else [(1, 0, 2), (0, 1, 1)])
            assert [len(images) for *_, images in task["worst"]] == (
                [0] * len(worst) if not with_images else [min(count, 4) for *_, count in worst])
    images = table["runs"][0]["details"][0]["worst"][0][3]
    assert [(data["images"][i], p) for i, p in images] == [(f"images/0/{n}.png", n / 100) for n in (31, 30, 29, 28)]
    assert all(data["thumbnails"][str(i)].startswith("data:image/jpeg") for i in range(len(data["images"])))
    surest = [(t, truth, guess, data["images"][i], p) for t, truth, guess, i, p in table["runs"][0]["surest"]]
    lines = list(csv.reader(open(folder / "runs/zs/predictions.csv")))[1:]
    wrong = [(TASKS.index(task), truth, guess, image, float(p)) for image, task, truth, guess, p in lines
             if truth != guess]
    assert len(wrong) == 16 and surest == sorted(wrong, key=lambda line: -line[-1])
    assert table["differ"] == [["TRAINER.NAME", ["ZS-CLIP", "LP-CLIP", "SoftCPT-NATA"]]]
    assert sorted(table["same"]) == [["DATASET.ROOT", str(folder / "data"), [0, 1, 2]],
                                     ["TRAINER.MTCOOP.N_CTX", "16", [1, 2]], ["precision", "fp16", [0, 1, 2]]]
    assert [path for path, _ in data["left_out"]] == [str(folder / "runs/later"), str(folder / "runs/half")]


def test_its_verdict(page, folder, tmp_path):
    table, = read(page)["tables"]
    assert table["chance"] == [25, 50] and [table["rows"][k]["name"] for k in table["ranked"]] == [
        "SoftCPT-NATA", "LP-CLIP", "ZS-CLIP"]
    opened = table["runs"][table["opens"]]
    assert (opened["row"], opened["shots"], opened["seed"]) == (2, 4, 1)
    assert table["verdict"] == (
        "Best: SoftCPT-NATA 68.5% (4 shots), then LP-CLIP 67.0%, zero-shot ZS-CLIP 65.0%, chance 37.5%. Its lead over "
        f"LP-CLIP may be luck (p = 1). Hardest task: {TASKS[0]} (64%); hardest class: {TASKS[0]}/bird (12%).")
    alone = make(folder / "runs/zs", tmp_path / "x.html")["tables"][0]["verdict"]
    assert alone.startswith("ZS-CLIP 65.0% (zero-shot), chance 37.5%. Hardest task:")
    (shutil.copytree(folder / "runs/zs", tmp_path / "zs") / "metrics.json").unlink()
    results = tmp_path / "zs/results.json"
    results.write_text(json.dumps({k: v for k, v in json.loads(results.read_text()).items() if k != "suite"}))
    assert make(tmp_path / "zs", tmp_path / "x.html")["tables"][0]["verdict"] == (
        f"ZS-CLIP 65.0% (zero-shot). Hardest task: {TASKS[0]} (60%).")


def test_two_methods_are_compared_as_by_parse_test_res(tmp_path):
    """Counts are sums over the common seeds; zero-shot goes with each; no test without predictions or other images."""
    rng = np.random.default_rng(0)

    def add(name, label, shots=1, seed=1, n=40, predictions=True):
        folder = write_run(tmp_path / "runs" / name, (50, 50), label=label, shots=shots, seed=seed)
        if predictions:
            rows = [(f"{i}.jpg", task, "a", rng.choice(["a", "b"], p=[chance, 1 - chance]), 0.5)
                    for task, chance in (("pets", 0.5 + 0.1 * shots), ("cars", 0.5)) for i in range(n)]
            write_csv(folder / "predictions.csv", COLUMNS, rows)
        return folder

    zero = add("zs", "ZS-CLIP")
    lp = {(shots, seed): add(f"lp{shots}{seed}", "LP-CLIP", shots, seed) for shots in (1, 4) for seed in (1, 2, 3)}
    soft = {(shots, seed): add(f"soft{shots}{seed}", "SoftCPT-NATA", shots, seed, predictions=(shots, seed) != (4, 2))
            for shots in (1, 4) for seed in (1, 2)}
    add("kg", "KgCoOp", n=39)
    table, = make(tmp_path / "runs", tmp_path / "x.html")["tables"]
    assert [row["name"] for row in table["rows"]] == ["ZS-CLIP", "LP-CLIP", "KgCoOp", "SoftCPT-NATA"]
    pairs = {"0 1 0": [(zero, lp[1, seed]) for seed in (1, 2, 3)], "0 1 1": [(zero, lp[4, seed]) for seed in (1, 2, 3)],
             "0 3 0": [(zero, soft[1, seed]) for seed in (1, 2)], "0 3 1": [(zero, soft[4, 1])],
             "1 3 0": [(lp[1, seed], soft[1, seed]) for seed in (1, 2)], "1 3 1": [(lp[4, 1], soft[4, 1])]}
    assert set(table["compared"]) == set(pairs)  # not KgCoOp, which has other images
    for key, folders in pairs.items():
        found = [pair for two in folders for pair in pairs_of(*two)]
        expected = [row_of(task, [pair for pair in found if task in (pair[0].task, "all")])
                    for task in ("pets", "cars", "all")]
        assert [[str(one), str(other), f"{p:.3g}"] for one, other, p in table["compared"][key]["tests"]] == [
            [*row[5:7], row[8]] for row in expected]
        assert len(table["compared"][key]["seeds"]) == len(folders)
    assert table["compared"]["1 3 1"]["seeds"] == [1]


def test_pairs_are_limited(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verdict, "MOST_PAIRS", 2)
    monkeypatch.setattr(reporting, "MOST_PAIRS", 2)
    data = make(folder / "runs", tmp_path / "x.html")
    assert {key.split()[2] for key in data["tables"][0]["compared"]} == {"1"}  # those with the most shots
    assert "McNemar's test is made of 2 pairs" in data["notes"][0]


def test_names_do_not_end_the_script(page):
    text = page.read_text("utf-8")
    assert text.count("</script") == text.count("<script") == 2 and "<!--" not in text and "<b " not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


@pytest.fixture
def browser(page, tmp_path):
    if not CHROMIUM:
        pytest.skip("there is no chromium, chromium-browser or google-chrome")
    opened = []

    def start(path=page, **options):
        opened.append(Browser(tmp_path / f"profile{len(opened)}", **options))
        opened[-1].open(path.as_uri())
        return opened[-1]

    yield start
    for one in opened:
        one.__exit__()


COLUMN = "[...document.querySelectorAll('#results tbody tr')].map(tr => tr.children[{}].textContent)"


@pytest.mark.slow
def test_in_a_browser(browser, page):
    page = browser()
    assert page.run(COLUMN.format(0)) == ["ZS-CLIP", "LP-CLIP", "SoftCPT-NATA"]
    heads = "document.querySelectorAll('#results thead button')[{}]"
    assert page.run("[...document.querySelectorAll('#results th[scope=col]')].map(th => th.textContent)") == [
        "method", "4 shots", "1 shot", "average", "#Params", "train (min)"]
    page.press(heads.format(2))
    assert page.run(COLUMN.format(2)) == ["65.00", "59.50 ± 0.50", "58.00 ± 0.50"]
    page.press(heads.format(2))
    assert page.run(COLUMN.format(0)) == ["LP-CLIP", "SoftCPT-NATA", "ZS-CLIP"]
    assert page.run("document.querySelector('#results th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    page.press(heads.format(0))
    assert page.run(COLUMN.format(0)) == ["LP-CLIP", "SoftCPT-NATA", "ZS-CLIP"]

    shots = "[...document.querySelectorAll('select[name=Shots]')].map(box => box.value)"
    assert page.run(shots) == ["1", "1", "4", "4", "4"]  # two of places, three of runs: the most
    matrix = "document.querySelector('#confusions .matrix table').innerText"
    assert CLASSES[0][0] in page.run(matrix)
    page.choose("document.querySelector('#confusions select[name=Task]')", 1)
    assert CLASSES[1][0] in page.run(matrix) and CLASSES[0][0] not in page.run(matrix)
    page.choose("document.querySelector('#confusions select[name=Task]')", 0)
    shown = "[...document.querySelectorAll('#confusions img')].filter(img => img.naturalWidth === 90).length"
    assert page.run(shown) == 10  # 4, 3, 2 and 1 of the confusions
    assert page.run("document.querySelector('#confusions select[name=Seed]').options.length") == 2
    page.choose("document.querySelector('#confusions select[name=Seed]')", 2)
    assert "soft4/seed2" in page.run("document.querySelector('#confusions').innerText")
    assert "TEST.SAVE_PREDICTIONS True" in page.run("document.querySelector('#confusions').innerText")
    assert page.run(shown) == 0

    chart = "[...document.querySelectorAll('#results div > svg text.level')].map(text => text.textContent)"
    assert page.run(chart) == ["ZS-CLIP 65.0%", "chance 37.5%"]
    page.choose("document.querySelector('#results select')", 1)
    assert page.run(chart) == ["ZS-CLIP 70.0%", "chance 50.0%"]
    lines = "document.querySelectorAll('#results svg path').length"
    assert page.run(lines) == 3
    page.press("document.querySelector('.legend button')")
    assert page.run(lines) == 2
    assert page.run("document.querySelector('#evil')") is None
    assert page.errors == [] and len(page.requests) == 1, (page.errors, page.requests)


@pytest.mark.slow
def test_an_image_is_enlarged(browser):
    page = browser()
    opened = "document.querySelector('dialog').open"
    for close in (page.escape, lambda: page.press("document.querySelector('dialog')")):
        page.press("document.querySelector('#errors .picture')")
        text = page.run("document.querySelector('dialog').innerText")
        assert text.splitlines()[::2] == [f"true class: {CLASSES[1][1]}", f"predicted: {CLASSES[1][0]} (44%)",
                                          f"task: {TASKS[1]}", "file: images/1/44.png", "Close"]
        assert page.run(opened)
        close()
        assert not page.run(opened)
    truths = "[...document.querySelectorAll('#errors figcaption')].map(node => node.innerText)"
    assert len(page.run(truths)) == 16
    page.choose("document.querySelector('#errors select[name=Seed]')", 2)
    assert page.run(truths) == [] and "TEST.SAVE_PREDICTIONS" in page.run("document.querySelector('#errors').innerText")
    assert page.errors == []


@pytest.mark.slow
def test_tables_are_copied_and_saved(browser):
    """As they are sorted; mean and deviation in columns of their own."""
    page = browser()
    page.press("document.querySelectorAll('#results thead button')[1]")
    copy, save = ("document.querySelectorAll('#results .tools button')[%d]" % i for i in range(2))
    page.press(copy)
    rows = [["method", "4 shots", "4 shots std", "1 shot", "1 shot std", "average", "average std", "#Params",
             "train (min)"], ["SoftCPT-NATA", "68.50", "0.50", "59.50", "0.50", "64.00", "0.50", "1,000", "2.0"]]
    assert page.run(f"{copy}.textContent") == "Copied"
    page.ask("Runtime.evaluate", expression="navigator.clipboard.readText().then(text => window.copied = text)",
             awaitPromise=True)
    assert [line.split("\t") for line in page.run("window.copied").splitlines()][:2] == rows
    page.press(save)
    end = time.monotonic() + 30
    while not (found := list(page.downloads.glob("*.csv"))) and time.monotonic() < end:
        time.sleep(0.05)
    lines = list(csv.reader(found[0].open(encoding="utf-8-sig")))
    assert lines[:2] == rows and len(lines) == 4
    tables = "document.querySelectorAll('{}').length"
    assert page.run(tables.format("table")) == page.run(tables.format(".tools")) and page.errors == []


@pytest.mark.slow
def test_two_methods_side_by_side(browser):
    page = browser()
    cells = ("[...document.querySelectorAll('#compare tbody tr')].map(tr => [...tr.children].map(cell => "
             "cell.textContent))")
    assert page.run(cells) == [[TASKS[0], "63.50", "63.50", "0.00", "0", "0", "1.000"],
                               [TASKS[1], "73.50", "70.50", "+3.00", "0", "0", "1.000"],
                               ["all tasks", "68.50", "67.00", "+1.50", "0", "0", "1.000"]]
    assert "may be luck" in page.run("document.querySelector('#compare').innerText")
    page.choose("document.querySelector('#compare select')", 1)
    assert "Choose two methods." in page.run("document.querySelector('#compare').innerText")
    page.run("delete table.compared['0 1 0']")
    page.choose("document.querySelectorAll('#compare select')[1]", 0)
    page.choose("document.querySelectorAll('#compare select')[2]", 0)
    assert "TEST.SAVE_PREDICTIONS True" in page.run("document.querySelector('#compare').innerText")
    assert page.run(cells)[-1] == ["all tasks", "58.00", "65.00", "-7.00"] and page.errors == []


@pytest.mark.slow
def test_calibration(browser, folder, tmp_path):
    """All that a run's metrics.json has, and an older one that has less."""
    path = shutil.copytree(folder / "runs/lp", tmp_path / "lp") / "4shots/seed1/metrics.json"
    for older in (tmp_path / "lp").rglob("metrics.json"):
        written = json.loads(older.read_text())
        for task in written["tasks"]:
            for key in ("reliability", "coverage", "error_of_true_probabilities"):
                del task[key]
        older.write_text(json.dumps(written))
    written = json.loads(path.read_text())
    written["tasks"][1] |= {"reliability": [[3, 41.5, 30.0], [17, 95.25, 88.2]], "temperature": 1.75,
                            "uncalibrated_error": 21.5, "coverage": [[50, 80.5, 90.25], [99.5, 0, None]],
                            "error_of_true_probabilities": 8.25}
    path.write_text(json.dumps(written))
    run = make(tmp_path / "lp", tmp_path / "x.html")["tables"][0]["runs"][2]
    assert run["details"][1]["calibration"] == {key: value for key, value in written["tasks"][1].items()
                                                if key in reporting.CALIBRATION}
    page = browser(tmp_path / "x.html")
    tables = ("[...document.querySelectorAll('#calibration table')].map(table => [...table.rows].map(tr => "
              "[...tr.children].map(cell => cell.textContent).join(' ')))")
    error = [f"{task['accuracy']:.2f} {task['expected_calibration_error']:.2f}" for task in written["tasks"]]
    assert page.run(tables) == [["task images accuracy error by chance error before temperature",
                                 f"{TASKS[0]} 32 {error[0]}   ", f"{TASKS[1]} 20 {error[1]} 8.25 21.50 1.750"]]
    assert "no more than this" in page.run("document.querySelector('#calibration').innerText")
    page.choose("document.querySelector('#calibration select[name=Task]')", 1)
    assert page.run(tables)[1:] == [["mean probability (%) accuracy (%) images", "41.5 30.0 3", "95.3 88.2 17"],
                                    ["P images with a label (%) accuracy of these (%)", "0.5 80.5 90.3", "0.995 0.0 "]]
    assert page.run("document.querySelectorAll('#calibration svg circle').length") == 2
    page.choose("document.querySelector('#calibration select[name=Seed]')", 2)
    assert page.run(tables)[0][0] == "task images accuracy error" and len(page.run(tables)) == 1
    assert page.errors == []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The page of 24 methods with long names on 30 tasks; the last one has 70 classes."""
    path, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    tasks = [f"recognition of the {i}th of many kinds of vehicles in photographs" for i in range(30)]
    classes = [f"class{i}" for i in range(70)]
    for k in range(24):
        for shots in (1, 16):
            run = write_run(path / f"runs/{k}/{shots}", rng.uniform(20, 90, 30), "KgCoOp", shots=shots, tasks=tasks,
                            **{"TRAINER.KGCOOP.A_LONG_NAME_OF_AN_OPTION": k})
            write_csv(str(run / f"{CONFUSION.format(0)}.csv"), ["", "a", "b"], [["a", 3, 0], ["b", 2, 4]])
            write_csv(str(run / f"{CONFUSION.format(29)}.csv"), ["", *classes],
                      [[name, *row] for name, row in zip(classes, rng.integers(0, 9, (70, 70)).tolist())])
    make(path / "runs", path / "x.html")
    return path / "x.html"


@pytest.mark.slow
def test_many_tasks_methods_and_classes(browser, many):
    page = browser(many, width=1280)
    assert page.run("document.querySelectorAll('#tasks tbody tr').length") == 31
    assert page.run("document.querySelectorAll('#tasks thead th').length") == 25
    styles = page.run("[...document.querySelectorAll('#results .legend line')].map(line => "
                      "[line.getAttribute('stroke'), line.getAttribute('stroke-dasharray')].join())")
    assert len(set(styles)) == 24
    page.choose("document.querySelector('#confusions select[name=Task]')", 29)
    assert page.run("document.querySelector('#confusions .matrix')") is None
    counts = page.run("[...document.querySelectorAll('#confusions .worst tbody tr')].map(tr => "
                      "Number(tr.children[2].textContent))")
    assert len(counts) == 50 and set(counts) == {8} and page.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["page", "many"])
def test_all_of_it_can_be_used(browser, request, which, width, dark):
    page = browser(request.getfixturevalue(which), width=width, height=800, mobile=width < 800, dark=dark)
    wide = "document.documentElement.scrollWidth"  # only the boxes of tables scroll
    assert page.run(wide) <= width
    for section in ("results", "tasks"):  # an accuracy with the most shots is seen at once
        seen = f"document.querySelectorAll('#{section} table tr')[2].children[1].getBoundingClientRect().right"
        assert page.run(seen) <= width
    page.use_everything()
    assert page.run(wide) <= width
    colour = "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    back, text = page.run(colour.format("backgroundColor")), page.run(colour.format("color"))
    assert (back < 200 and text > 500) if dark else (back > 500 and text < 200)
    assert page.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("runs", ["zs", "soft1"])
def test_pages_of_few_runs(browser, folder, tmp_path, runs):
    """Bars where there is no or one number of shots."""
    make(folder / "runs" / runs, tmp_path / "x.html", "--no-thumbnails")
    page = browser(tmp_path / "x.html")
    assert page.run("document.querySelectorAll('#results svg rect').length") == 1
    assert page.run("document.querySelectorAll('section').length") == 7
    page.use_everything()
    assert page.errors == []


# ------------------------------------------------------------------ what it leaves out
def test_thumbnails_are_limited(folder, tmp_path, capsys):
    data = make(folder / "runs", tmp_path / "x.html", "--thumbnails", "2")
    table, = data["tables"]
    assert [*map(int, data["thumbnails"])] == [i for *_, i, _ in table["runs"][table["opens"]]["surest"][:2]]
    assert f"Of {len(data['images'])} images that are named here 2 are shown" in capsys.readouterr().err
    data = make(folder / "runs", tmp_path / "x.html", "--no-thumbnails")
    assert data["thumbnails"] == {} and data["images"]


def test_images_that_are_not_there_are_said(folder, tmp_path, capsys):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    for path in tmp_path.rglob("results.json"):
        path.write_text(path.read_text().replace(str(folder / "data"), "/nowhere"))
    data = make(tmp_path / "runs", tmp_path / "x.html")
    assert set(data["thumbnails"].values()) == {""}
    assert "can't be shown" in data["notes"][0] and "/nowhere/images/" in data["notes"][0]
    (tmp_path / "runs/zs/confusion/task0.csv").unlink()
    data = make(tmp_path / "runs", tmp_path / "x.html")
    assert "task0.csv is not there" in data["tables"][0]["runs"][0]["details"][0]["error"]


def test_a_page_that_is_too_large_says_what_it_lacks(folder, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole.html"
    make(folder / "runs", whole, "--no-thumbnails")
    monkeypatch.setattr(reporting, "MOST_BYTES", whole.stat().st_size)
    data = make(folder / "runs", tmp_path / "x.html", "--no-thumbnails")
    kept = [(about["row"], about["seed"]) for about in data["tables"][0]["runs"] if "details" in about]
    assert 0 < len(kept) < 9 and {row for row, _ in kept} == {0, 1, 2}
    assert data["notes"] == [f"The confusions of {9 - len(kept)} of 9 runs are left out, to keep the page below 0 MB."]
    assert (tmp_path / "x.html").stat().st_size <= reporting.MOST_BYTES


# ------------------------------------------------------------------ contexts
def test_similarity_of_contexts(photo_root, backbone, tmp_path):
    """A real run, with the files that it wrote itself."""
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1, "TEST.SAVE_PREDICTIONS": True,
               "TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 3, "TRAINER.MTCOOP.CLASS_N_CTX": 2}
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", **options))
    data = make(tmp_path / "run", tmp_path / "x.html")
    table, = data["tables"]
    _, names, contexts = contexts_of(load_run(str(tmp_path / "run")))
    a, b = contexts.flatten(1)
    assert [name for name, _ in table["tasks"]] == names
    found, = table["contexts"]
    np.testing.assert_allclose(found["matrix"], [[1, F.cosine_similarity(a, b, dim=0).item()],
                                                 [F.cosine_similarity(a, b, dim=0).item(), 1]], atol=2e-5)
    about, = table["runs"]
    assert about["train"] == results(tmp_path / "run")["train_seconds"]
    for task, figures in zip(about["details"], metrics(tmp_path / "run")):
        assert sum(task["cells"][1::2]) == figures["total"]
        wrong = figures["total"] - sum(row["correct"] for row in figures["classes"])
        assert sum(count for *_, count, _ in task["worst"]) == wrong
        assert all(data["thumbnails"][str(i)] for *_, images in task["worst"] for i, _ in images)


def test_images_are_looked_for_where_the_run_found_them(photo_root, backbone, tmp_path, monkeypatch):
    """With a relative --root, a prefix swapped, and a report made in another folder."""
    data, moved = tmp_path / "data", tmp_path / "moved"
    shutil.copytree(photo_root, data)
    shutil.copytree(photo_root, moved)
    for path in data.rglob("*.png"):
        path.write_text("not these")
    monkeypatch.chdir(tmp_path)
    call(train_args("data", backbone, tmp_path / "run", "MTCoOpHard", "--old-data-path", str(data), "--new-data-path",
                    str(moved), **{"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1,
                                   "TEST.SAVE_PREDICTIONS": True}))
    monkeypatch.chdir(photo_root)
    data = make(tmp_path / "run", tmp_path / "x.html")
    assert data["thumbnails"] and all(data["thumbnails"].values()) and not data["notes"]


# ------------------------------------------------------------------ bad input
def test_bad_input(folder, tmp_path, capsys):
    def error(*arguments):
        with pytest.raises(SystemExit) as stop:
            report.main(list(map(str, arguments)))
        assert stop.value.code == 1
        text, = capsys.readouterr().err.splitlines()
        return text

    runs, page = folder / "runs", tmp_path / "x.html"
    assert "nothing does not exist" in error(tmp_path / "nothing", page)
    assert "holds no finished run" in error(tmp_path, page)
    assert "later is left out (unfinished" in error(runs / "later", page)
    for wrong in ([page, "--thumbnails", "-1"], [tmp_path], [tmp_path / "x.txt"]):
        with pytest.raises(SystemExit, match="2"):
            report.main([str(argument) for argument in (runs, *wrong)])
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_written_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    page = tmp_path / "x.html"
    page.write_text("the last one")

    def encode(text, original=reporting.encode):
        if text.startswith("<!DOCTYPE"):
            raise KeyboardInterrupt
        return original(text)

    monkeypatch.setattr(reporting, "encode", encode)
    with pytest.raises(SystemExit, match="130"):
        make(folder / "runs", page)
    assert page.read_text() == "the last one" and list(tmp_path.iterdir()) == [page]
