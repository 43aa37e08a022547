"""Draw one test image of each class of Outfits16.

    python -m outfits.picture figure/outfits16.jpg
"""

import sys

import matplotlib

from datasets.outfits16 import STYLES, TASKS, scene_of

from .render import render
from .scenes import ASPECTS, PARTS


def draw(path):
    """Save the picture: a row for each garment, a column for each value of its four attributes."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = sum(len(task.classnames) for task, (part, _) in zip(TASKS, ASPECTS) if part == PARTS[0])
    figure, axes = pyplot.subplots(len(PARTS), columns, figsize=(columns, len(PARTS) + 0.5), layout="constrained")
    for part, row in zip(PARTS, axes):
        cells = iter(row)
        for number, (task, aspect) in enumerate(zip(TASKS, ASPECTS)):
            if aspect[0] != part:
                continue
            for label, name in enumerate(task.classnames):
                cell = next(cells)
                cell.imshow(render(scene_of(number, "test", label, 0), STYLES["test"]))
                cell.set(xticks=[], yticks=[])
                if part == PARTS[0]:
                    cell.set_title(f"{aspect[1] if label == 0 else ''}\n{name}", fontsize=9)
        row[0].set_ylabel(part)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw(sys.argv[1])
