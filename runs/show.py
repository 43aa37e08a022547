"""Printing tables and drawing charts."""

import argparse
import os.path as osp
import sys

import numpy as np
from tabulate import tabulate

from common.csv_files import write_rows
from common.files import atomic_path

LATEX = str.maketrans({"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
                       "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
                       "<": r"\ensuremath{<}", ">": r"\ensuremath{>}"})


def file_name(*endings):
    """A type for argparse: the name of a file to write, with one of the `endings`."""
    def check(path):
        if not path.endswith(endings) or osp.isdir(path):
            raise argparse.ArgumentTypeError(f"{path} must be the name of a file that ends in {' or '.join(endings)}")
        return path

    return check


def spread(values, ci95=False):
    """(mean, standard deviation) of `values`; with `ci95` half the width of the 95% confidence interval, as in CoOp."""
    std = float(np.std(values))
    return float(np.mean(values)), 1.96 * std / np.sqrt(len(values)) if ci95 else std


def spread_of_several(values, ci95=False):
    """`spread`, with None as the width of a single value."""
    mean, width = spread(values, ci95)
    return mean, width if len(values) > 1 else None


def cell(mean, width=None):
    """The text of a cell: `61.20 +- 0.45`, or the mean alone without a width."""
    return f"{mean:.2f}" if width is None else f"{mean:.2f} +- {width:.2f}"


def plural(shots):
    """`1 shot`, `2 shots` ..., for -1 `all images`."""
    return "all images" if shots == -1 else f"{shots} shot{'s' * (shots > 1)}"


def show(rows, headers, style, bold=(), n_names=1):
    """Print a table of texts.

    Args:
        rows, headers: texts. style: plain, github, latex or csv.
        bold: the (row, column) of cells that github and latex show in bold.
        n_names: so many columns, the first ones, are aligned to the left.
    """
    if style == "csv":
        write_rows(sys.stdout, [headers, *rows])
        return
    marks = {"github": "**{}**", "latex": r"\textbf{{{}}}"}
    if style == "latex":
        headers, *rows = ([text.translate(LATEX).replace("+-", r"$\pm$") for text in row] for row in (headers, *rows))
    rows = [[marks[style].format(text) if style in marks and (i, j) in bold else text for j, text in enumerate(row)]
            for i, row in enumerate(rows)]
    print(tabulate(rows, headers=headers, tablefmt="latex_raw" if style == "latex" else style, disable_numparse=True,
                   colalign=["left"] * n_names + ["right"] * (len(headers) - n_names)) + "\n")


def best(values):
    """Indices of the largest `values`, rounded as in the table. None is no value; a single value is not best."""
    rounded = {i: round(value, 2) for i, value in enumerate(values) if value is not None}
    return [i for i, value in rounded.items() if value == max(rounded.values())] if len(rounded) > 1 else []


def pyplot():
    """matplotlib.pyplot, set up to draw into files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # names may hold a $
    from matplotlib import pyplot as plt

    return plt


def save(figure, path):
    """Write a figure as PNG or SVG, by the ending of `path`."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=osp.splitext(path)[1][1:], dpi=150)
    pyplot().close(figure)


def draw_bars(bars, path):
    """Draw a bar chart of [(name, mean, width)]; the width of a single run is None."""
    names, means, widths = zip(*((name, mean, width or 0) for name, mean, width in bars))
    figure, axes = pyplot().subplots(figsize=(8, 1.2 + 0.55 * len(bars)))
    drawn = axes.barh(names, means, xerr=widths, color="#5b8db8", ecolor="#333333", capsize=3)
    axes.bar_label(drawn, labels=[f"{mean:.1f}" for mean in means], padding=6)
    axes.invert_yaxis()
    axes.set(xlabel="average accuracy (%)", xlim=(0, min(100, max(means) * 1.15 + 3)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save(figure, path)


def draw_shots(lines, shots, tasks, title, path):
    """Draw accuracy against shots: a large panel of the average, and a small one per task.

    Args:
        lines: [(name, {shots: accuracy on each task, then their mean})]; the key of zero-shot is None.
        shots: the ticks. tasks: their names.
    """
    def place(n):  # all images stand at the right end
        return 2 * max(shots) if n == -1 else n

    plt = pyplot()
    n_columns = 4
    n_rows = 2 + -(-len(tasks) // n_columns)
    figure = plt.figure(figsize=(12, 2.5 * n_rows + 0.5), layout="constrained")
    grid = figure.add_gridspec(n_rows, n_columns)
    panels = [(figure.add_subplot(grid[2 + i // n_columns, i % n_columns]), i, name) for i, name in enumerate(tasks)]
    large = figure.add_subplot(grid[:2, :3])
    colours, markers = plt.get_cmap("tab20").colors, "osD^vP*Xp<>h"
    for axes, i, name in [(large, -1, "average over the tasks"), *panels]:
        for k, (label, points) in enumerate(lines):
            colour = colours[(2 * k + k // 10) % 20]
            if None in points:
                axes.axhline(points[None][i], color=colour, linestyle="--", label=label, linewidth=1.2)
            else:
                x = sorted(points, key=place)
                axes.plot([*map(place, x)], [points[n][i] for n in x], color=colour, label=label,
                          marker=markers[k % len(markers)], markersize=6 if axes is large else 3,
                          linewidth=1.6 if axes is large else 1)
        axes.set_xscale("log", base=2)
        axes.set_xticks([*map(place, shots)], ["all" if n == -1 else str(n) for n in shots])
        axes.minorticks_off()
        axes.set_title(name, fontsize=11 if axes is large else 9)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10 if axes is large else 8)
    large.set(xlabel="training images per class", ylabel="accuracy (%)")
    figure.legend(*large.get_legend_handles_labels(), loc="upper right", bbox_to_anchor=(0.99, 0.96), frameon=False)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    save(figure, path)


def draw_heat_map(values, names, texts, path, bar, low=0, cell=0.25, **labels):
    """Draw a matrix of `values` (n, n) in colours from `low` to 1.

    Args:
        names: of rows and columns. texts: those of the cells, (n, n), or none. bar: the name of the values.
        cell: the side of a cell in inches. labels: `title`, `xlabel` and `ylabel`.
    """
    n = len(names)
    figure, axes = pyplot().subplots(figsize=(3 + cell * n, 2.5 + cell * n), layout="constrained")
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=1)
    axes.set_xticks(range(n), names, rotation=90, fontsize=8)
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set(**labels)
    for (i, j), text in np.ndenumerate(texts):
        axes.text(j, i, text, ha="center", va="center", fontsize=7,
                  color="white" if values[i, j] > (low + 1) / 2 else "black")
    figure.colorbar(image, label=bar, shrink=0.8)
    save(figure, path)
