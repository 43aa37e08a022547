"""Importing this package registers every trainer and evaluator."""

from . import evaluation, mtcoop, mtcoop_hard, zsclip  # noqa: F401
