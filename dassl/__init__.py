"""The Dassl toolbox API (KaiyangZhou/Dassl.pytorch) that CoOp-family code imports, on current PyTorch."""

import os

__version__ = "0.6.3"

# Idle threads of GCC's OpenMP, which PyTorch loads, keep their cores busy for milliseconds before they sleep, so that
# runs side by side slow each other down. So many turns are microseconds, enough for the gap between two operations.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
