"""VPT."""

from . import _towers


def check(case):
    trainer = _towers.build(case, "VPT", TEMPLATE="a photo of a {}.")
    return _towers.check(case, trainer, _towers.learned_of(trainer))
