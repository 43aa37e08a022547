"""One training step: ours with cached image features, against the plain way and against its bare matrix products.

    python -m benchmarks.train_step [--cases nata:6:116,cata:6:116] [--arch RN50-quickgelu] [--batch 32]
                                    [--precision fp32] [--without-plain 1] [--without-products 1] [--chunk N]
                                    [--pairs 1]

`ours` is a whole step of the real trainer (scores, loss, backward pass, three or four optimizer steps). `plain` also
encodes the images of the batch, and all 77 positions of every prompt. `products` are the matrix products that no exact
step can avoid, on the rows that ours encodes: per row and block the four linear maps, forward and to their input (the
weights are frozen); after the last block's keys and values only [EOT]'s rows; the meta network forward, to its input
and to its weight. Attention's own products, norms, nonlinearities and the optimizer are not counted.
`--chunk` is MODEL.TEXT_CHUNK; `--pairs` gives the classes names of two words; `--precision` is PREC. On a GPU `GPU s`
is the time of a step's kernels, and `kernels` their number; only ours is a CUDA graph.
"""

import functools

import torch

import trainers.multitask
from runs.config import make_cfg
from runs.methods import TRAINERS

from .common import ENCODERS, device, gpu_work, made_up_tasks, main, measure, random_clip
from .plain import use_plain_encoder


def build_trainer(variant, tasks, arch, encoder, chunk, precision):
    """Build the trainer as `train.py` does, but without data and with random weights."""
    trainer_class = TRAINERS["MTCoOpHard" if variant == "coop" else "MTCoOp"]
    clip_model = random_clip(arch)
    trainers.multitask.load_clip = lambda cfg: clip_model
    if encoder == "plain":
        use_plain_encoder()
    torch.manual_seed(1)
    trainer = trainer_class(make_cfg({
        "TRAINER.NAME": trainer_class.__name__, f"TRAINER.{trainer_class.node}.PREC": precision,
        "TRAINER.MTCOOP.CSC": variant == "cata", "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002,
        "OPTIM.LR_SCHEDULER": "cosine", "DATALOADER.FEATURE_CACHE": False, "MODEL.TEXT_CHUNK": chunk,
        "MODEL.CUDA_GRAPH": "auto" if encoder == "ours" else False}), tasks)
    trainer.build_optimizer()
    return trainer


def products(trainer):
    """Return a function that computes the bare matrix products of a step, and their number of multiplications."""
    encoder, model = trainer.model.text_encoder, trainer.model
    width = encoder.width
    shapes = []  # (rows, in, out) of forward products; the one to the input has as many multiplications
    for name in ("task_prompts", "class_prompts", "prompt_learner", "prompts"):
        layout = getattr(getattr(model, name, None), "layout", None)
        if layout is None:
            continue
        rows, n = layout.n_prefixes * layout.prefix + len(layout.real), len(layout.eot_row)
        for block in range(len(encoder.blocks)):
            after = n if block == len(encoder.blocks) - 1 else rows
            shapes += [(rows, width, 3 * width), (after, width, width), (after, width, 4 * width),
                       (after, 4 * width, width)]
        shapes.append((n, width, encoder.output_dim))
    like = {"device": device(), "dtype": encoder.dtype}
    pairs = [(torch.randn(rows, a, **like), torch.randn(a, b, **like)) for rows, a, b in shapes]
    if hasattr(model, "prompt_gen"):
        n = len(model.classnames) if model.per_class else len(model.tasks)
        proj = model.prompt_gen.proj.detach().to(encoder.dtype)
        made, features = torch.randn(n, proj.shape[1], **like), torch.randn(n, proj.shape[0], **like)

    def compute():
        for x, w in pairs:
            y = x @ w
            y @ w.t()
        if hasattr(model, "prompt_gen"):
            features @ proj
            made @ proj.t()
            features.t() @ made

    return compute, 2 * sum(rows * a * b for rows, a, b in shapes)


def work(variant, tasks, classes, arch, encoder, batch, repeats, with_products, chunk, pairs, precision):
    trainer = build_trainer(variant, made_up_tasks(tasks, classes, pairs), arch, encoder, chunk, precision)
    model = trainer.model
    assert type(model.text_encoder) is ENCODERS[encoder]
    size = model.image_encoder.input_resolution
    images = torch.randn(batch, 3, size, size, device=device(), dtype=model.dtype)
    features = torch.randn(batch, model.text_encoder.output_dim, device=device(), dtype=model.dtype)
    labels = torch.arange(batch, device=device()) * classes // batch

    def step():
        given = features
        if encoder == "plain":
            with torch.no_grad():
                given = model.image_encoder(images)
        trainer.step(given, labels, trainer.repeats)

    seconds, memory = measure(step, repeats)
    result = {"seconds": seconds, "mb": memory / 2**20, "gpu": gpu_work(step)}
    if with_products:
        compute, multiplications = products(trainer)
        result["products"], result["gflop"] = measure(compute, repeats)[0], 2 * multiplications / 1e9
    return result


def bench(case, run, args):
    variant, tasks, classes = case.split(":")
    run = functools.partial(run, variant=variant, tasks=int(tasks), classes=int(classes), arch=args.arch,
                            batch=args.batch, repeats=args.repeats, chunk=args.chunk, pairs=bool(args.pairs),
                            precision=args.precision)
    ours = run(encoder="ours", with_products=not args.without_products)
    row = {"variant": variant, "tasks": int(tasks), "classes": int(classes), "s": ours["seconds"], **ours["gpu"],
           "MB": ours["mb"]}
    if not args.without_products:
        row |= {"GFLOP of products": ours["gflop"], "products s": ours["products"],
                "over products": ours["seconds"] / ours["products"]}
    if not args.without_plain:
        plain = run(encoder="plain", with_products=False)
        row |= {"plain s": plain["seconds"], **{f"plain {name}": value for name, value in plain["gpu"].items()},
                "plain MB": plain["mb"], "faster": plain["seconds"] / ours["seconds"]}
    return row


if __name__ == "__main__":
    main("benchmarks.train_step", work, bench, __doc__.splitlines()[0], cases="nata:6:116,cata:6:116",
         arch="RN50-quickgelu", batch=32, without_plain=0, without_products=0, chunk=0, pairs=0, precision="fp32")
