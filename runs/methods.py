"""The registry of methods: a trainer class that is registered here has its keys, rows and commands."""

from dataclasses import dataclass, field, replace
from typing import Literal

from common.errors import UserError
from common.keys import Key
from dassl.engine import TRAINER_REGISTRY

ROWS = {}  # label -> Row, of all methods
TRAINERS = {}  # name of a trainer -> its class

PREC = Key("fp16", "precision: towers in fp16 or bf16; amp: autocast; fp64: text tower and what is learned in double",
           Literal["fp32", "fp16", "bf16", "amp", "fp64"])
POSITION = Key("end", "where the context goes: before the name, around it, or after it",
               Literal["end", "middle", "front"])


@dataclass(frozen=True)
class Row:
    """A row of the results tables, and how `scripts/all_methods.sh` runs it.

    Attributes:
        label: its name. place: number that orders the rows.
        script: command in `scripts/`, in which {dataset}, {cfg}, {shots} and {name} (cfg without its schedule) stand
            for the arguments; without {shots} it is run once. Empty: `method.sh` with the trainer's name.
        script_on: {dataset: command} where a dataset has another one.
        when: {option of the method's node: value} by which a run is told to be of this row; the first that fits counts.
        by_default: whether `all_methods.sh` runs it unasked.
    """

    label: str
    place: int
    script: str = ""
    script_on: dict = field(default_factory=dict)
    when: dict = field(default_factory=dict)
    by_default: bool = True


def register_rows(rows):
    """Enter `Row`s.

    Raises:
        ValueError: a label is taken.
    """
    for row in rows:
        if row.label in ROWS:
            raise ValueError(f"there is a row {row.label!r} already: give the method another label")
        ROWS[row.label] = row


def register(trainer):
    """Class decorator: enter a trainer, with its `node`, `keys` and `rows`, here and in Dassl's registry."""
    TRAINER_REGISTRY.register(trainer)
    TRAINERS[trainer.__name__] = trainer
    script = f"method.sh {trainer.__name__} {{dataset}} {{cfg}} {{shots}}"
    register_rows(row if row.script else replace(row, script=script) for row in trainer.rows)
    return trainer


def find_row(rows, options):
    """The first of `rows` whose `when` fits the yacs node `options` (None: of a method without options)."""
    return next(row for row in rows if all(options[key] == value for key, value in row.when.items()))


def commands(dataset, cfg, shots, labels=None):
    """The commands that `all_methods.sh` runs, in the order of the rows: [(label, command in scripts/)].

    Args:
        labels: of the rows (default: those that are run unasked).

    Raises:
        UserError: an unknown label.
    """
    rows = sorted(ROWS.values(), key=lambda row: row.place)
    unknown = [label for label in labels or () if label not in ROWS]
    if unknown:
        raise UserError(f"METHODS has {unknown[0]!r}, which the results table does not have, it has "
                         f"{' '.join(row.label for row in rows)}")
    made = []
    for row in rows:
        if row.label in labels if labels else row.by_default:
            script = row.script_on.get(dataset, row.script)
            for n in shots if "{shots}" in script else shots[:1]:
                made.append((row.label, script.format(dataset=dataset, cfg=cfg, shots=n, name=cfg.split("_ep")[0])))
    return made
