"""How runs are called: the arguments of `train.py`, of the rows of a results table or for the words of a script."""

import itertools
import os
import os.path as osp
import re

from common.errors import UserError

from .methods import TRAINERS
from .results import RESULTS_FILE


class WrongCall(UserError):
    """Words on a command line or in the environment that a script does not take."""


def settings_of_environment():
    """{"root", "output": texts; "seeds", "shots", "opts", "methods": lists of words} of the scripts' variables."""
    def read(name, default):
        return os.environ.get(name) or default

    return {"root": read("DATA", "data"), "output": read("OUTPUT", "output"), "seeds": read("SEEDS", "1 2 3").split(),
            "shots": read("SHOTS", "1 2 4 8 16").split(), "opts": read("OPTS", "").split(),
            "methods": read("METHODS", "").split()}


def check_settings(settings):
    """Refuse what no run can have; `settings` has the attributes that `settings_of_environment` names.

    Raises:
        WrongCall: a word that could be taken for an option, or seeds or shots that are no numbers.
    """
    for name, word in (("DATA", settings.root), ("OUTPUT", settings.output), *(("OPTS", w) for w in settings.opts)):
        check_word(name, word)
    check_numbers("SEEDS", settings.seeds)
    check_numbers("SHOTS", settings.shots)


def check_word(name, word):
    if re.match(r"-($|[^0-9.])", word) or "\n" in word:
        raise WrongCall(f"{name} is '{word}', but must not begin with - or have several lines")


def check_numbers(name, words):
    if not words:
        raise WrongCall(f"{name} is blank, but must have a number")
    for word in words:
        if not re.fullmatch("-?[0-9]+", word):
            raise WrongCall(f"{name} has '{word}', but must be whole numbers")


def calls_of_rows(settings, dataset, cfg):
    """The runs of the results table of a dataset, in the order of its rows: [(label, arguments of `train.py`)].

    Args:
        settings: see `check_settings`. Its `methods` are labels; where there is none, the rows that are run unasked.

    Raises:
        UserError: an unknown label.
    """
    check_settings(settings)
    for word in (dataset, cfg):
        check_word("DATASET or CFG", word)
    rows = sorted(((row, trainer) for trainer in TRAINERS.values() for row in trainer.rows),
                  key=lambda pair: pair[0].order)
    labels = [row.label for row, _ in rows]
    for label in settings.methods:
        if label not in labels:
            raise UserError(f"METHODS has {label!r}, which the results table does not have, it has {' '.join(labels)}")
    words = {"DATASET": dataset, "CFG": cfg}
    return [(row.label, call) for row, trainer in rows
            if (row.label in settings.methods if settings.methods else row.by_default)
            for call in calls_of_method(settings, trainer, words, {**row.options, **row.on.get(dataset, {})})]


def calls_of_script(settings, script, usage, given, trainer="", **kind):
    """The runs that the words of a script ask for: [arguments of `train.py`].

    Args:
        settings: see `check_settings`.
        script: its name.
        usage: names of its words: those of `calls_of_method`; OPTIONS are the method's `arguments`; an option of the
            method's node; at the end, in brackets, one word that may be left out, or KEY VALUE ...
        given: its words.
        trainer: name of the method, where no word TRAINER says it.
        kind: `place`, `classes` and `trained`, as `calls_of_method` takes them.

    Raises:
        WrongCall: too few or too many words, or wrong ones. UserError: a run is to be tested that is not finished.
    """
    if trainer:
        usage = usage.replace("OPTIONS", " ".join(TRAINERS[trainer].arguments))
    words, pairs = read_words(script, usage, given)
    check_settings(settings)
    trainer = words.get("TRAINER") or trainer
    if trainer not in TRAINERS:
        raise WrongCall(f"TRAINER is '{trainer}', but must be one of {', '.join(TRAINERS)}")
    method = TRAINERS[trainer]
    options = {name: word for name, word in words.items() if name in method.keys}
    for name in method.arguments:
        if name not in options:
            raise WrongCall(f"{script} does not take {name} of {trainer}: call the script that does")
    return calls_of_method(settings, method, words, options, pairs, **kind)


def read_words(script, usage, given):
    """({name: word}, KEY VALUE ...) of the words that a script was given, checked; as in `calls_of_script`."""
    required, _, optional = usage.partition(" [")
    names = required.split()
    more = optional.endswith("...]")
    if len(given) < len(names) or not more and len(given) > len(usage.split()):
        raise WrongCall(f"usage: sh {script} {usage}")
    for word in given:
        check_word(f"an argument of {script}", word)
    words = dict(zip(names if more else usage.replace("[", "").replace("]", "").split(), given))
    if "SHOTS" in words:
        check_numbers("SHOTS", [words["SHOTS"]])
    for name in ("TASK", "MAX_TASK"):
        if words.get(name) == "all":
            del words[name]
        elif name in words and not re.fullmatch("[0-9]{1,3}", words[name]):
            raise WrongCall(f"{name} is '{words[name]}', but must be the number of a task, or all")
    return words, given[len(names):] if more else []


def calls_of_method(settings, trainer, words, options, pairs=(), place="", classes="all", trained=None):
    """The runs of a method, one for each of the shots and seeds: [arguments of `train.py`].

    Args:
        settings: see `check_settings`; its shots count where `words` has none.
        trainer: a class, whose `folder_name` says whether it depends on shots and seeds.
        words: {name: text}. DATASET, CFG, SHOTS; TASK, the number of the only task, MAX_TASK, of the last one, or
            TASKS, as DATASET.SUBSAMPLE_TASKS; CLASSES, as `classes`; TARGET, the dataset to test on.
        options: {option of the method's node: value}. pairs: further KEY VALUE ...
        place: folder below that of the dataset, with {name of a word}.
        classes: as DATASET.SUBSAMPLE_CLASSES.
        trained: (place of the runs whose models are tested, the script that trains them).

    Raises:
        UserError: a run is to be tested that is not finished.
    """
    name = trainer.folder_name
    of_shots = [words["SHOTS"]] if "SHOTS" in words else settings.shots if "{SHOTS}" in name else [None]
    tasks = words.get("TASKS", "all")
    if "TASK" in words:
        tasks = f"task{words['TASK']}"
    if "MAX_TASK" in words:
        tasks = ",".join(f"task{i}" for i in range(int(words["MAX_TASK"]) + 1))
    known = {**words, **options, "TRAINER": trainer.__name__, "MODEL": words["CFG"].split("_ep")[0], "SELECTED": tasks}
    calls = []
    for shots, seed in itertools.product(of_shots, settings.seeds if "{SEED}" in name else ["1"]):
        values = {**known, "SHOTS": shots, "SEED": seed}
        call = ["--root", settings.root, "--output-dir", folder_of(settings, trainer, place, values),
                "--trainer", trainer.__name__, "--seed", seed,
                "--dataset-config-file", f"configs/datasets/{words.get('TARGET', words['DATASET'])}.yaml",
                "--config-file", f"configs/trainers/{trainer.config.format(**values)}.yaml"]
        if trained:
            model = folder_of(settings, trainer, trained[0], values)
            if not osp.isfile(osp.join(model, RESULTS_FILE)):
                raise UserError(f"{model} is not finished: run {trained[1]} with the same arguments first")
            call += ["--eval-only", "--model-dir", model]
        keys = {"DATASET.NUM_SHOTS": shots, "DATASET.SUBSAMPLE_TASKS": tasks,
                "DATASET.SUBSAMPLE_CLASSES": words.get("CLASSES", classes)}
        keys = {key: value for key, value in keys.items() if value not in (None, "all")}
        keys.update({f"TRAINER.{trainer.node}.{option}": str(value) for option, value in options.items()})
        calls.append([*call, *itertools.chain(*keys.items()), *pairs, *settings.opts])
    return calls


def folder_of(settings, trainer, place, values):
    """The folder of a run: its method's `folder_name` in a place (see `calls_of_method`); `values` are {name: text}."""
    name = f"{place}/{trainer.folder_name}" if place else trainer.folder_name
    for part in re.findall(r"\[.*?\]", name):  # stands only where its value is known
        known = set(re.findall("{(.*?)}", part)) <= {*values}
        name = name.replace(part, part[1:-1] if known else "")
    return f"{settings.output}/{values['DATASET']}/{name.format(**values)}"
