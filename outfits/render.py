"""Images of scenes: `render` draws one. Coordinates are pixels, x to the right and y down; colours are RGB from 0 to 1.

Pixels are the same on every machine: float64 arithmetic without system fonts or drawing libraries, and
`numpy.random.RandomState`, whose streams NumPy keeps frozen.
"""

import numpy as np

from .scenes import PARTS, Style, uniform

SIZE = 64  # height and width of every image

RGB = {"red": (0.84, 0.13, 0.13), "yellow": (0.93, 0.83, 0.15), "green": (0.14, 0.60, 0.22), "blue": (0.13, 0.30, 0.85),
       "grey": (0.55, 0.55, 0.55)}
# Heights and widths of the garments' "short", "medium", "long" and "narrow", "medium", "wide".
HEIGHTS = {"hat": (5, 9, 14), "shirt": (7, 10, 14), "trousers": (10, 16, 23), "bag": (7, 11, 17)}
WIDTHS = {"hat": (11, 17, 25), "shirt": (13, 19, 26), "trousers": (12, 18, 25), "bag": (7, 11, 17)}

ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE] + 0.5


def _interpolation(cells):
    """Return the (SIZE, cells + 1) matrix that interpolates grid values linearly."""
    at = (np.arange(SIZE) + 0.5) * cells / SIZE
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells + 1)))


INTERPOLATION = _interpolation(5)


def smooth_noise(rng):
    """Return (SIZE, SIZE) values from 0 to 1, interpolated on a random grid of five cells a side."""
    return INTERPOLATION @ rng.random_sample((6, 6)) @ INTERPOLATION.T


def pattern_values(pattern, x, y, period):
    """Return each point's share of the second colour, 0 to 1."""
    if pattern == "plain":
        return np.zeros_like(x)
    if pattern == "striped":
        return (y / period % 1 < 0.5) * 1.0
    if pattern == "dotted":
        u, v = x / period % 1 - 0.5, y / period % 1 - 0.5
        return (u * u + v * v < 0.09) * 1.0
    if pattern == "checkered":
        return ((x / period % 1 < 0.5) ^ (y / period % 1 < 0.5)) * 1.0
    return ((x + y) / (1.5 * period) % 1 < 0.4) * 1.0  # hatched


def draw_wall(rng):
    """Draw a wall and a floor in a faint colour: (SIZE, SIZE, 3)."""
    shade = uniform(rng, 0.62, 0.9) * (1 + 0.06 * (rng.random_sample(3) - 0.5))
    image = np.ones((SIZE, SIZE, 3)) * shade + 0.08 * (smooth_noise(rng) - 0.5)[..., None]
    floor = int(uniform(rng, 50, 60))
    image[floor:] *= uniform(rng, 0.75, 0.9)
    return image


def draw_garment(image, mask, scene, part, rng):
    """Fill a garment's mask (SIZE, SIZE) on an image, in place."""
    colour = np.clip(np.array(RGB[scene.looks[part, "colour"]]) * uniform(rng, 0.85, 1.15)
                     + 0.08 * (rng.random_sample(3) - 0.5) * (scene.looks[part, "colour"] != "grey"), 0, 1)
    second = colour * 0.25 if rng.random_sample() < 0.5 else colour * 0.25 + 0.75
    period = uniform(rng, 4.0, 5.0)
    shift = period * rng.random_sample(2)
    values = pattern_values(scene.looks[part, "pattern"], COLUMNS + shift[0], ROWS + shift[1], period)[..., None]
    surface = colour + values * (second - colour)
    image[mask] = surface[mask]
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    image[mask & ~inner] *= 0.6  # a seam around it


def box(left, right, top, bottom):
    return (COLUMNS > left) & (COLUMNS < right) & (ROWS > top) & (ROWS < bottom)


def draw_figure(image, scene, rng):
    """Draw the figure and its four garments on an image, in place."""
    x, y = uniform(rng, 22, 26), uniform(rng, -2, 2)  # the figure's middle, and how far down it stands
    size = {}  # part: (half width, height)
    for part in PARTS:
        width = WIDTHS[part][("narrow", "medium", "wide").index(scene.looks[part, "width"])]
        height = HEIGHTS[part][("short", "medium", "long").index(scene.looks[part, "length"])]
        size[part] = (width + uniform(rng, -1, 1)) / 2, height + uniform(rng, -1, 1)
    skin = np.array((0.85, 0.65, 0.52)) * uniform(rng, 0.35, 1.1)
    head = (COLUMNS - x) ** 2 + (ROWS - y - 22) ** 2 < 30
    legs = box(x - 5, x - 1, y + 36, y + 61) | box(x + 1, x + 5, y + 36, y + 61)
    half, height = size["shirt"]
    arms = box(x - half - 3, x + half + 3, y + 28, y + 40)
    image[head | legs | arms] = skin
    half, height = size["trousers"]
    draw_garment(image, box(x - half, x + half, y + 37, y + 37 + height)
                 & ~((np.abs(COLUMNS - x) < 1) & (ROWS > y + 44)), scene, "trousers", rng)
    half, height = size["shirt"]
    sleeves = box(x - half - 4, x + half + 4, y + 27, y + 33)
    draw_garment(image, sleeves | box(x - half, x + half, y + 27, y + 27 + height), scene, "shirt", rng)
    half, height = size["hat"]
    draw_garment(image, box(x - half, x + half, y + 18 - height, y + 18)
                 | box(x - half - 3, x + half + 3, y + 16, y + 18), scene, "hat", rng)
    half, height = size["bag"]
    middle, top = x + uniform(rng, 25, 27), y + uniform(rng, 32, 36)
    image[(np.abs(COLUMNS - middle) < 1) & (ROWS > top - 8) & (ROWS < top)] = 0.2
    draw_garment(image, box(middle - half, middle + half, top, top + height), scene, "bag", rng)


def blurred(image, weight):
    """Return an image after a three-tap blur along both axes; the borders are repeated."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = image * (1 - 2 * weight) + weight * (before + after)
    return image


def apply_style(image, style, rng):
    """Return an image (SIZE, SIZE, 3), values from 0 to 1, in a style."""
    gain, gamma, saturation, noise, blur, shadow = [
        uniform(rng, *getattr(style, key)) for key in ("gain", "gamma", "saturation", "noise", "blur", "shadow")]
    light = (ROWS if rng.random_sample() < 0.5 else ROWS[::-1]) + (COLUMNS if rng.random_sample() < 0.5
                                                                   else COLUMNS[:, ::-1])
    image = blurred(image, blur)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + saturation * (image - grey)
    cast = np.array(style.cast) * (1 + style.tint * (2 * rng.random_sample(3) - 1))
    image = image * (gain * cast) * (1 - shadow * light / (2 * SIZE))[..., None]
    if gamma != 1:
        # a parabola through 0 and 1 instead of a power, which would depend on the C library
        image = np.clip(image, 0, 1)
        image = image - (gamma - 1) * image * (1 - image)
    return image + noise * (2 * rng.random_sample(image.shape) - 1)


def render(scene, style=Style()):
    """Draw a scene in a style: (SIZE, SIZE, 3) uint8, RGB, the same for the same arguments on every machine."""
    rng = np.random.RandomState(scene.seed)
    image = draw_wall(rng)
    draw_figure(image, scene, rng)
    return np.rint(np.clip(apply_style(image, style, rng), 0, 1) * 255).astype(np.uint8)
