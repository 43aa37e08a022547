"""One run: config files and flags -> trainer -> training and test.

    python train.py --root DATA --trainer MTCoOp --dataset-config-file configs/datasets/shapes8.yaml \
        --config-file configs/trainers/MTCoOp/tiny_ep50.yaml --output-dir output/run DATASET.NUM_SHOTS 8
"""

import argparse
import contextlib
import os
import random
import sys
import time

from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the trainers
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger


def extend_cfg(cfg):
    """Add this project's keys to Dassl's."""
    cfg.TRAINER.MTCOOPH = CN()
    cfg.TRAINER.MTCOOPH.PREC = "fp16"  # fp16, fp32, bf16, amp, fp64
    cfg.TRAINER.MTCOOPH.N_CTX = 16  # number of context vectors
    cfg.TRAINER.MTCOOPH.CSC = False  # class-specific context
    cfg.TRAINER.MTCOOPH.TSC = False  # task-specific context
    cfg.TRAINER.MTCOOPH.CTX_INIT = ""  # words to start from; their number is then the context length
    cfg.TRAINER.MTCOOPH.TOKEN_POSITION = "end"  # where the context goes: end (of the prefix), middle, front (of it)

    cfg.TRAINER.MTCOOP = CN()
    cfg.TRAINER.MTCOOP.PREC = "fp16"
    # class prompts: contexts for class features (read with CSC only)
    cfg.TRAINER.MTCOOP.CLASS_N_CTX = 16
    cfg.TRAINER.MTCOOP.CLASS_CSC = False
    cfg.TRAINER.MTCOOP.CLASS_CTX_INIT = ""
    cfg.TRAINER.MTCOOP.CLASS_TOKEN_POSITION = "end"
    cfg.TRAINER.MTCOOP.FREEZE_CLS_PROMPT = False
    # task prompts: contexts for task features
    cfg.TRAINER.MTCOOP.TASK_N_CTX = 16
    cfg.TRAINER.MTCOOP.TASK_CSC = False
    cfg.TRAINER.MTCOOP.TASK_CTX_INIT = ""
    cfg.TRAINER.MTCOOP.TASK_TOKEN_POSITION = "end"
    # final prompts: contexts made by the meta network, one per task or, with CSC, per class
    cfg.TRAINER.MTCOOP.N_CTX = 16
    cfg.TRAINER.MTCOOP.CTX_INIT = ""  # only the number of its tokens counts, as the context length
    cfg.TRAINER.MTCOOP.CSC = False
    cfg.TRAINER.MTCOOP.TOKEN_POSITION = "end"
    cfg.TRAINER.MTCOOP.PG_TYPE = "lin"  # lin, linmean, lincls
    cfg.TRAINER.MTCOOP.PG_RATIO = 1.0  # accepted as in the published commands; no PG_TYPE reads it
    cfg.TRAINER.MTCOOP.CLS_SAMPLE_RATE = 0.0  # share of the negative classes in a training step; 0: all

    cfg.TRAINER.KGCOOP = CN()
    cfg.TRAINER.KGCOOP.PREC = "fp16"
    cfg.TRAINER.KGCOOP.N_CTX = 4  # if CTX_INIT is empty
    cfg.TRAINER.KGCOOP.CTX_INIT = "a photo of a"
    cfg.TRAINER.KGCOOP.W = 8.0  # weight of the distance from the zero-shot text features

    cfg.TRAINER.PROGRAD = CN()
    cfg.TRAINER.PROGRAD.PREC = "fp16"
    cfg.TRAINER.PROGRAD.N_CTX = 16
    cfg.TRAINER.PROGRAD.CTX_INIT = ""
    cfg.TRAINER.PROGRAD.LAMBDA = 1.0  # share of the conflicting component that is taken from a gradient
    cfg.TRAINER.PROGRAD.T = 1.0  # temperature of the zero-shot teacher's prediction

    cfg.TRAINER.COCOOP = CN()
    cfg.TRAINER.COCOOP.PREC = "fp16"
    cfg.TRAINER.COCOOP.N_CTX = 4  # if CTX_INIT is empty
    cfg.TRAINER.COCOOP.CTX_INIT = "a photo of a"
    cfg.TRAINER.COCOOP.MAX_PROMPTS = 1024  # (image, class) prompts encoded at once: bounds memory, changes no result

    cfg.TRAINER.PLOT = CN()
    cfg.TRAINER.PLOT.PREC = "fp16"
    cfg.TRAINER.PLOT.N = 4  # prompts per class
    cfg.TRAINER.PLOT.N_CTX = 16
    cfg.TRAINER.PLOT.EPS = 0.1  # weight of the plan's entropy
    cfg.TRAINER.PLOT.MAX_ITER = 100  # most of Sinkhorn's iterations

    cfg.TRAINER.PROTONET = CN()
    cfg.TRAINER.PROTONET.PREC = "fp16"
    cfg.TRAINER.PROTONET.DIM = 0  # of the embedding; 0: the image features themselves, nothing is learned
    # Episodes that the embedding is learned on. A task that has less gives smaller ones, see trainers/protonet.py.
    cfg.TRAINER.PROTONET.EPISODES = 1000  # in the whole run
    cfg.TRAINER.PROTONET.WAY = 5  # classes of an episode
    cfg.TRAINER.PROTONET.SHOT = 5  # support images per class
    cfg.TRAINER.PROTONET.QUERY = 15  # query images per class

    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base, new
    cfg.DATASET.SUBSAMPLE_TASKS = "all"  # all, base, new, task<i>, or several: task<i>,task<j>
    cfg.DATASET.SPLIT_DIR = ""  # where splits and few-shot draws are stored; "": split_fewshot in the dataset's folder
    cfg.DATALOADER.OLD_DATA_PATH = ""  # a prefix of image paths ...
    cfg.DATALOADER.NEW_DATA_PATH = ""  # ... and what to put in its place
    cfg.DATALOADER.FEATURE_CACHE = True  # keep image features on disk; changes no result
    cfg.DATALOADER.FEATURE_CACHE_DIR = ""  # where; "": ~/.cache/softcpt/features
    cfg.MODEL.CHECKPOINT_TEXT = False  # recompute the text encoder's activations: less memory, a third more time
    cfg.MODEL.COMPILE = False  # torch.compile the text encoder's blocks: the first step takes half a minute
    cfg.OPTIM.STEP_PER_PART = True  # step optimizer and scheduler once per trained part (published code), or once
    cfg.TEST.EVALUATOR = "ClassificationMT"
    cfg.TEST.PER_TASK_RESULT = True


def reset_cfg(cfg, args):
    """Overwrite config values by the flags that were given."""
    flags = {
        "DATASET.ROOT": args.root, "OUTPUT_DIR": args.output_dir, "RESUME": args.resume, "SEED": args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains, "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms, "TRAINER.NAME": args.trainer, "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head, "DATALOADER.OLD_DATA_PATH": args.old_data_path,
        "DATALOADER.NEW_DATA_PATH": args.new_data_path,
    }
    for key, value in flags.items():
        if value is not None and value != "":
            cfg.merge_from_list([key, tuple(value) if isinstance(value, list) else value])


def setup_cfg(args):
    """Defaults, then the dataset's and the trainer's file, then flags, then `KEY VALUE` pairs; frozen.

    Raises:
        ValueError, FileNotFoundError: a missing file, an unknown key or a value of the wrong type.
    """
    cfg = get_cfg_default()
    extend_cfg(cfg)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            if not os.path.isfile(path):
                raise FileNotFoundError(f"the config file {path} does not exist")
            merge(path, lambda path=path: cfg.merge_from_file(path))
    reset_cfg(cfg, args)
    merge("the command line", lambda: merge_overrides(cfg, args.opts))
    if cfg.SEED < 0:
        cfg.SEED = random.SystemRandom().randrange(2**31)
        print(f"No seed was given: using --seed {cfg.SEED}")
    cfg.freeze()
    return cfg


def merge_overrides(cfg, pairs):
    """Merge [KEY, VALUE, ...], taking 1 for 1.0 and 0 or 1 for a switch, which yacs would refuse."""
    pairs = list(pairs)
    for i, (key, value) in enumerate(zip(pairs[::2], pairs[1::2])):
        node = cfg
        for name in key.split("."):
            node = node.get(name) if isinstance(node, CN) else None
        if isinstance(node, bool) and str(value) in ("0", "1"):
            pairs[2 * i + 1] = str(value) == "1"
        elif isinstance(node, float) and str(value).lstrip("-").isdigit():
            pairs[2 * i + 1] = float(value)
    cfg.merge_from_list(pairs)


def merge(source, change):
    """Run `change`, which merges `source` into a config, turning yacs's errors into one clear sentence."""
    try:
        change()
    except KeyError as error:
        raise ValueError(f"{source}: {str(error.args[0]).replace('Non-existent key', 'unknown config key')}, "
                         "see extend_cfg in train.py and dassl/config/defaults.py for the known ones") from None
    except AssertionError as error:
        raise ValueError(f"{source}: {error.args[0] if error.args else 'overrides must be KEY VALUE pairs'}; "
                         "check the spelling of the config key") from None
    except Exception as error:  # yacs, yaml
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from None


def build_parser():
    parser = argparse.ArgumentParser(description="Train or test one method once.")
    parser.add_argument("--root", default="", help="folder of the datasets")
    parser.add_argument("--output-dir", default="", help="folder of the run: log, checkpoints, results.json")
    parser.add_argument("--resume", default="", help="folder of an unfinished run to go on from (default: output-dir)")
    parser.add_argument("--seed", type=int, help="random seed, 0 or more")
    parser.add_argument("--source-domains", nargs="+", help="Dassl's source domains")
    parser.add_argument("--target-domains", nargs="+", help="Dassl's target domains")
    parser.add_argument("--transforms", nargs="+", help="data augmentation")
    parser.add_argument("--config-file", default="", help="config file of the trainer")
    parser.add_argument("--dataset-config-file", default="", help="config file of the dataset")
    parser.add_argument("--trainer", default="", help="name of the trainer")
    parser.add_argument("--backbone", default="", help="CLIP model: a name of clip.available_models(), a .pt or "
                        ".safetensors file, local-dir:PATH, or open_clip:ARCH/PRETRAINED")
    parser.add_argument("--head", default="", help="Dassl's head")
    parser.add_argument("--eval-only", action="store_true", help="test only")
    parser.add_argument("--model-dir", default="", help="folder of the run whose model is tested with --eval-only")
    parser.add_argument("--load-epoch", type=int, help="epoch of that model (default: the last)")
    parser.add_argument("--no-train", action="store_true", help="build everything, but don't train")
    parser.add_argument("--old-data-path", default="", help="a prefix of image paths ...")
    parser.add_argument("--new-data-path", default="", help="... and what to put in its place")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def run(args):
    """Set up and do what the flags say; returns the trainer."""
    start = time.time()
    cfg = setup_cfg(args)
    set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    print(f"** Config **\n{cfg}\n** System info **\n{collect_env_info()}")
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    elif not args.no_train:
        trainer.train()
    else:
        return trainer
    trainer.write_results(wall_seconds=time.time() - start, model_dir=args.model_dir if args.eval_only else "")
    return trainer


def one_sentence(error):
    """The message of an error; one raised in a data loader's worker comes wrapped in that worker's traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].split(": ", 1)[-1]
    return " ".join(line.strip() for line in lines)


@contextlib.contextmanager
def errors_in_one_sentence():
    """End the program with the message of an error that a user can mend, instead of a traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("SOFTCPT_TRACEBACK"):
            raise
        sys.stdout.flush()
        sys.exit(f"error: {one_sentence(error)} (SOFTCPT_TRACEBACK=1 shows where)")


def main():
    args = build_parser().parse_args()
    with errors_in_one_sentence():
        run(args)


if __name__ == "__main__":
    main()
