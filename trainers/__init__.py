"""Importing this package registers every trainer and evaluator."""

from . import (  # noqa: F401
    ape,
    ape_t,
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
    prolip,
    protonet,
    taskres,
    tip_adapter,
    zsclip,
)
