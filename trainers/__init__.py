"""Importing this package registers every trainer and evaluator."""

from . import (  # noqa: F401
    clap,
    clip_adapter,
    cocoop,
    cross_modal,
    evaluation,
    kgcoop,
    linear_probe,
    lpp,
    mtcoop,
    mtcoop_hard,
    plot,
    prograd,
    protonet,
    taskres,
    zsclip,
)
