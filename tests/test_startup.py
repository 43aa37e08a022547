"""What programs import before they know what to do: nothing that only some of them need."""

import subprocess
import sys

import pytest

from benchmarks import startup
from tests.helpers import REPOSITORY

SLOW = ("torchvision", "open_clip", "timm", "transformers", "scipy", "sklearn", "matplotlib", "tensorboard", "pandas",
        "huggingface_hub", "torch._dynamo", "sympy")


@pytest.mark.parametrize("modules, absent", [
    ("train", SLOW), ("trainers.__main__", SLOW), ("datasets.prepare.__main__", SLOW),
    ("parse_test_res, runs.show, runs.tables, runs.logs, common.program", ("torch", "trainers", *SLOW))])
def test_what_is_not_imported(modules, absent):
    code = f"import sys, {modules}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(startup, "MODULES", ("torch", "json", "csv"))
    monkeypatch.setattr(startup, "measure", {"torch": (2, 1), "json": (3, 0.5), "csv": (1, 2)}.get)
    monkeypatch.setattr(sys, "argv", ["startup", "--repeats", "2"])
    startup.main()
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["torch", "2.00", "1.00", "1.00", "1.00"], ["json", "3.00", "0.50", "1.50", "0.50"],
        ["csv", "1.00", "2.00", "0.50", "2.00"]]
