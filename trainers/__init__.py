"""Importing this package registers every trainer and evaluator."""

from . import cocoop, evaluation, kgcoop, mtcoop, mtcoop_hard, plot, prograd, protonet, zsclip  # noqa: F401
