"""Makes the arguments of `train.py`: for the rows of a results table, or for the words of a script."""

import itertools
import os
import os.path as osp
import re

from common.errors import UserError
from common.names import did_you_mean, near

from .methods import ROWS, TRAINERS, which_trainer
from .results import RESULTS_FILE


class WrongCall(UserError):
    """Words on a command line or in the environment that a script does not take."""


def settings_of_environment():
    """The scripts' variables: {"root", "output": text; "seeds", "shots", "opts", "methods": list of words}."""
    defaults = {"DATA": "data", "OUTPUT": "output", "SEEDS": "1 2 3", "SHOTS": "1 2 4 8 16", "OPTS": "", "METHODS": ""}
    found = {name: os.environ.get(name) or default for name, default in defaults.items()}
    return {"root": found.pop("DATA"), "output": found.pop("OUTPUT"),
            **{name.lower(): words.split() for name, words in found.items()}}


def check_settings(settings):
    """Refuse settings that no run can have; `settings` has the attributes that `settings_of_environment` names.

    Raises:
        WrongCall: a word that could be taken for an option; seeds or shots that are not numbers.
    """
    check_words(DATA=[settings.root], OUTPUT=[settings.output], OPTS=settings.opts)
    check_numbers("SEEDS", settings.seeds)
    check_numbers("SHOTS", settings.shots)


def check_words(**words):
    """Refuse words, {name: list}, that could be taken for options."""
    for name, word in ((name, word) for name, own in words.items() for word in own):
        if re.match(r"-($|[^0-9.])", word) or "\n" in word:
            raise WrongCall(f"{name} is '{word}', but must not begin with - or have several lines")


def check_numbers(name, words):
    """Refuse an empty list, and words that are not whole numbers."""
    if not words:
        raise WrongCall(f"{name} is blank, but must have a number")
    for word in words:
        if not re.fullmatch("-?[0-9]+", word):
            raise WrongCall(f"{name} has '{word}', but must be whole numbers")


def calls_of_rows(settings, dataset, cfg):
    """The runs of a dataset's results table, in the order of its rows: [(label, arguments of `train.py`)].

    Args:
        settings: see `check_settings`. Its `methods` are labels, or "all" for every row; if there are none, the rows
            that are run by default.

    Raises:
        WrongCall: an unknown label.
    """
    check_settings(settings)
    check_words(**{"DATASET or CFG": [dataset, cfg]})
    rows = sorted(((row, trainer) for trainer in TRAINERS.values() for row in trainer.rows),
                  key=lambda pair: pair[0].order)
    for label in settings.methods:
        if label not in ROWS and label != "all":
            labels = [row.label for row, _ in rows]
            raise WrongCall(f"METHODS has {label!r}, which the results table does not have"
                            f"{did_you_mean(near(label, labels)) or ', it has ' + ' '.join(labels) + ', or all'}")
    words = {"DATASET": dataset, "CFG": cfg}
    return [(row.label, call) for row, trainer in rows
            if (row.by_default if not settings.methods else {row.label, "all"} & set(settings.methods))
            for call in calls_of_method(settings, trainer, words, {**row.options, **row.on.get(dataset, {})})]


def calls_of_script(settings, script, usage, given, trainer="", **kind):
    """The runs that the words of a script ask for: [arguments of `train.py`].

    Args:
        settings: see `check_settings`. script: its name. given: its words.
        usage: names of its words, which are words of `calls_of_method` or options of the method's node. OPTIONS stands
            for the method's `arguments`. At the end, in brackets, may stand one word that can be left out, or
            KEY VALUE ...
        trainer: name of the method, unless the word TRAINER says it. kind: `place`, `classes` and `trained`.

    Raises:
        WrongCall: too few or too many words, or wrong ones. UserError: a run is to be tested that is not finished.
    """
    if trainer:
        usage = usage.replace("OPTIONS", " ".join(TRAINERS[trainer].arguments))
    words, pairs = read_words(script, usage, given)
    check_settings(settings)
    trainer = words.get("TRAINER") or trainer
    if trainer not in TRAINERS:
        raise WrongCall(f"TRAINER is '{trainer}', but must be {which_trainer(trainer)}")
    method = TRAINERS[trainer]
    for name in method.arguments:
        if name not in words:
            raise WrongCall(f"{script} does not take {name} of {trainer}: call the script that does")
    options = {name: word for name, word in words.items() if name in method.keys}
    return calls_of_method(settings, method, words, options, pairs, **kind)


def read_words(script, usage, given):
    """Check the words that a script was given: ({name: word}, KEY VALUE ...). `usage` is that of `calls_of_script`."""
    pairs, names = usage.endswith("...]"), re.sub(r"\[KEY.*|[][]", "", usage).split()
    least = len(usage.partition(" [")[0].split())
    if len(given) < least or len(given) > len(names) and not pairs:
        raise WrongCall(f"usage: sh {script} {usage}")
    check_words(**{f"an argument of {script}": given})
    words = dict(zip(names, given))
    if "SHOTS" in words:
        check_numbers("SHOTS", [words["SHOTS"]])
    for name in ("TASK", "MAX_TASK"):
        if words.get(name) == "all":
            del words[name]
        elif name in words and not re.fullmatch("[0-9]{1,3}", words[name]):
            raise WrongCall(f"{name} is '{words[name]}', but must be the number of a task, or all")
    return words, given[len(names):]


def calls_of_method(settings, trainer, words, options, pairs=(), place="", classes="all", trained=None):
    """The runs of a method, one for each of the shots and seeds: [arguments of `train.py`].

    Args:
        settings: see `check_settings`; its shots count if `words` has none.
        trainer: a class, whose `folder_name` has {SHOTS} and {SEED} if its runs depend on them.
        words: {name: text}: DATASET, CFG and SHOTS; TASK (the number of the only task), MAX_TASK (that of the last one)
            or TASKS (as DATASET.SUBSAMPLE_TASKS); CLASSES, which replaces `classes`; TARGET, the dataset of the test.
        options: {option of the method's node: value}. pairs: further KEY VALUE ...
        place: the folder of the runs in that of the dataset, with {name of a word}.
        classes: as DATASET.SUBSAMPLE_CLASSES.
        trained: (place of the runs whose models are tested, the script that trains them).

    Raises:
        UserError: a run is to be tested that is not finished.
    """
    tasks = words.get("TASKS", "all")
    if "TASK" in words:
        tasks = f"task{words['TASK']}"
    if "MAX_TASK" in words:
        tasks = ",".join(f"task{i}" for i in range(int(words["MAX_TASK"]) + 1))
    values = {**words, **options, "TRAINER": trainer.__name__, "MODEL": words["CFG"].split("_ep")[0], "SELECTED": tasks}
    filed = names_of_folders(words["CFG"], [*pairs, *settings.opts])
    name, calls = trainer.folder_name, []
    for shots, seed in itertools.product(
            [words["SHOTS"]] if "SHOTS" in words else settings.shots if "{SHOTS}" in name else [None],
            settings.seeds if "{SEED}" in name else ["1"]):
        values = {**values, "SHOTS": shots, "SEED": seed}
        call = ["--root", settings.root, "--output-dir", folder_of(settings, trainer, place, {**values, **filed}),
                "--trainer", trainer.__name__, "--seed", seed,
                "--dataset-config-file", f"configs/datasets/{words.get('TARGET', words['DATASET'])}.yaml",
                "--config-file", f"configs/trainers/{trainer.config.format(**values)}.yaml"]
        if trained:
            model = folder_of(settings, trainer, trained[0], {**values, **filed})
            if not osp.isfile(osp.join(model, RESULTS_FILE)):
                raise UserError(f"{model} is not finished: run {trained[1]} with the same arguments first")
            call += ["--eval-only", "--model-dir", model]
        keys = {"DATASET.NUM_SHOTS": shots, "DATASET.SUBSAMPLE_TASKS": tasks,
                "DATASET.SUBSAMPLE_CLASSES": words.get("CLASSES", classes)}
        keys = {key: value for key, value in keys.items() if value not in (None, "all")}
        keys.update({f"TRAINER.{trainer.node}.{option}": str(value) for option, value in options.items()})
        calls.append([*call, *itertools.chain(*keys.items()), *pairs, *settings.opts])
    return calls


def names_of_folders(cfg, pairs):
    """Return {"CFG", "MODEL"} as folders of runs name them, if KEY VALUE ... sets another backbone than CFG's; else {}.

    The backbone's own name takes the place of what stands before the schedule: CFG rn50_ep50 and the backbone ViT-B/32
    are filed as vit_b_32_ep50, as a weight file with its name alone.
    """
    backbone = dict(zip(pairs[::2], pairs[1::2])).get("MODEL.BACKBONE.NAME")
    if not backbone:
        return {}
    kind, _, rest = backbone.rpartition(":")
    path = osp.expanduser(rest)
    if kind == "local-dir" or not kind and osp.exists(path):
        rest = osp.basename(osp.abspath(path)) if osp.isdir(path) else osp.splitext(osp.basename(path))[0]
    name = re.sub("[^a-z0-9.]+", "_", rest.lower()).strip("_.")
    schedule = re.search(r"(^|_)(ep\d.*)", cfg)
    return {"CFG": f"{name}_{schedule[2] if schedule else cfg}", "MODEL": name}


def folder_of(settings, trainer, place, values):
    """The folder of a run: its method's `folder_name` in a place; `values` are {name: text}."""
    name = osp.join(place, trainer.folder_name)
    for part in re.findall(r"\[.*?\]", name):  # a part in brackets is left out if a value of it is not known
        known = set(re.findall("{(.*?)}", part)) <= {*values}
        name = name.replace(part, part[1:-1] if known else "")
    return f"{settings.output}/{values['DATASET']}/{name.format(**values)}"
