"""CSV files: read back as they were written, and never a formula to a spreadsheet."""

import csv
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest

from common.csv_files import read_csv, write_csv
from datasets.base import Task
from learned.writing import write
from runs.outcome import read_confusion, read_predictions, write_outcome
from runs.show import show

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''-x", "=", "-\ude00"]
PLAIN = ["", "-", "a=1", "it's", "'tis", "-0.5", "+3", "-1e-3", "Äpfel, \"rot\"\n", "caf\udce9"]


@pytest.mark.parametrize("mark", [False, True])
def test_read_back_as_written_and_no_formula(mark, tmp_path):
    texts = [text.replace("\ude00", "\udce9") for text in FORMULAS] + PLAIN
    write_csv(str(tmp_path / "x.csv"), texts, [texts, [-1.5, 2]], mark)
    assert read_csv(str(tmp_path / "x.csv")) == [texts, texts, ["-1.5", "2"]]
    content = (tmp_path / "x.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") == mark
    cells = next(csv.reader(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline="")))
    assert cells[-len(PLAIN):] == PLAIN  # a number or a lone sign is left alone
    assert not [cell for cell in cells if re.match(r"[=+\-@\t\r].", cell) and cell not in PLAIN]


def test_every_table_of_the_project_is_guarded(tmp_path, capsys):
    """Predictions and confusion matrices of a run, printed tables, predict.py's file; a run's are read back."""
    write_outcome(SimpleNamespace(OUTPUT_DIR=str(tmp_path), TEST=SimpleNamespace(
        SAVE_PREDICTIONS=True, COMPUTE_CMAT=False)), [Task("=t()", ("=a()", "b"))], ["@x.jpg", "y.jpg"],
        np.array([0, 1]), np.array([0, 1]), np.array([0.5, 0.6]))
    first = read_predictions(tmp_path)[0]
    assert (first.image, first.task, first.label) == ("@x.jpg", "=t()", "=a()")
    assert read_confusion(tmp_path, 0)[0] == ["=a()", "b"]
    rows = [{"image": "=x", "task": "-t", "classes": [{"class": "@c", "probability": 1.0}], "score": 2.0}]
    write(rows, ["-t"], str(tmp_path / "p.csv"))
    write(rows, ["-t"], str(tmp_path / "long.csv"), long=True)
    capsys.readouterr()
    show([["=m()", "-1.50"]], ["method", "+x"], "csv")
    printed = capsys.readouterr().out
    assert printed == "method,'+x\n'=m(),-1.50\n"
    files = [tmp_path / "predictions.csv", tmp_path / "confusion" / "task0.csv",
             *(tmp_path / name for name in ("p.csv", "long.csv"))]
    for text in (printed, *(path.read_text() for path in files)):
        assert "'" in text and not re.search(r"(^|,)[=+@]|(^|,)-[a-z]", text, re.MULTILINE)
