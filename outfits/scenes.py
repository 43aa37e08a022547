"""Scenes, which the images of the suite `Outfits16` and of the training of the encoder `tiny` show.

A `Scene` is a figure with four garments. Each has a colour, a pattern, a length and a width, drawn independently of
all others with `numpy.random.RandomState`, whose streams NumPy keeps frozen. Exact places and sizes, skin, wall and
shades follow from the scene's seed.
"""

from dataclasses import dataclass

PARTS = ("hat", "shirt", "trousers", "bag")
VALUES = {  # attribute: values that stand out, in the words of captions
    "colour": ("red", "yellow", "green", "blue"),
    "pattern": ("striped", "checkered", "dotted", "hatched"),
    "length": ("short", "medium", "long"),
    "width": ("narrow", "medium", "wide"),
}
USUAL = {"colour": "grey", "pattern": "plain", "length": "medium", "width": "medium"}  # nobody mentions these
ASPECTS = tuple((part, attribute) for part in PARTS for attribute in VALUES)


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Attributes:
        looks: {(part, attribute): value} of all `ASPECTS`.
        seed: decides everything else, 0 to 2**32 - 1. Scenes of the encoder's training have seeds below 2**31, those
            of `Outfits16` the others.
    """

    looks: dict
    seed: int


@dataclass(frozen=True)
class Style:
    """The look of images, apart from their content. Ranges are (low, high), drawn per image.

    Attributes:
        gain, gamma: brightness factor and exponent, of values from 0 to 1.
        cast: colour by which the image is multiplied, per channel.
        tint: largest difference from 1 of another such colour, drawn per channel.
        saturation: 1 keeps the colours, 0 makes them grey.
        noise: half width of uniform noise per pixel and channel, of values from 0 to 1.
        blur: weight of each neighbour in a three-tap blur along both axes, 0 to 1/3.
        shadow: share of the light that the farthest corner lacks.
    """

    gain: tuple = (0.9, 1.1)
    gamma: tuple = (0.9, 1.1)
    cast: tuple = (1.0, 1.0, 1.0)
    tint: float = 0.0
    saturation: tuple = (0.9, 1.1)
    noise: tuple = (0.0, 0.04)
    blur: tuple = (0.0, 0.1)
    shadow: tuple = (0.0, 0.1)


def uniform(rng, low, high):
    return low + (high - low) * rng.random_sample()


def pick(rng, values):
    values = tuple(values)
    return values[int(rng.random_sample() * len(values))]


def random_scene(rng, seed, chances, fixed=()):
    """Draw a scene, every aspect on its own.

    Args:
        rng: `numpy.random.RandomState` that decides the looks.
        seed: of the scene (see `Scene`).
        chances: {(part, attribute): probability} that its value is drawn from `VALUES`; else it is as usual.
        fixed: {(part, attribute): value} to keep.

    Returns:
        A `Scene`.
    """
    looks = {}
    for aspect in ASPECTS:
        drawn = pick(rng, VALUES[aspect[1]])
        looks[aspect] = drawn if rng.random_sample() < chances[aspect] else USUAL[aspect[1]]
    return Scene({**looks, **dict(fixed)}, seed)


def random_chances(rng):
    """Draw {(part, attribute): probability} of standing out; in half of the scenes few garments stand out."""
    often = 0.35 if rng.random_sample() < 0.5 else 1
    parts = {part: uniform(rng, 0.5, 1) if rng.random_sample() < often else 0.03 for part in PARTS}
    attributes = {attribute: uniform(rng, 0.5, 1) if rng.random_sample() < 0.7 else 0.1 for attribute in VALUES}
    return {(part, attribute): parts[part] * attributes[attribute] for part, attribute in ASPECTS}
