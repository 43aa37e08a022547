"""Text features and their gradients: shared prefixes and packed rows against 77 positions for every prompt.

    python -m benchmarks.text_encoder [--cases nata:6:116,nata:10:300,cata:6:116] [--arch RN50-quickgelu] [--compile 1]
                                      [--without-plain 1 | --limit-gb N] [--chunk N]

A case is VARIANT:TASKS:CLASSES[:POSITION]. Variants: `coop` (one context), `nata` (a context per task), `cata` (class
prompts and task prompts, then a context per class). A step computes all class features of the variant, with the task
and class features before them, forward and backward to the learned parameters. If the plain way does not fit into N GB,
the memory that its backward pass would need is counted. `--chunk` is MODEL.TEXT_CHUNK, -1 for the other ways; `slower`
is its (CPU) time over that of all prompts at once; the two take turns in one process.
"""

import functools
import statistics
import time

import torch

from runs.config import make_cfg
from trainers.mtcoop import SoftSharedCLIP
from trainers.mtcoop_hard import HardSharedCLIP
from trainers.text_encoder import kept_for_backward

from .common import ENCODERS, made_up_tasks, main, measure, random_clip


def build(variant, tasks, classes, position, arch, encoder, checkpoint, chunk):
    """Build the model of a variant with the encoder `ours` or `plain`."""
    clip_model = random_clip(arch)
    made_up = made_up_tasks(tasks, classes)
    torch.manual_seed(1)
    if variant == "coop":
        options = make_cfg({"TRAINER.MTCOOPH.TOKEN_POSITION": position}).TRAINER.MTCOOPH
        model = HardSharedCLIP(clip_model, made_up, options)
    else:
        options = {"TRAINER.MTCOOP.TOKEN_POSITION": position, "TRAINER.MTCOOP.CSC": variant == "cata"}
        model = SoftSharedCLIP(clip_model, made_up, make_cfg(options).TRAINER.MTCOOP)
    model.text_encoder = ENCODERS[encoder](clip_model)
    model.text_encoder.checkpoint, model.text_encoder.chunk = checkpoint, chunk
    del model.image_encoder
    return model.to(clip_model.positional_embedding.device)


def clock():
    """Return seconds: wall time after the GPU's work, or without a GPU the CPU time of this process."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def rows_encoded(prompts, encoder):
    """Count the positions that go through the blocks."""
    if encoder == "plain":
        return len(prompts) * 77
    n_prefixes = len(set(prompts.context_of.tolist())) if prompts.prefix > 1 else 1
    return int(n_prefixes * prompts.prefix + (prompts.lengths - prompts.prefix).sum())


def work(variant, tasks, classes, position, arch, encoder, repeats, checkpoint=False, count=False,
         compiled=False, chunk=-1):
    """Measure time, memory and rows of a step; with `count`, only the memory that its backward pass would need."""
    model = build(variant, tasks, classes, position, arch, encoder, checkpoint, chunk)
    if compiled:
        model.text_encoder.compile_blocks()
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = torch.randn(classes, model.text_encoder.output_dim, device=trained[0].device)

    def step():
        (model.class_features() * weights).sum().backward()
        for parameter in trained:
            parameter.grad = None

    sets = [getattr(model, name) for name in ("task_prompts", "class_prompts", "prompt_learner", "prompts")
            if hasattr(getattr(model, name, None), "prefix")]
    rows = sum(rows_encoded(prompts, encoder) for prompts in sets)
    if count:
        return {"mb": kept_for_backward(model.class_features, list(model.parameters())) / 2**20, "rows": rows}
    seconds, memory = measure(step, repeats)
    slower = []
    for _ in range(repeats if chunk > 0 else 0):  # taking turns, since other work on the machine comes and goes
        turns = []
        for model.text_encoder.chunk in (chunk, -1):
            start = clock()
            step()
            turns.append(clock() - start)
        slower.append(turns[0] / turns[1])
    return {"seconds": seconds, "mb": memory / 2**20, "rows": rows,
            "slower": statistics.median(slower) if slower else None}


def bench(case, run, args):
    variant, tasks, classes, *position = case.split(":")
    run = functools.partial(run, variant=variant, tasks=int(tasks), classes=int(classes),
                            position=(position or ["end"])[0], arch=args.arch, repeats=args.repeats)
    ways = {"": {}, "CHECKPOINT_TEXT ": {"checkpoint": True}}
    if args.chunk:
        ways["TEXT_CHUNK "] = {"chunk": args.chunk}
    if args.compile:
        ways["COMPILE "] = {"compiled": True}
    row = {"variant": variant, "tasks": int(tasks), "classes": int(classes), "position": (position or ["end"])[0]}
    for way, options in ways.items():
        measured = run(encoder="ours", **options)
        row |= {"rows": measured["rows"], f"{way}s": measured["seconds"], f"{way}MB": measured["mb"]}
        if "chunk" in options:
            row["slower"] = measured["slower"]
    if args.without_plain:
        return row
    plain = run(encoder="plain", limit_gb=args.limit_gb)
    if plain:
        return row | {"plain rows": plain["rows"], "plain s": plain["seconds"], "plain MB": plain["mb"],
                      "faster": plain["seconds"] / row["s"], "smaller": plain["mb"] / row["MB"]}
    counted = run(encoder="plain", count=True)
    return row | {"plain rows": counted["rows"], "plain MB":
                  f"did not fit {args.limit_gb} GB: keeps {counted['mb']:,.0f} for the backward pass"}


if __name__ == "__main__":
    main("benchmarks.text_encoder", work, bench, __doc__.splitlines()[0], cases="nata:6:116,nata:10:300,cata:6:116",
         arch="RN50-quickgelu", without_plain=0, limit_gb=0, compile=0, chunk=0)
