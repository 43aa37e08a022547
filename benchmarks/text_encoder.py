"""Text features and their gradients: shared prefixes and packed rows against 77 positions for every prompt.

    python -m benchmarks.text_encoder [--cases nata:6:116,nata:10:300,cata:6:116] [--arch RN50-quickgelu] [--compile 1]
                                      [--without-plain 1 | --limit-gb N] [--chunk N]

A case is VARIANT:TASKS:CLASSES[:POSITION]. Variants: `coop` (one context), `nata` (a context per task), `cata` (class
prompts and task prompts, then a context per class). The step is all class features of the variant, with the task and
class features that they are made from, forward and backward to what is learned. Where the plain way does not fit into
N GB, what it would keep for its backward pass is counted. `--chunk` is MODEL.TEXT_CHUNK,
-1 for the other ways; `slower` is its (CPU) time over that of all at once, taking turns in one process.
"""

import statistics
import time

import torch

from runs.config import make_cfg
from trainers.mtcoop import SoftSharedCLIP
from trainers.mtcoop_hard import HardSharedCLIP
from trainers.text_encoder import kept_for_backward

from .common import ENCODERS, in_own_process, made_up_tasks, main, measure, random_clip


def build(variant, tasks, classes, position, arch, encoder, checkpoint, chunk):
    """The model of a variant with the encoder `ours` or `plain`."""
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
    """Seconds of the GPU's work, or else of all threads of this process alone."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def rows_encoded(prompts, encoder):
    """Positions that go through the blocks."""
    if encoder == "plain":
        return len(prompts) * 77
    n_prefixes = len(set(prompts.context_of.tolist())) if prompts.prefix > 1 else 1
    return int(n_prefixes * prompts.prefix + (prompts.lengths - prompts.prefix).sum())


def work(variant, tasks, classes, position, arch, encoder, repeats, checkpoint=False, count=False,
         compiled=False, chunk=-1):
    """Time, memory and rows of a step; with `count`, instead of doing it, what it would keep for its backward pass."""
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


def bench(args):
    rows = []
    for case in args.cases.split(","):
        variant, tasks, classes, *position = case.split(":")
        given = dict(variant=variant, tasks=int(tasks), classes=int(classes), position=(position or ["end"])[0],
                     arch=args.arch, repeats=args.repeats)
        chunked = None if not args.chunk else in_own_process(
            "benchmarks.text_encoder", encoder="ours", chunk=args.chunk, **given)
        ours = in_own_process("benchmarks.text_encoder", encoder="ours", **given)
        recomputed = in_own_process("benchmarks.text_encoder", encoder="ours", checkpoint=True, **given)
        plain = None if args.without_plain else in_own_process(
            "benchmarks.text_encoder", encoder="plain", limit_gb=args.limit_gb, **given)
        row = {"variant": variant, "tasks": int(tasks), "classes": int(classes), "position": given["position"],
               "rows": ours["rows"], "s": ours["seconds"], "MB": ours["mb"], "CHECKPOINT_TEXT s": recomputed["seconds"],
               "CHECKPOINT_TEXT MB": recomputed["mb"]}
        if chunked:
            row |= {"TEXT_CHUNK s": chunked["seconds"], "TEXT_CHUNK MB": chunked["mb"],
                    "slower": chunked["slower"]}
        if args.compile:
            compiled = in_own_process("benchmarks.text_encoder", encoder="ours", compiled=True, **given)
            row |= {"COMPILE s": compiled["seconds"], "COMPILE MB": compiled["mb"]}
        if not plain and not args.without_plain:
            counted = in_own_process("benchmarks.text_encoder", encoder="plain", count=True, **given)
            row |= {"plain rows": counted["rows"],
                    "plain MB": f"did not fit {args.limit_gb} GB: keeps {counted['mb']:,.0f} for the backward pass"}
        if plain:
            row |= {"plain rows": plain["rows"], "plain s": plain["seconds"], "plain MB": plain["mb"],
                    "faster": plain["seconds"] / ours["seconds"], "smaller": plain["mb"] / ours["mb"]}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main("benchmarks.text_encoder", work, bench, __doc__.splitlines()[0], cases="nata:6:116,nata:10:300,cata:6:116",
         arch="RN50-quickgelu", without_plain=0, limit_gb=0, compile=0, chunk=0)
