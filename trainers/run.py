"""One run, from its command line to its results."""

import os
import os.path as osp
import time

from common.errors import UserError
from dassl.utils import collect_env_info, set_random_seed
from runs.checkpoints import model_identity
from runs.config import check_unread, describe_changed, find_trainer, set_value, setup_cfg
from runs.folder import RunFolder
from runs.identity import ADDED_LATER, OF_TEST, check_model, reads
from runs.keys import all_keys
from runs.outcome import note_missing
from runs.results import print_results


def run(args):
    """Train or test as the command line says, unless the folder holds this run's results already: these are printed.

    Args:
        args: namespace of `runs.config.build_parser`.

    Returns:
        The trainer.

    Raises:
        UserError: flags, settings, data or weights that are wrong, or that do not fit what the folder holds.
    """
    start = time.monotonic()
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("torchrun starts several processes, but a run is one: call python train.py; sweep.py gives "
                        "each GPU runs of its own")
    cfg = setup_cfg(args)
    trainer_class = find_trainer(cfg)
    check_flags(args, cfg, trainer_class)
    with RunFolder(cfg.OUTPUT_DIR) as folder, folder.log() as log:
        if args.model_dir:
            trained_as = model_identity(args.model_dir, args.load_epoch)
            take_settings(cfg, {**ADDED_LATER, **trained_as} if trained_as else {}, args.model_dir)
        log.only(f"** Config **\n{cfg}\n** System info **\n{collect_env_info()}")
        print(f"Run {folder.path}: all settings are in its log.txt, those that are not the defaults are\n"
              f"{describe_changed(cfg)}")
        own = [key for key, source in cfg.sources.items() if source == f"in {cfg.TRAINER.NAME}'s own schedule"]
        if own:
            print(f"{', '.join(own)}: set by {cfg.TRAINER.NAME} itself, KEY VALUE pairs change them")
        check_unread(cfg, lambda key: reads(cfg, trainer_class, key))
        set_random_seed(cfg.SEED)
        trainer = trainer_class(cfg)
        if args.model_dir:
            if trained_as:
                check_model(trained_as, trainer.identity, args.model_dir)
            trainer.load_model(args.model_dir, args.load_epoch)
            trainer.model_digest = trainer.digest_of_learned()
        folder.check(trainer.identity)
        if folder.state() == "finished":
            print_results(folder.results(), folder.path)
            folder.finish()  # a kill may have come between its last two steps
            note_missing(cfg, trained=bool(trainer_class.saved_parts(cfg)) and not args.eval_only)
            return trainer
        log.begin()
        if args.no_train:
            if not args.eval_only:
                trainer.build_optimizer()
            return trainer
        if args.eval_only:
            trainer.test()
        else:
            trainer.train()
        trainer.write_results(wall_seconds=time.monotonic() - start,
                              model_dir=args.model_dir and osp.abspath(args.model_dir))
    return trainer


def check_flags(args, cfg, trainer_class):
    """Refuse flags that contradict each other or the method.

    Raises:
        UserError: with what to do.
    """
    name, saves = trainer_class.__name__, trainer_class.saved_parts(cfg)
    if not args.eval_only:
        for flag, value in (("--model-dir", args.model_dir), ("--load-epoch", args.load_epoch)):
            if value not in ("", None):
                raise UserError(f"{flag} {value} says which model is tested: it needs --eval-only")
    elif args.model_dir and not saves:
        raise UserError(f"--model-dir {args.model_dir}: {name} learns nothing that could be loaded, leave it out")
    elif saves and not args.model_dir:
        raise UserError(f"--eval-only tests what {name} has learned: give the folder of a trained run by --model-dir")
    if args.eval_only and cfg.RESUME:
        raise UserError(f"--resume {cfg.RESUME} goes on with training: it can't be given with --eval-only")


def take_settings(cfg, trained_as, model_dir):
    """Give `cfg` the settings that a model was trained with, where the call does not set them itself.

    Args:
        trained_as: the identity of the run that trained it, empty of a published checkpoint.
    """
    keys = all_keys()
    cfg.defrost()
    for key in keys:
        if key in trained_as and key not in cfg.sources and key != "TRAINER.NAME" and not key.startswith(OF_TEST):
            cfg.sources[key] = f"in the model {model_dir}"
            set_value(cfg, keys, key, trained_as[key], cfg.sources[key])
    cfg.freeze()
