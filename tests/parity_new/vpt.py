"""VPT."""

from . import _deep


def check(case):
    trainer = _deep.build(case, "VPT", TEMPLATE="a photo of a {}.")
    return _deep.check(case, trainer, _deep.learned_of(trainer))
