"""IVLP."""

from . import _towers


def check(case):
    trainer = _towers.build(case, "IVLP")
    return _towers.check(case, trainer, _towers.learned_of(trainer))
