"""The registry of methods: registering a trainer class declares its keys, rows and commands."""

from dataclasses import dataclass, field
from typing import Literal

from common.keys import Key
from common.names import did_you_mean, near
from dassl.engine import TRAINER_REGISTRY

ROWS = {}  # label -> Row, of all methods
TRAINERS = {}  # name of a trainer -> its class

PREC = Key("fp16", "precision: towers in fp16 or bf16; amp: autocast; fp64: all in double",
           Literal["fp32", "fp16", "bf16", "amp", "fp64"])
POSITION = Key("end", "where the context goes: before the name, around it, or after it",
               Literal["end", "middle", "front"])
# The schedule of CoOp, for `optim` of the methods that follow it: a first epoch at 1e-5, then a cosine.
WARM_COSINE = {"OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": 1, "OPTIM.WARMUP_TYPE": "constant",
               "OPTIM.WARMUP_CONS_LR": 1e-5, "OPTIM.WEIGHT_DECAY": 5e-4}


@dataclass(frozen=True)
class Row:
    """A row of the results tables, and how `scripts/all_methods.sh` runs it.

    Attributes:
        label: its name. order: number that orders the rows.
        options: {option of the method's node: value} of its runs.
        tells: names of the options that tell a run of this row from others; the first row that fits counts.
        on: {dataset: {option: value}}, further options on a dataset.
        by_default: `all_methods.sh` runs it unless METHODS names rows. quick: `fit.py` likewise.
    """

    label: str
    order: int
    options: dict = field(default_factory=dict)
    tells: tuple = ()
    on: dict = field(default_factory=dict)
    by_default: bool = True
    quick: bool = False


def register(trainer):
    """Class decorator: enter a trainer with its `node`, `keys` and `rows` here and in Dassl's registry.

    Raises:
        ValueError: the label of a row is taken.
    """
    TRAINER_REGISTRY.register(trainer)
    TRAINERS[trainer.__name__] = trainer
    for row in trainer.rows:
        if row.label in ROWS:
            raise ValueError(f"there is a row {row.label!r} already: give the method another label")
        ROWS[row.label] = row
    return trainer


def which_trainer(name):
    """Say what a trainer's name must be instead of `name`, to end "must be ...".

    A user may have meant a trainer's own name or, such as "CoOp", how the labels of its rows begin.
    """
    labels = {row.label: trainer for trainer, cls in TRAINERS.items() for row in cls.rows}
    meant = {}  # trainer -> those of its labels that are like `name`
    for found in near(name, [*TRAINERS, *labels]):
        meant.setdefault(found if found in TRAINERS else labels[found], []).extend([found] * (found not in TRAINERS))
    guess = did_you_mean([f"{trainer} ({', '.join(found)})" if found else trainer for trainer, found in meant.items()])
    return f"the name of a trainer{guess}" if guess else f"one of {', '.join(TRAINERS)}: set it by --trainer"


def find_row(rows, options):
    """The first of `rows` that fits a run's `options`, a yacs node, or None for a method without options."""
    return next(row for row in rows if all(options[name] == row.options[name] for name in row.tells))
