"""CSV that a spreadsheet shows as it was written: a name such as `=1+1` is no formula there.

Such a text gets an apostrophe in front, which `read_csv` takes away again.
"""

import csv
import itertools
import re

from .files import atomic_path

# What Excel and LibreOffice take for a formula, or drop to find one behind it. A lone "-" is none.
FORMULA = re.compile(r"'*[=+\-@\t\r\n].", re.DOTALL)
OPTIONS = {"errors": "surrogateescape", "newline": ""}  # file names may be any bytes


def write_rows(file, rows):
    """Write rows, iterables of texts and numbers, to an open text file."""
    csv.writer(file, lineterminator="\n").writerows(map(guard, row) for row in rows)


def write_csv(path, headers, rows, mark=False):
    """Write a table as UTF-8, whole or not at all; `mark`: with the byte order mark by which Excel knows UTF-8."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8-sig" if mark else "utf-8",
                                              **OPTIONS) as file:
        write_rows(file, itertools.chain([headers], rows))


def read_csv(path):
    """Return the rows that `write_csv` wrote, the headers first: lists of texts."""
    with open(path, encoding="utf-8-sig", **OPTIONS) as file:
        return [[cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell for cell in row]
                for row in csv.reader(file)]


def guard(cell):
    """Return a cell with an apostrophe in front if it is a text that a spreadsheet would take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) and not is_number(cell) else cell


def is_number(text):
    """Return whether a text is a number, which may begin with a sign."""
    try:
        float(text)
    except ValueError:
        return False
    return True
