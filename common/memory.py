"""How a process takes memory and what it does with what it has freed, on Linux with glibc; elsewhere all is as usual."""

import ctypes
import platform
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@lru_cache
def glibc():
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_memory():
    """Keep freed blocks, of up to 1 GiB each, for the next use.

    By default glibc gives every large block back, and the kernel fills the next one with zeros, 4 KB at a time: on a
    CPU this takes an image tower up to as much time as its arithmetic. Results are the same, bit for bit.
    """
    if glibc():
        glibc().mallopt(M_MMAP_THRESHOLD, 2**30)
        glibc().mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back():
    """Give freed memory back to the kernel now, so that the process takes what it uses."""
    if glibc():
        glibc().malloc_trim(0)
