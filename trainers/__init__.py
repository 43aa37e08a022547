"""Importing this package registers every trainer and evaluator."""

from . import cocoop, evaluation, kgcoop, mtcoop, mtcoop_hard, prograd, zsclip  # noqa: F401
