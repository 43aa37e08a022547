"""What programs import before they know what to do: nothing that only some of them need."""

import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

SLOW = ("torchvision", "open_clip", "timm", "transformers", "scipy", "sklearn", "matplotlib", "tensorboard", "pandas",
        "huggingface_hub", "torch._dynamo", "sympy")


@pytest.mark.parametrize("modules, absent", [
    ("train", SLOW), ("trainers.__main__", SLOW), ("datasets.prepare.__main__", SLOW),
    ("parse_test_res, runs.show, runs.tables, runs.logs, common.program, learned", ("torch", "trainers", *SLOW))])
def test_what_is_not_imported(modules, absent):
    code = f"import sys, {modules}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
