"""What programs do with memory, on Linux with glibc."""

import platform
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
CODE = """
import psutil, torch
from common.program import program, starting_processes

def resident():
    return psutil.Process().memory_info().rss // 2**20

with program():
    before = resident()
    values = [torch.ones(2**24) for _ in range(8)]  # 64 MB each
    full = resident()
    del values
    freed = resident()
    with starting_processes():
        print(before, full, freed, resident())
"""


def test_freed_memory_is_kept_until_processes_start():
    """Megabytes of a program at first, with 512 MB of tensors, without them, and when it starts processes."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, full, freed, starting = map(int, done.stdout.split())
    assert full - before > 500 and full - freed < 20 and starting - before < 50
