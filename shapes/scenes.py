"""What the images of the suite `Shapes8` and of the training of the encoder `tiny` show.

A `Scene` is one to five equal objects (shape, colour, surface pattern) somewhere on a background, in some weather,
perhaps in a coloured frame. Every attribute is drawn independently of the others, with `numpy.random.RandomState`,
whose streams NumPy keeps frozen; all that a scene leaves open (exact places, sizes, angles, texture) follows from its
seed.
"""

from dataclasses import dataclass, replace

# Words for each value of an attribute: the first is common in captions, the others are rare.
SHAPES = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "pentagram"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "heart": ("heart", "valentine"),
    "crescent": ("crescent", "moon"),
}
COLOURS = {
    "red": ("red", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "white": ("white", "ivory"),
}
PATTERNS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "banded"),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "tiled"),
    "shaded": ("shaded", "gradient"),
    "hatched": ("hatched", "meshed"),
}
BACKGROUNDS = {
    "grass": ("grass", "meadow"),
    "sand": ("sand", "desert"),
    "water": ("water", "ocean"),
    "bricks": ("bricks", "masonry"),
    "stars at night": ("stars", "space"),
    "snow": ("snow", "ice"),
    "wood": ("wood", "timber"),
    "clouds": ("clouds", "sky"),
}
COUNTS = {
    1: ("one", "single"),
    2: ("two", "pair"),
    3: ("three", "trio"),
    4: ("four", "quartet"),
    5: ("five", "quintet"),
}
POSITIONS = {  # of one or two objects; none of them changes when an image is flipped left to right
    "top": ("top", "upper"),
    "bottom": ("bottom", "lower"),
    "centre": ("centre", "middle"),
    "side": ("side", "edge"),
    "corner": ("corner", "nook"),
}
ARRANGEMENTS = {  # of three to five objects
    "row": ("row", "line"),
    "column": ("column", "stack"),
    "diagonal": ("diagonal", "slope"),
    "ring": ("ring", "loop"),
    "cluster": ("cluster", "pile"),
}
WEATHERS = {
    "clear": ("clear", "sunny"),
    "fog": ("fog", "mist"),
    "rain": ("rain", "drizzle"),
    "snowfall": ("snow", "blizzard"),
    "dusk": ("dusk", "sunset"),
}
ATTRIBUTES = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS, "background": BACKGROUNDS, "count": COUNTS,
              "position": POSITIONS, "arrangement": ARRANGEMENTS, "weather": WEATHERS}


@dataclass(frozen=True)
class Scene:
    """What an image shows. `position` is None with three objects or more, `arrangement` with fewer.

    Attributes:
        size: relative object size, from 0 to 1.
        frame: colour of a frame around the image, or None.
        seed: everything else, 0 to 2**32 - 1. Scenes of the encoder's training have seeds below 2**31, those of
            `Shapes8` the others.
    """

    shape: str
    colour: str
    pattern: str
    background: str
    count: int
    position: str | None
    arrangement: str | None
    weather: str
    frame: str | None
    size: float
    seed: int


@dataclass(frozen=True)
class Style:
    """How images look, whatever they show. Ranges are (low, high), drawn per image.

    Attributes:
        size: range of the scenes' relative object size.
        gain, gamma: brightness factor and exponent, of values from 0 to 1.
        cast: colour by which the image is multiplied, per channel.
        saturation: 1 keeps the colours, 0 makes them grey.
        noise: half width of uniform noise per pixel and channel, of values from 0 to 1.
        blur: weight of each neighbour in a three-tap blur along both axes, 0 to 1/3.
        shadow: how much darker the farthest corner is than the lit one.
    """

    size: tuple = (0.0, 1.0)
    gain: tuple = (0.9, 1.1)
    gamma: tuple = (0.9, 1.1)
    cast: tuple = (1.0, 1.0, 1.0)
    saturation: tuple = (0.9, 1.1)
    noise: tuple = (0.0, 0.04)
    blur: tuple = (0.0, 0.1)
    shadow: tuple = (0.0, 0.1)


def uniform(rng, low, high):
    return low + (high - low) * rng.random_sample()


def pick(rng, values):
    values = tuple(values)
    return values[int(rng.random_sample() * len(values))]


def random_scene(rng, seed, style=Style(), **fixed):
    """Draw a scene, every attribute on its own; `fixed` ones are kept.

    Args:
        rng: `numpy.random.RandomState` that decides the attributes.
        seed: of the scene (see `Scene`).
        fixed: attributes of the scene, by name. A fixed position asks for one or two objects, a fixed arrangement
            for three to five.

    Returns:
        A `Scene`.

    Raises:
        ValueError: the fixed count fits neither the fixed position nor the fixed arrangement.
    """
    few, many = "position" in fixed, "arrangement" in fixed
    counts = [n for n in COUNTS if not (few and n > 2) and not (many and n < 3)]
    drawn = {
        "shape": pick(rng, SHAPES),
        "colour": pick(rng, COLOURS),
        "pattern": pick(rng, PATTERNS),
        "background": pick(rng, BACKGROUNDS),
        "count": pick(rng, counts) if counts else 0,
        "position": pick(rng, POSITIONS),
        "arrangement": pick(rng, ARRANGEMENTS),
        "weather": pick(rng, WEATHERS),
        "frame": pick(rng, COLOURS) if rng.random_sample() < 0.4 else None,
        "size": uniform(rng, *style.size),
    }
    scene = Scene(**{**drawn, **fixed, "seed": seed})
    if scene.count not in counts:
        raise ValueError(f"a scene of {scene.count} objects has no " + ("position" if few else "arrangement"))
    return replace(scene, arrangement=None) if scene.count < 3 else replace(scene, position=None)
