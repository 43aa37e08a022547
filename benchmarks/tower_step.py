"""One training step of the methods inside the towers: ours against the plain way.

    python -m benchmarks.tower_step [--cases VPT,IVLP,MaPLe,PromptSRC,CLIPLoRA,TCP,DePT] [--arch ViT-B-32-quickgelu]
                                    [--classes 30] [--tasks 4] [--batch 4]

`plain` encodes all 77 positions of every prompt, as the published code does, and the images of a batch also where a
method leaves the image tower alone (TCP, DePT). Weights and images are random.
"""

import functools

import torch

import trainers.multitask
from runs.config import make_cfg
from runs.methods import TRAINERS

from .common import ENCODERS, device, gpu_work, made_up_tasks, main, measure, random_clip
from .plain import use_plain_encoder


def work(method, arch, tasks, classes, batch, repeats, encoder):
    clip_model = random_clip(arch)
    trainers.multitask.load_clip = lambda cfg: clip_model
    if encoder == "plain":
        use_plain_encoder()
    torch.manual_seed(1)
    trainer_class = TRAINERS[method]
    trainer = trainer_class(make_cfg({
        "TRAINER.NAME": method, f"TRAINER.{trainer_class.node}.PREC": "fp32", "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002,
        "DATALOADER.FEATURE_CACHE": False, "MODEL.CUDA_GRAPH": "auto" if encoder == "ours" else False}),
        made_up_tasks(tasks, classes))
    trainer.prepare()
    model = trainer.model
    assert type(model.text_encoder) is ENCODERS[encoder]
    size = model.image_encoder.input_resolution
    images, labels = torch.randn(batch, 3, size, size, device=device()), torch.arange(batch, device=device())
    labels = labels * classes // batch
    # As `build_optimizer` does, without the images that some schedules ask for.
    trainer.trained, trainer.waiting = [value for value in model.parameters() if value.requires_grad], {}
    trainer.optimizer, trainer.graph = torch.optim.SGD(trainer.trained, lr=0.002), trainer.make_graph()
    features = torch.randn(batch, model.text_encoder.output_dim, device=device())

    def step():
        given = images if trainer.learns_images else features
        if encoder == "plain" and not trainer.learns_images:
            with torch.no_grad():
                given = model.image_encoder(images)
        trainer.step(given, labels, 1)

    seconds, memory = measure(step, repeats)
    return {"seconds": seconds, "mb": memory / 2**20, "gpu": gpu_work(step)}


def bench(case, run, args):
    run = functools.partial(run, method=case, arch=args.arch, tasks=args.tasks, classes=args.classes, batch=args.batch,
                            repeats=args.repeats)
    ours, plain = run(encoder="ours"), run(encoder="plain")
    return {"method": case, "s": ours["seconds"], **ours["gpu"], "MB": ours["mb"], "plain s": plain["seconds"],
            **{f"plain {name}": value for name, value in plain["gpu"].items()}, "plain MB": plain["mb"],
            "faster": plain["seconds"] / ours["seconds"]}


if __name__ == "__main__":
    main("benchmarks.tower_step", work, bench, __doc__.splitlines()[0],
         cases="VPT,IVLP,MaPLe,PromptSRC,CLIPLoRA,TCP,DePT", arch="ViT-B-32-quickgelu", tasks=4, classes=30, batch=4)
