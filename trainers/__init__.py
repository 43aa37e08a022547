"""Importing this package registers every trainer and evaluator."""

from . import (  # noqa: F401
    clap,
    clip_adapter,
    cocoop,
    evaluation,
    kgcoop,
    linear_probe,
    mtcoop,
    mtcoop_hard,
    plot,
    prograd,
    protonet,
    taskres,
    zsclip,
)
