"""Draw one test image of each class of Outfits16.

    python -m outfits.picture figure/outfits16.jpg
"""

import sys

import matplotlib

from .render import render
from .scenes import ASPECTS, PARTS, VALUES
from .suite import STYLES, scene_of


def draw(path):
    """Save the picture: a row for each garment, a column for each value of its four attributes."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = sum(map(len, VALUES.values()))
    figure, axes = pyplot.subplots(len(PARTS), columns, figsize=(columns, len(PARTS) + 0.5), layout="constrained")
    for part, row in zip(PARTS, axes):
        cells = iter(row)
        for number, (garment, attribute) in enumerate(ASPECTS):
            for label, name in enumerate(VALUES[attribute] if garment == part else ()):
                cell = next(cells)
                cell.imshow(render(scene_of(number, "test", label, 0), STYLES["test"]))
                cell.set(xticks=[], yticks=[])
                if part == PARTS[0]:
                    cell.set_title(f"{attribute if label == 0 else ''}\n{name}", fontsize=9)
        row[0].set_ylabel(part)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw(sys.argv[1])
