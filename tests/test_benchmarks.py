"""The benchmarks run and count what they say. Their timings are not tested."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks.common import device, made_up_tasks, random_clip
from clip.model import convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from tests.helpers import REPOSITORY
from trainers.text_encoder import kept_for_backward


def bench(name, tmp_path, *arguments):
    path = tmp_path / "rows.json"
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--repeats", "1", "--json", str(path),
                           "--arch", "tiny", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["rows"]


def suffix_rows(n_tasks, n_classes):
    """Rows after the context: the words of the class names, ".", [EOT]."""
    encode = SimpleTokenizer().encode
    return sum(len(encode(name)) + 2 for task in made_up_tasks(n_tasks, n_classes) for name in task.classnames)


@pytest.mark.slow
def test_text_encoder(tmp_path):
    row, = bench("text_encoder", tmp_path, "--cases", "coop:2:6", "--chunk", "4")
    assert row["plain rows"] == 6 * 77 and row["rows"] == 17 + suffix_rows(2, 6)
    assert row["TEXT_CHUNK MB"] > 0 and row["slower"] > 0
    assert row["MB"] > 0 and row["plain MB"] > 0 and row["faster"] == pytest.approx(row["plain s"] / row["s"])


def test_what_a_backward_pass_needs():
    """exp keeps its result, a product both factors; a tensor kept twice counts once, a frozen one not at all."""
    x, weight = torch.ones(1000, requires_grad=True), torch.ones(1000)
    assert kept_for_backward(lambda: x.exp(), []) == 4000
    assert kept_for_backward(lambda: (x * x).exp() * x, []) == 4000 + 4000
    assert kept_for_backward(lambda: (x.exp() * weight) * 2, [weight]) == 4000


def test_random_weights_in_half_precision():
    """open_clip's norms read what the layers before them have rounded only where they compute in float32."""
    model = random_clip("ViT-S-32")
    convert_weights(model.visual, torch.bfloat16)
    with torch.no_grad():
        features = model.visual(torch.randn(1, 3, 224, 224, device=device(), dtype=torch.bfloat16))
    assert features.dtype == torch.bfloat16 and features.isfinite().all()


@pytest.mark.slow
def test_train_step(tmp_path):
    row, = bench("train_step", tmp_path, "--cases", "nata:2:4", "--batch", "4", "--precision", "bf16")
    assert row["over products"] == pytest.approx(row["s"] / row["products s"])
    width, out = 64, 128
    encode = SimpleTokenizer().encode
    names = sum(len(encode(task.name)) + 2 for task in made_up_tasks(2, 4))
    # task prompts share one prefix, class prompts have one per task; three full blocks, and the last one
    expected = sum((12 * rows * 3 + 3 * rows + 9 * n) * width**2 + n * width * out
                   for rows, n in ((17 + names, 2), (2 * 17 + suffix_rows(2, 4), 4)))
    assert row["GFLOP of products"] == pytest.approx(4 * expected / 1e9)


@pytest.mark.slow
def test_images(tmp_path):
    row, = bench("images", tmp_path, "--cases", "2:1:3", "--side", "64", "--workers", "0")
    assert row["images"] == 2 * 1 * 3 and row["run / bare"] == pytest.approx(row["run s"] / row["bare s"])
    assert 0 < row["encode s"] < row["run s"] and row["tower s"] > 0


@pytest.mark.slow
def test_images_that_are_predicted(tmp_path):
    row, = bench("images", tmp_path, "--cases", "2:1:3", "--side", "64", "--workers", "0", "--predict", "1")
    assert row["images"] == 2 * 4 and row["run s"] > row["tower s"] > 0 and "encode s" not in row


def test_one_command_runs_every_benchmark():
    """benchmarks/gpu.sh names the modules that are there."""
    script = (REPOSITORY / "benchmarks" / "gpu.sh").read_text()
    named = set(re.findall(r"^ *bench (\w+)", script, re.MULTILINE))
    assert sorted(named) == sorted(path.stem for path in (REPOSITORY / "benchmarks").glob("*.py")
                                   if "__main__" in path.read_text())
    for path in re.findall(r"tests/\w+\.py", script):
        assert (REPOSITORY / path).is_file()


def test_one_command_keeps_what_did_not_fail(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
case "$1 $2" in
    "- "*) exec "{sys.executable}" "$@" ;;
    "-m pytest" | "-m benchmarks.train_step") exit 1 ;;
    *) echo '{{"rows": []}}' > "$4" ;;
esac
""")
    python.chmod(0o755)
    done = subprocess.run(["sh", REPOSITORY / "benchmarks" / "gpu.sh", tmp_path / "out.json"], text=True,
                          capture_output=True, env={**os.environ, "PYTHON": str(python)})
    assert done.returncode == 1 and "failed: tests train_step_fp16 train_step_fp32" in done.stderr
    assert set(json.loads((tmp_path / "out.json").read_text())) == {"text_encoder", "tower_step", "images"}


@pytest.mark.slow
def test_tower_step(tmp_path):
    row, = bench("tower_step", tmp_path, "--cases", "TCP", "--arch", "ViT-S-32", "--classes", "4", "--tasks", "2",
                 "--batch", "2")
    assert row["method"] == "TCP" and row["MB"] > 0 and row["faster"] == pytest.approx(row["plain s"] / row["s"])
