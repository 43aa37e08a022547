"""A training step of CoCoOp, whose prompts differ from image to image: ours against 77 positions for every prompt.

    python -m benchmarks.cocoop [--tasks 6] [--classes 116] [--batch 32] [--arch RN50-quickgelu]

Both are a whole step of the real trainer on given image features: per image the prompts of its own task's classes,
loss, backward pass, optimizer step. `plain` encodes all 77 positions of each (image, class) prompt, in pieces of
`--plain-prompts`, since it would need too much memory for all at once, and is measured `--plain-repeats` times after
one more (0: that one counts). `test images/s` is ours without gradients.
"""

import torch

from .common import device, in_own_process, made_up_tasks, main, measure
from .train_step import build_trainer


def work(tasks, classes, batch, arch, encoder, max_prompts, repeats):
    trainer = build_trainer("cocoop", made_up_tasks(tasks, classes), arch, encoder,
                            {"TRAINER.COCOOP.MAX_PROMPTS": max_prompts})
    model = trainer.model
    features = torch.randn(batch, model.text_encoder.output_dim, device=device())
    labels = torch.arange(batch, device=device()) * classes // batch
    seconds, memory = measure(lambda: trainer.step(features, labels, trainer.repeats), repeats)
    own = model.in_own_task(labels)  # (batch, classes)
    lengths = model.prompts.lengths.expand_as(own)[own]  # (prompts,)
    prefix = model.prompts.prefix
    result = {"seconds": seconds, "mb": memory / 2**20, "prompts": len(lengths),
              "rows": len(lengths) * 77 if encoder == "plain" else int(batch * prefix + (lengths - prefix).sum())}
    if encoder == "ours":
        with torch.no_grad():
            result["test"] = measure(lambda: model.logits(features, labels), repeats)[0]
    return result


def bench(args):
    given = dict(tasks=args.tasks, classes=args.classes, batch=args.batch, arch=args.arch)
    ours = in_own_process("benchmarks.cocoop", encoder="ours", max_prompts=args.max_prompts, repeats=args.repeats,
                          **given)
    plain = in_own_process("benchmarks.cocoop", encoder="plain", max_prompts=args.plain_prompts,
                           repeats=args.plain_repeats, **given)
    return [{"tasks": args.tasks, "classes": args.classes, "batch": args.batch, "prompts": ours["prompts"],
             "rows": ours["rows"], "plain rows": plain["rows"], "s": ours["seconds"], "MB": ours["mb"],
             "plain s": plain["seconds"], "plain MB": plain["mb"], "faster": plain["seconds"] / ours["seconds"],
             "test images/s": args.batch / ours["test"]}]


if __name__ == "__main__":
    main("benchmarks.cocoop", work, bench, __doc__.splitlines()[0], tasks=6, classes=116, batch=32,
         arch="RN50-quickgelu", max_prompts=1024, plain_prompts=64, plain_repeats=0)
