"""Train `tiny`, a small CLIP in OpenAI's architecture, on rendered scenes and their captions.

    python -m outfits.train_tiny_clip [--vision vit --lr 0.002 --steps 2500 --out FOLDER]

With its defaults it made `clip/tiny.safetensors` (the backbone `tiny`) on two CPU cores, without any download. A vision
transformer is written as a folder with its config (the backbone `local-dir:FOLDER`). The suite Outfits16 has other
seeds than its scenes. Rendering and the order of the batches depend on `--seed` alone; the weights also on the number
of threads and on PyTorch's version.
"""

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import _tokenizer as clip_tokenizer
from open_clip.transform import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch.nn import functional as F

from common.files import atomic_path, write_json

from .captions import caption, framed, statement, topic
from .render import SIZE, render
from .scenes import ASPECTS, USUAL, VALUES, Style, random_chances, random_scene

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY, POSITIONS = 49408, 77  # of CLIP's tokenizer and of OpenAI's text tower
PAD, SOS, EOT = 0, VOCABULARY - 2, VOCABULARY - 1
CAPTION_TOKENS = 40  # longest caption with SOS and EOT; longer ones are cut
EMBED_DIM = 128
VISIONS = {"resnet": {"layers": (1, 1, 1, 1), "width": 8, "patch_size": None, "image_size": SIZE},
           "vit": {"layers": 4, "width": 96, "head_width": 32, "patch_size": 8, "image_size": SIZE}}
TEXT = {"width": 64, "heads": 1, "layers": 4}
CHUNK = 1000  # scenes rendered by one call
CAPTIONS = 4  # captions of a scene
BATCH = 256  # scenes a step
WARMUP_STEPS, LR, WEIGHT_DECAY = 100, 4e-3, 0.05
ASPECT_WEIGHT = 2.0  # of the three losses beside CLIP's
STYLE = Style(gain=(0.8, 1.15), gamma=(0.9, 1.2), tint=0.12, saturation=(0.7, 1.1), noise=(0.0, 0.05),
              blur=(0.0, 0.15), shadow=(0.0, 0.2))
CONTRASTS = 500  # wordings of the hard negatives
FEW = 6  # most aspects that stand out in a scene that names alone describe
LOOKS = [tuple(dict.fromkeys((USUAL[attribute], *VALUES[attribute]))) for _, attribute in ASPECTS]  # of every aspect
MAX_LOGIT_SCALE = math.log(100)


def parse_args():
    parser = argparse.ArgumentParser("python -m outfits.train_tiny_clip", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "clip" / "tiny.safetensors",
                        help="file to write, of vit a folder")
    parser.add_argument("--vision", choices=VISIONS, default="resnet", help="image tower (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=60_000, help=f"multiple of {CHUNK}, 25 KB of memory each")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=LR, help="highest rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and processes that render")
    return parser.parse_args()


encode_word = lru_cache(maxsize=None)(clip_tokenizer.encode)


def tokenize(text):
    """Return the tokens (CAPTION_TOKENS,), uint16, of a caption with spaces between its words."""
    tokens = [token for word in text.split() for token in encode_word(word)][:CAPTION_TOKENS - 2]
    row = np.full(CAPTION_TOKENS, PAD, np.uint16)
    row[:len(tokens) + 2] = [SOS, *tokens, EOT]
    return row


def make_contrasts(count, seed):
    """Make texts that differ in one thing alone, the hard negatives of the training.

    Returns:
        tokens of values (count, sum of the aspects' numbers of values, CAPTION_TOKENS) and of aspects without a value
        (count, aspects, CAPTION_TOKENS), int64; what surrounds them is the same for all values of an aspect, and for
        all aspects.
    """
    rng = np.random.RandomState((seed, 2**31))
    values, names = [], []
    for _ in range(count):
        values.append([tokenize(wording.format(value)) for aspect in ASPECTS
                       for wording in [framed(statement(aspect, rng), rng)] for value in VALUES[aspect[1]]])
        around = framed("{}", rng)
        names.append([tokenize(around.format(topic(aspect, rng))) for aspect in ASPECTS])
    return [torch.from_numpy(np.array(rows).astype(np.int64)) for rows in (values, names)]


def make_chunk(chunk, seed):
    """Render CHUNK scenes from number `chunk * CHUNK` on.

    Returns:
        images (CHUNK, SIZE, SIZE, 3) uint8, tokens (CHUNK, CAPTIONS, CAPTION_TOKENS) uint16 and the index of every
        aspect's value (CHUNK, aspects) int64.
    """
    rng = np.random.RandomState((seed, chunk))
    images, tokens, values = [], [], []
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        scene = random_scene(rng, number, random_chances(rng))  # numbers stay below 2**31, the first seed of Outfits16
        images.append(render(scene, STYLE))
        tokens.append([tokenize(caption(scene, rng)) for _ in range(CAPTIONS)])
        values.append([looks.index(scene.looks[aspect]) for aspect, looks in zip(ASPECTS, LOOKS)])
    return np.stack(images), np.array(tokens), np.array(values)


def make_scenes(args):
    """Render all scenes: images (N, 3, SIZE, SIZE) uint8, tokens (N, CAPTIONS, CAPTION_TOKENS), values (N, aspects)."""
    print(f"rendering {args.scenes:,} scenes", flush=True)
    with ProcessPoolExecutor(args.threads) as pool:
        chunks = pool.map(partial(make_chunk, seed=args.seed), range(args.scenes // CHUNK))
        images, tokens, values = map(np.concatenate, zip(*chunks))
    tokens = torch.from_numpy(tokens.astype(np.int64))
    return torch.from_numpy(images).permute(0, 3, 1, 2), tokens, torch.from_numpy(values)


def encode_text(model, tokens):
    """Return features (N, EMBED_DIM) of tokens (N, CAPTION_TOKENS).

    Captions of similar length go together, each group computed up to its longest one only: the attention is causal
    and the feature is read at EOT, so the numbers are the same as with all positions.
    """
    lengths = tokens.argmax(dim=1) + 1
    order = lengths.argsort()
    features = []
    for rows in order.chunk(4):
        length = int(lengths[rows[-1]])
        part = tokens[rows, :length]  # (n, L)
        x = model.token_embedding(part) + model.positional_embedding[:length]  # (n, L, width)
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        features.append(model.ln_final(x)[torch.arange(len(x)), part.argmax(dim=1)])  # (n, width), at EOT
    return torch.cat(features)[order.argsort()] @ model.text_projection


def contrastive_loss(image_features, text_features, scale):
    """Return InfoNCE in both directions over the pairs of a batch (CLIP, section 2.3) and the accuracy."""
    logits = scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()  # (N, N)
    labels = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    return loss, (logits.argmax(dim=1) == labels).float().mean()


def seen_loss(logits, values):
    """Return the mean cross-entropy of reading every aspect off the image features.

    Args:
        logits: (N, sum of the lengths of `LOOKS`).
        values: (N, aspects), indices in `LOOKS`.
    """
    parts = logits.split([len(looks) for looks in LOOKS], dim=1)
    return torch.stack([F.cross_entropy(part, values[:, i]) for i, part in enumerate(parts)]).mean()


def value_loss(logits, values):
    """Return the mean cross-entropy of telling an aspect's values apart by their texts, over scenes that have one.

    Args:
        logits: (N, sum of the aspects' numbers of `VALUES`), of images and the texts of `make_contrasts`.
        values: (N, aspects), indices in `LOOKS`.
    """
    losses, at = [], 0
    for i, (_, attribute) in enumerate(ASPECTS):
        texts = VALUES[attribute]
        part, at = logits[:, at:at + len(texts)], at + len(texts)
        rows = torch.tensor([texts.index(look) if look in texts else -1 for look in LOOKS[i]])[values[:, i]]
        losses.append(F.cross_entropy(part, rows, ignore_index=-1))
    return torch.stack(losses).mean()


def name_loss(logits, values):
    """Return the mean cross-entropy of telling by texts with names alone which aspects stand out in a scene.

    Args:
        logits: (N, aspects), of images and the texts of `make_contrasts`.
        values: (N, aspects), indices in `LOOKS`; only scenes in which one to FEW aspects stand out count.
    """
    usual = torch.tensor([looks.index(USUAL[attribute]) for looks, (_, attribute) in zip(LOOKS, ASPECTS)])
    out = (values != usual).float()
    count = out.sum(dim=1)
    rows = (count > 0) & (count <= FEW)
    return F.cross_entropy(logits[rows], out[rows] / count[rows, None])


def make_optimizer(modules):
    """Make an AdamW with weight decay on matrices alone, as in CLIP."""
    parameters = [p for module in modules for p in module.parameters()]
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
              {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))


def learning_rate(step, steps, highest):
    """Return the rate of a step: a linear warm-up, then half a cosine down to 0."""
    if step < WARMUP_STEPS:
        return highest * (step + 1) / WARMUP_STEPS
    return highest * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)))


def batches(count, size, seed):
    """Yield batches of indices (size,) without end, every epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[:count - count % size].split(size)


def train(model, images, tokens, contrasts, values, args):
    """Train in place. `tokens` are rows of the model's own small vocabulary.

    The loss is CLIP's, plus three that say more of the sixteen aspects than captions do: a linear head, which is thrown
    away afterwards, reads them off the image features, and the other two compare texts that differ in one thing alone.
    """
    head = torch.nn.Linear(EMBED_DIM, sum(map(len, LOOKS)))
    mean, std = (torch.tensor(x).view(3, 1, 1) * 255 for x in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    optimizer = make_optimizer((model, head))
    generator = torch.Generator().manual_seed(args.seed)
    model.train()
    start, losses, accuracies, readings = time.time(), [], [], []
    for step, chosen in zip(range(args.steps), batches(len(images), BATCH, args.seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        pixels = (images[chosen] - mean) / std
        flipped = torch.rand(len(chosen), generator=generator) < 0.5  # no caption tells left from right
        pixels[flipped] = pixels[flipped].flip(3)
        which = torch.randint(tokens.shape[1], (len(chosen),), generator=generator)
        image_features = model.visual(pixels.contiguous(memory_format=torch.channels_last))
        turn = step % CONTRASTS
        texts = torch.cat([tokens[chosen, which], *(rows[turn] for rows in contrasts)])
        text_features, *contrast_features = encode_text(model, texts).split(
            [len(chosen), *(rows.shape[1] for rows in contrasts)])
        value_logits, name_logits = (model.logit_scale.exp() * F.normalize(image_features, dim=-1)
                                     @ F.normalize(features, dim=-1).t() for features in contrast_features)
        loss, accuracy = contrastive_loss(image_features, text_features, model.logit_scale.exp())
        extra = torch.stack([seen_loss(head(image_features), values[chosen]), value_loss(value_logits, values[chosen]),
                             name_loss(name_logits, values[chosen])])
        optimizer.zero_grad()
        (loss + ASPECT_WEIGHT * extra.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
        accuracies.append(accuracy.item())
        readings.append(extra.detach().numpy())
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            means = " ".join(f"{mean:.3f}" for mean in np.mean(readings[-50:], axis=0))
            print(f"step {step + 1}/{args.steps} loss {np.mean(losses[-50:]):.3f} "
                  f"accuracy {100 * np.mean(accuracies[-50:]):.1f}% seen, values, names {means} "
                  f"scale {model.logit_scale.exp().item():.1f} minutes {(time.time() - start) / 60:.1f}", flush=True)


def openai_state_dict(model, vocabulary, seed):
    """Return the fp16 state dict in OpenAI's layout with the whole vocabulary and all positions.

    Rows of words that no caption holds keep a random start (std 0.02). Positions beyond the longest caption repeat
    the last trained one.
    """
    state_dict = {name: value.clone() for name, value in model.state_dict().items() if name != "attn_mask"}
    generator = torch.Generator().manual_seed(seed)
    embedding = 0.02 * torch.randn(VOCABULARY, TEXT["width"], generator=generator)
    embedding[vocabulary] = state_dict["token_embedding.weight"]
    state_dict["token_embedding.weight"] = embedding
    positions = state_dict["positional_embedding"]
    beyond = positions[-1:].expand(POSITIONS - len(positions), -1)
    state_dict["positional_embedding"] = torch.cat([positions, beyond])
    return {name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in state_dict.items()}


def save(state_dict, args, minutes):
    """Write the weights, with metadata that says how they were made."""
    settings = {"vision": args.vision, "scenes": args.scenes, "captions": CAPTIONS, "steps": args.steps,
                "batch_size": BATCH, "lr": args.lr, "weight_decay": WEIGHT_DECAY, "aspect_weight": ASPECT_WEIGHT,
                "seed": args.seed, "threads": args.threads}
    metadata = {"format": "pt", "made_by": "outfits/train_tiny_clip.py", "settings": json.dumps(settings),
                "torch": torch.__version__, "numpy": np.__version__, "minutes": f"{minutes:.1f}"}
    path = args.out
    if args.vision == "vit":  # OpenAI's layout does not say how wide its heads are
        text = {**TEXT, "context_length": POSITIONS, "vocab_size": VOCABULARY}
        config = {"embed_dim": EMBED_DIM, "quick_gelu": True, "vision_cfg": VISIONS["vit"], "text_cfg": text}
        args.out.mkdir(parents=True, exist_ok=True)
        write_json({"model_cfg": config}, args.out / "open_clip_config.json")
        path = args.out / "open_clip_model.safetensors"
    with atomic_path(path) as temporary:
        save_file(state_dict, temporary, metadata)
    print(f"{path}: {path.stat().st_size:,} bytes, made in {minutes:.1f} minutes")


def main():
    args = parse_args()
    start = time.time()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, tokens, values = make_scenes(args)
    contrasts = make_contrasts(CONTRASTS, args.seed)
    # Only words of the captions are trained, so a vocabulary of them is enough until the end. Sorted, EOT stays
    # the largest and PAD the smallest.
    vocabulary = torch.unique(torch.cat([rows.flatten() for rows in (tokens, *contrasts)]))
    tokens, *contrasts = (torch.searchsorted(vocabulary, rows) for rows in (tokens, *contrasts))
    print(f"{len(vocabulary)} different tokens, {(tokens != PAD).sum(2).float().mean():.1f} a caption")
    text = CLIPTextCfg(context_length=CAPTION_TOKENS, vocab_size=len(vocabulary), **TEXT)
    model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISIONS[args.vision]), text, quick_gelu=True)
    model.visual.to(memory_format=torch.channels_last)  # twice as fast on CPUs
    train(model, images, tokens, contrasts, values, args)
    save(openai_state_dict(model, vocabulary, args.seed), args, (time.time() - start) / 60)


if __name__ == "__main__":
    main()
