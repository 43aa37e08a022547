"""IVLP."""

from . import _deep


def check(case):
    trainer = _deep.build(case, "IVLP")
    return _deep.check(case, trainer, _deep.learned_of(trainer))
