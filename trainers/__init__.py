"""Importing this package registers every trainer and evaluator."""

from . import evaluation, mtcoop, mtcoop_hard, plot, protonet, zsclip  # noqa: F401
