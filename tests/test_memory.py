"""What programs do with memory, on Linux with glibc."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CODE = """
import os, psutil, torch
from common.program import program, starting_processes

def resident():
    return psutil.Process().memory_info().rss // 2**20

with program():
    before = resident()
    values = [torch.ones(2**24) for _ in range(8)]  # 64 MB each
    full = resident()
    huge = sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHuge"))
    del values
    freed = resident()
    with starting_processes():
        print(before, full, freed, resident(), huge // 2**10, os.environ["THP_MEM_ALLOC_ENABLE"])
"""


def measured(**environment):
    """MB of a program at first, with 512 MB of tensors, without them, when it starts processes; in huge pages; flag."""
    usual = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True,
                          env={**usual, **environment})
    assert done.returncode == 0, done.stderr
    return map(int, done.stdout.split())


def test_freed_memory_is_kept_until_processes_start():
    before, full, freed, starting, _, _ = measured()
    assert full - before > 500 and full - freed < 20 and starting - before < 50


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="the kernel has them off")
def test_tensors_lie_in_huge_pages_unless_the_user_says_otherwise():
    *_, huge, flag = measured()
    assert huge > 100 and flag == 1
    *_, flag = measured(THP_MEM_ALLOC_ENABLE="0")
    assert flag == 0
