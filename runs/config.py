"""The settings of a run: flags, yaml files and `KEY VALUE` pairs, each checked against its declaration."""

import argparse
import ast
import os
import os.path as osp
import random

import yaml

from common.errors import MissingFile, UserError
from common.names import did_you_mean, near

from .keys import all_keys, default_cfg, refusal, value_of
from .methods import TRAINERS, which_trainer

BASE = "_BASE_"  # a key of a yaml file: the path, relative to it, of another yaml file that it changes

FLAGS = {  # flag -> (key, help, arguments of argparse)
    "root": ("DATASET.ROOT", "folder of the datasets"),
    "output_dir": ("OUTPUT_DIR", "folder of the run: log, checkpoints, results.json"),
    "backbone": ("MODEL.BACKBONE.NAME", "CLIP model: a name of clip.available_models(), a weight file, a model's "
                 "folder, open_clip:ARCH/PRETRAINED or hf-hub:ORG/NAME"),
    "resume": ("RESUME", "folder of an unfinished run to go on from (default: output-dir)"),
    "seed": ("SEED", "random seed, 0 or more", {"type": int}),
    "source_domains": ("DATASET.SOURCE_DOMAINS", "Dassl's source domains", {"nargs": "+"}),
    "target_domains": ("DATASET.TARGET_DOMAINS", "Dassl's target domains", {"nargs": "+"}),
    "transforms": ("INPUT.TRANSFORMS", "data augmentation", {"nargs": "+"}),
    "trainer": ("TRAINER.NAME", "name of the trainer"),
    "head": ("MODEL.HEAD.NAME", "Dassl's head"),
    "old_data_path": ("DATALOADER.OLD_DATA_PATH", "a prefix of image paths ..."),
    "new_data_path": ("DATALOADER.NEW_DATA_PATH", "... and what to put in its place"),
}
MODEL = "best, last or the number of an epoch (default: best if the run kept one, else last)"


def build_parser():
    """The command line of `train.py`."""
    parser = argparse.ArgumentParser(description="Train or test one method once.")
    for flag, (_, text, *kind) in FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", help=text, **dict(*kind))
    parser.add_argument("--dataset-config-file", default="", help="config file of the dataset")
    parser.add_argument("--config-file", default="", help="config file of the trainer")
    parser.add_argument("--eval-only", action="store_true", help="test only")
    parser.add_argument("--model-dir", default="", help="folder of the run whose model is tested with --eval-only")
    parser.add_argument("--load-epoch", type=epoch_name, help=f"which model of that run: {MODEL}")
    parser.add_argument("--no-train", action="store_true", help="build everything, but don't train")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def add_run_flags(parser):
    """Add RUN and --epoch, which name the model of a finished run, to a parser."""
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--epoch", type=epoch_name, help=f"which model: {MODEL}")


def epoch_name(text):
    """Read a value of `--load-epoch`: "best", "last" or the number of an epoch."""
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} must be best, last or the number of an epoch")


def setup_cfg(args):
    """Defaults, the dataset's and the trainer's file, the method's own schedule, flags, `KEY VALUE` pairs; frozen.

    `cfg.sources` says where each value that is not a default was set, and `cfg.computed` lists the keys of the method's
    own schedule that are functions of the config, such as epochs by shots.

    Raises:
        MissingFile, UserError: a missing file, an unknown key, or a value that its key does not accept.
    """
    files = [*read_yaml(args.dataset_config_file), *read_yaml(args.config_file)]
    given = [(key, getattr(args, flag), f"by --{flag.replace('_', '-')}") for flag, (key, *_) in FLAGS.items()
             if getattr(args, flag) not in (None, "")]
    given += read_pairs(args.opts)
    cfg, computed = make_cfg([*files, *given]), []
    if cfg.TRAINER.NAME in TRAINERS and TRAINERS[cfg.TRAINER.NAME].optim:
        optim, source = TRAINERS[cfg.TRAINER.NAME].optim, f"in {cfg.TRAINER.NAME}'s own schedule"
        own = [(key, value(cfg) if callable(value) else value, source) for key, value in optim.items()]
        cfg = make_cfg([*files, *own, *given])
        computed = [key for key, value in optim.items() if callable(value) and cfg.sources[key] == source]
    cfg.__dict__["computed"] = computed  # beside the node's values, as `sources`
    cfg.defrost()
    if cfg.SEED < 0:
        cfg.SEED = random.SystemRandom().randrange(2**31)
        print(f"No seed was given: using --seed {cfg.SEED}")
    if cfg.DATASET.ROOT:
        cfg.DATASET.ROOT = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))  # results.json is read elsewhere, too
    cfg.freeze()
    return cfg


def make_cfg(settings):
    """A frozen config of {key: value}, or of [(key, value, where it was set)]; the last value of a key counts.

    Raises:
        UserError: an unknown key, or a value that its key does not accept.
    """
    if isinstance(settings, dict):
        settings = [(key, value, "by make_cfg") for key, value in settings.items()]
    cfg, keys, sources = default_cfg(), all_keys(), {}
    for key, value, source in settings:
        set_value(cfg, keys, key, value, source)
        sources[key] = source
    cfg.__dict__["sources"] = sources  # beside the node's values, which yacs would print
    cfg.freeze()
    return cfg


def set_value(cfg, keys, key, value, source):
    """Check a value and set it in `cfg`; errors name the key, the value, what the key accepts, and `source`."""
    if key not in keys:
        raise UserError(f"there is no config key {key} (set {source})"
                        f"{did_you_mean(near(key, keys)) or ', see docs/keys.md for all'}")
    if value is None:
        raise UserError(f"{key} has no value (set {source}): give it one, or leave it out for its default "
                        f"{keys[key].default!r}")
    try:
        value = keys[key].check(value)
    except ValueError as error:
        raise UserError(f"{key} is {value!r} (set {source}), but {error}") from None
    *parents, last = key.split(".")
    for parent in parents:
        cfg = cfg[parent]
    cfg[last] = value


def read_pairs(words):
    """Read the command line's `KEY VALUE ...`: [(key, value, source)]; values become Python's if they can.

    Raises:
        UserError: a key without a value, or a flag in the place of a key.
    """
    for word in words[::2]:
        if word.startswith("--"):
            raise UserError(f"{word} stands after the KEY VALUE pairs, but flags stand before them: put it in front of "
                            f"{words[0]}")
    if len(words) % 2:
        raise UserError(f"the config overrides must be KEY VALUE pairs, but {words[-1]} has no value: "
                        "check the end of the command line")
    keys = all_keys()
    return [(key, word if key in keys and keys[key].accepts is str else as_python(word), "on the command line")
            for key, word in zip(words[::2], words[1::2])]


def as_python(text):
    """Read a value of the command line, or a yaml text, such as "(224, 224)", "1e-3", "True" or "cosine"."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def read_yaml(path, above=()):
    """Read a yaml file: [(key, value, source)], first those of its `_BASE_`; it is a base of the files `above`.

    Raises:
        MissingFile, UserError: the file is missing or not YAML, sets a key twice, holds something else than keys and
            values, or its `_BASE_` is no path or leads back to the file.
    """
    if not path:
        return []
    if not osp.isfile(path):
        raise MissingFile(f"the config file {path} does not exist{did_you_mean(near_files(path))}")
    if not path.endswith((".yaml", ".yml")):
        raise UserError(f"the config file {path} must be .yaml (files of Python are not executed)")
    try:
        with open(path, encoding="utf-8") as f:
            root = yaml.compose(f, Loader=yaml.SafeLoader)
        settings = list(_leaves(root, path)) if root is not None else []
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # the last where it refers to itself
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend it") from None
    above = *above, osp.realpath(path)
    found = []
    for key, value, source in settings:
        if key != BASE:
            found.append((key, value, source))
            continue
        base = osp.join(osp.dirname(path), value) if value and isinstance(value, str) else ""
        if not base or osp.realpath(base) in above:
            raise UserError(f"{BASE} is {value!r} (set {source}), but must be the path of another yaml file"
                            + (" that does not lead back to itself" if base else ""))
        found = [*read_yaml(base, above), *found]
    return found


def near_files(path):
    """Return the yaml files beside a missing one whose names are like its own."""
    folder, name = osp.split(path)
    files = os.listdir(folder) if osp.isdir(folder) else []
    stems = [osp.splitext(file)[0] for file in sorted(files) if file.endswith(".yaml")]
    return [osp.join(folder, f"{stem}.yaml") for stem in near(osp.splitext(name)[0], stems)]


def _leaves(node, path, prefix=""):
    """Yield (key, value, source) of a composed yaml mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:{node.start_mark.line + 1} must hold keys and values ({prefix or 'the whole file'})")
    seen = {}
    for name, value in node.value:
        key, line = prefix + str(name.value), name.start_mark.line + 1
        if key in seen:
            raise UserError(f"{path}:{line} sets {key} again, line {seen[key]} did before: keep one of them")
        seen[key] = line
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, path, f"{key}.")
        else:
            plain = yaml.SafeLoader("").construct_object(value, deep=True)
            # YAML reads "(64, 64)" and "1e-5" as texts
            quoted = isinstance(value, yaml.ScalarNode) and value.style is not None
            plain = as_python(plain) if isinstance(plain, str) and not quoted else plain
            yield key, plain, f"in {path}:{line}"


def describe_changed(cfg):
    """Return a line "  KEY: value" for each key that has another value than its default, in the order of the docs."""
    return "\n".join(f"  {name}: {value_of(cfg, name)}" for name, key in all_keys().items()
                     if value_of(cfg, name) != key.default)


def check_unread(cfg, reads):
    """Print a line for each key of the command line that is not read; `reads` is a function of the key."""
    for key, source in getattr(cfg, "sources", {}).items():
        if not source.startswith("in ") and not reads(key):
            print(f"{key} is set {source}, but {cfg.TRAINER.NAME} does not read it here")


def find_trainer(cfg):
    """The class that TRAINER.NAME names.

    Raises:
        UserError: there is no such class.
    """
    if cfg.TRAINER.NAME not in TRAINERS:
        raise refusal(cfg, "TRAINER.NAME", f"must be {which_trainer(cfg.TRAINER.NAME)}")
    return TRAINERS[cfg.TRAINER.NAME]
