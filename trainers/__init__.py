"""Importing this package registers every trainer and evaluator."""

from . import (  # noqa: F401
    ape,
    ape_t,
    cocoop,
    evaluation,
    kgcoop,
    linear_probe,
    mtcoop,
    mtcoop_hard,
    plot,
    prograd,
    prolip,
    protonet,
    tip_adapter,
    zsclip,
)
