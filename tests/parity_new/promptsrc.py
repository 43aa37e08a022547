"""PromptSRC: besides what is learned, its teacher, the weights of the epochs and the prompts at the end of each."""

import torch
from torch.nn import functional as F

from tests.parity import relative_error

from . import _deep


def check(case):
    trainer = _deep.build(case, "PromptSRC")
    learned, ends = _deep.learned_of(trainer), {}
    end_epoch = trainer.end_epoch

    def note_and_end():
        for name, value in learned.items():
            ends.setdefault(f"epoch_end/{name}", []).append(value.detach()[0].clone())
        end_epoch()

    trainer.end_epoch = note_and_end
    errors = {"teacher_text": relative_error(trainer.model.teacher_features, F.normalize(case["teacher_text"], dim=1))}
    errors |= _deep.check(case, trainer, learned)
    ours = {"epoch_weights": trainer.epoch_weights(), **{name: torch.stack(values) for name, values in ends.items()}}
    return errors | case.errors(ours)
