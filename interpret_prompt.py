"""Prints the words nearest to a run's contexts, and draws how similar the contexts of the tasks are.

    python interpret_prompt.py RUN [--topk 5] [--epoch best|last|N] [--output contexts.svg]

Words are compared as in CoOp (Zhou et al., IJCV 2022, section 4.4): by Euclidean distance between a context vector and
the token embeddings of the backbone's vocabulary. Only the run's folder and its backbone are read.
"""

import argparse
import contextlib
import math
import os.path as osp
import sys

import torch
from tabulate import tabulate

from common.errors import UserError
from common.program import program
from learned.contexts import contexts_of
from learned.loading import NO_IMAGES, load_run
from runs.config import add_run_flags
from runs.show import draw_heat_map, file_name
from trainers.prompts import similarities


def nearest_words(context, embedding, tokenizer, topk):
    """The words of the vocabulary nearest to context vectors by Euclidean distance.

    Args:
        context: (n_ctx, dim). topk: number of words.
        embedding, tokenizer: those of the text encoder; weight (n_words, dim).

    Returns:
        A list of (word, distance), nearest first, for each vector. A token that does not end its word has a hyphen
        ("photo-"). A token that is no whole character, or of another tokenizer than CLIP's, is spelled as in the
        vocabulary.

    Raises:
        UserError: topk is below 1 or above the size of the vocabulary.
    """
    weight = embedding.weight.float()[:tokenizer.size]
    if not 1 <= topk <= len(weight):
        raise UserError(f"--topk is {topk}, but must be from 1 to {len(weight)}, the size of the vocabulary")
    # The default computes distances through dot products, which makes small ones inexact.
    distances = torch.cdist(context, weight, compute_mode="donot_use_mm_for_euclid_dist")  # (n_ctx, n_words)
    found = distances.topk(topk, dim=1, largest=False)
    return [[(tokenizer.word(token), distance) for token, distance in zip(*pair)]
            for pair in zip(found.indices.tolist(), found.values.tolist())]


def draw(matrix, names, path):
    """Draw the similarities (n, n) of the tasks called `names` as PNG or SVG, in colours from the smallest one to 1."""
    low = float(matrix.min())
    digits = min(6, max(2, 1 + math.ceil(-math.log10(max(1 - low, 1e-6)))))  # enough to tell them apart
    draw_heat_map(matrix, names, [[f"{value:.{digits}f}" for value in row] for row in matrix.tolist()], path,
                  "cosine similarity of the contexts", low, cell=0.5)


def interpret(run, topk, which, output):
    """Print the table of nearest words and, if the contexts belong to tasks, draw their similarities."""
    with contextlib.redirect_stdout(sys.stderr):  # messages of loading are not part of the table
        trainer = load_run(run, which, NO_IMAGES)
    kind, names, contexts = contexts_of(trainer)
    if output and kind != "task":
        raise UserError(f"--output: the picture compares the contexts of tasks, but {run} has none per task")
    encoder = trainer.model.text_encoder
    rows = [[name, vector, *(f"{word} {distance:.4f}" for word, distance in words)]
            for name, context in zip(names, contexts)
            for vector, words in enumerate(nearest_words(context, encoder.token_embedding,
                                                       encoder.tokenizer, topk), 1)]
    headers = [kind, "vector", *(f"nearest {i}" for i in range(1, topk + 1))]
    print(tabulate(rows, headers=headers, disable_numparse=True))
    if kind == "task":
        output = output or osp.join(run, "contexts.png")
        draw(similarities(contexts).cpu(), names, output)
        print(f"\nThe similarity of the tasks' contexts is drawn in {output}")


def parse_args(argv):
    parser = argparse.ArgumentParser(description="The words nearest to a run's contexts, and the contexts' similarity.")
    add_run_flags(parser)
    parser.add_argument("--topk", type=int, default=5, help="words for each context vector (default: %(default)s)")
    parser.add_argument("--output", type=file_name(".png", ".svg"), help="picture of the contexts' similarity, .png or "
                        ".svg (default: contexts.png in the run's folder)")
    args = parser.parse_args(argv)
    if args.topk < 1:
        parser.error(f"--topk {args.topk}: it must be 1 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    with program():
        interpret(args.run, args.topk, args.epoch, args.output)


if __name__ == "__main__":
    main()
