"""Images of scenes: `render` draws one. Coordinates are pixels, x to the right and y down; colours are RGB from 0 to 1.

Pixels are the same on every machine: float64 arithmetic without system fonts or drawing libraries, and
`numpy.random.RandomState`, whose streams NumPy keeps frozen.
"""

import math

import numpy as np

from .scenes import Style, pick, uniform

SIZE = 64  # height and width of every image

RGB = {
    "red": (0.84, 0.13, 0.13), "orange": (0.96, 0.53, 0.10), "yellow": (0.95, 0.88, 0.18),
    "green": (0.14, 0.62, 0.22), "blue": (0.13, 0.30, 0.85), "purple": (0.50, 0.16, 0.66),
    "pink": (0.97, 0.55, 0.74), "white": (0.95, 0.95, 0.93),
}

ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE] + 0.5


def turn(degrees):
    """(cos, sin), rounded so that they do not depend on the C library."""
    angle = math.radians(degrees)
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def wave(t):
    """Triangle wave of period 1 from 0 to 1."""
    return np.abs(t % 1.0 * 2 - 1)


def _interpolation(cells):
    """(SIZE, cells + 1) matrix that interpolates grid values linearly."""
    at = (np.arange(SIZE) + 0.5) * cells / SIZE
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells + 1)))


INTERPOLATION = {cells: _interpolation(cells) for cells in (3, 5, 8, 32)}


def smooth_noise(rng, rows, columns):
    """(SIZE, SIZE) values from 0 to 1, interpolated on a random grid of that many cells."""
    return INTERPOLATION[rows] @ rng.random_sample((rows + 1, columns + 1)) @ INTERPOLATION[columns].T


def tint(values, dark, light):
    """(H, W) values from 0 to 1 -> (H, W, 3) colours between two."""
    dark, light = np.array(dark), np.array(light)
    return dark + values[..., None] * (light - dark)


def draw_background(scene, rng):
    """(SIZE, SIZE, 3) image of the background alone."""
    kind = scene.background
    grain = rng.random_sample((SIZE, SIZE))
    slow = smooth_noise(rng, 5, 5)
    shift = rng.random_sample()
    if kind == "grass":
        blades = 0.5 * smooth_noise(rng, 8, 32) + 0.3 * slow + 0.2 * grain
        image = tint(blades, (0.10, 0.34, 0.08), (0.48, 0.74, 0.30))
    elif kind == "sand":
        dunes = wave(ROWS / 22 + 0.5 * slow + shift)
        image = tint(0.4 * dunes + 0.2 * slow + 0.4 * grain, (0.68, 0.56, 0.34), (0.96, 0.87, 0.64))
    elif kind == "water":
        waves = wave(ROWS / 9 + 0.9 * slow + shift)
        image = tint(0.7 * waves + 0.3 * slow, (0.04, 0.28, 0.48), (0.34, 0.66, 0.78))
    elif kind == "bricks":
        course = (ROWS + 8 * shift) // 8
        joint = ((ROWS + 8 * shift) % 8 < 1.3) | ((COLUMNS + 16 * shift + 8 * (course % 2)) % 16 < 1.3)
        image = tint(0.6 * slow + 0.4 * grain, (0.48, 0.19, 0.13), (0.74, 0.38, 0.28))
        image[joint] = (0.76, 0.73, 0.68)
    elif kind == "stars at night":
        image = tint(slow, (0.02, 0.02, 0.10), (0.12, 0.10, 0.28))
        image[grain > 0.985] = (0.95, 0.95, 0.85)
    elif kind == "snow":
        image = tint(0.7 * slow + 0.3 * grain, (0.76, 0.82, 0.92), (0.98, 0.98, 1.0))
    elif kind == "wood":
        plank = (COLUMNS + 16 * shift) // 16
        fibre = smooth_noise(rng, 3, 32)
        image = tint(0.7 * fibre + 0.15 * (plank % 2) + 0.15 * grain, (0.34, 0.20, 0.09), (0.74, 0.52, 0.30))
        image[(COLUMNS + 16 * shift) % 16 < 1.2] = (0.22, 0.12, 0.06)
    else:  # clouds
        blue = tint(ROWS / SIZE, (0.30, 0.55, 0.90), (0.66, 0.82, 0.97))
        cover = np.clip(3 * (0.6 * smooth_noise(rng, 3, 3) + 0.4 * slow) - 1.2, 0, 1)[..., None]
        image = blue + cover * (np.array((0.97, 0.97, 0.98)) - blue)
    return image * uniform(rng, 0.85, 1.1)


def place_objects(scene, rng):
    """Centres (count, 2) as x, y and the radius of the objects, in pixels."""
    n, middle = scene.count, SIZE / 2
    if scene.position is not None:
        largest = {"centre": (19, 12), "corner": (14, 9)}.get(scene.position, (15, 12))[n - 1]
        radius = 8 + (largest - 8) * scene.size
        gap = uniform(rng, 1.05, 1.25) * radius * (n - 1)  # half the distance between two objects
        near, free = radius + uniform(rng, 1, 4), uniform(rng, -5, 5)
        inset = near + 0.8 * gap if scene.position == "corner" else near  # a pair in a corner lies side by side
        ends = inset if rng.random_sample() < 0.5 else SIZE - inset
        x, y = {"top": (middle + free, near), "bottom": (middle + free, SIZE - near), "centre": (middle, middle),
                "side": (ends, middle + free), "corner": (ends, near)}[scene.position]
        if scene.position == "corner" and rng.random_sample() < 0.5:
            y = SIZE - near
        along = (0, gap) if scene.position == "side" or (scene.position == "centre" and free > 0) else (gap, 0)
        centres = [(x - along[0], y - along[1]), (x + along[0], y + along[1])][:n] if n == 2 else [(x, y)]
    else:
        radius = 5.2 + ({3: 8.5, 4: 7.0, 5: 5.8}[n] - 5.2) * scene.size
        aside = uniform(rng, 15, SIZE - 15)
        ordered = np.arange(n) - (n - 1) / 2
        step = uniform(rng, 2.1 * radius, max(2.15 * radius, (SIZE - 4 - 2 * radius) / (n - 1)))
        if scene.arrangement == "row":
            centres = [(middle + step * i, aside) for i in ordered]
        elif scene.arrangement == "column":
            centres = [(aside, middle + step * i) for i in ordered]
        elif scene.arrangement == "diagonal":
            slope = uniform(rng, 0.75, 1.0) * pick(rng, (-1, 1))
            step = min(step, (SIZE - 6 - 2 * radius) / (n - 1))
            centres = [(middle + 0.95 * step * i, middle + slope * step * i) for i in ordered]
        else:
            ring = scene.arrangement == "ring"
            # neighbours on the pile's circle are about two radii apart, those of a ring much farther
            around = uniform(rng, 15, 21) if ring else radius * (0.75 + 0.22 * n) * uniform(rng, 0.85, 1.0)
            first = 360 * rng.random_sample()
            reach = 0 if ring else 9
            x, y = middle + uniform(rng, -reach, reach), middle + uniform(rng, -reach, reach)
            turns = [turn(first + 360 * i / n) for i in range(n)]
            centres = [(x + around * c, y + around * s) for c, s in turns]
    return np.array(centres) + (rng.random_sample((n, 2)) - 0.5) * 0.3 * radius, radius


def half_planes(x, y, corners):
    """Distances beyond the edges of a regular polygon whose edges are 1 from the centre, (corners, H, W)."""
    directions = [turn(90 + 360 * k / corners) for k in range(corners)]
    return np.stack([c * x + s * y for c, s in directions]) - 1


def outside(shape, x, y):
    """Signed distance to a shape about one unit in radius (negative inside), roughly, for points (H, W)."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - 0.95
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.82
    if shape == "triangle":
        return half_planes(x / 0.58, (y - 0.2) / 0.58, 3).max(axis=0) * 0.58
    if shape == "star":  # a pentagram: inside at least four of the five edges
        return np.sort(half_planes(x / 0.42, y / 0.42, 5), axis=0)[3] * 0.42
    if shape == "cross":
        a, b = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(a - 0.95, b - 0.3), np.maximum(a - 0.3, b - 0.95))
    if shape == "ring":
        return np.abs(np.sqrt(x * x + y * y) - 0.7) - 0.27
    if shape == "heart":  # a square on its corner with a half disc on both upper sides
        y = y + 0.1
        u, v = (x + y) * 0.7071, (x - y) * 0.7071
        lobes = np.minimum(np.sqrt((u + 0.5) ** 2 + v * v), np.sqrt(u * u + (v - 0.5) ** 2)) - 0.5
        return np.minimum(np.maximum(np.abs(u), np.abs(v)) - 0.5, lobes)
    moon = np.sqrt((x + 0.15) ** 2 + y * y)
    return np.maximum(moon - 0.95, 0.75 - np.sqrt((x - 0.4) ** 2 + y * y))


def pattern_values(pattern, x, y, period, radius):
    """How much of the second colour each point takes, 0 to 1; coordinates in pixels from the object's centre."""
    if pattern == "plain":
        return np.zeros_like(x)
    if pattern == "striped":
        return (y / period % 1 < 0.5) * 1.0
    if pattern == "dotted":
        u, v = x / period % 1 - 0.5, y / period % 1 - 0.5
        return (u * u + v * v < 0.085) * 1.0
    if pattern == "checkered":
        return ((x / period % 1 < 0.5) ^ (y / period % 1 < 0.5)) * 1.0
    if pattern == "shaded":
        return np.clip(0.5 + 0.55 * y / radius, 0, 1)
    return (((x + y) / period % 1 < 0.28) | ((x - y) / period % 1 < 0.28)) * 1.0


def draw_objects(image, scene, rng):
    """Draw the scene's objects on an image, in place."""
    centres, radius = place_objects(scene, rng)
    colour = np.clip(np.array(RGB[scene.colour]) + (rng.random_sample(3) - 0.5) * 0.12, 0, 1)
    second = colour * 0.3 if scene.colour == "white" or rng.random_sample() < 0.5 else colour * 0.2 + 0.8
    period = max(4.5, uniform(rng, 0.6, 0.8) * radius)
    edge = uniform(rng, 0.08, 0.35) * colour
    slant = uniform(rng, -25, 25)
    for cx, cy in centres:
        reach = radius * 1.3 + 1
        top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
        window = np.s_[top:max(0, int(cy + reach) + 1), left:max(0, int(cx + reach) + 1)]
        dx, dy = COLUMNS[window] - cx, ROWS[window] - cy
        c, s = turn(slant + uniform(rng, -8, 8))
        x, y = c * dx + s * dy, c * dy - s * dx
        distance = outside(scene.shape, x / radius, y / radius) * radius
        inside = np.clip(0.5 - distance, 0, 1)[..., None]
        rim = np.clip(distance + 1.2, 0, 1)[..., None]
        values = pattern_values(scene.pattern, x, y, period, radius)[..., None]
        surface = colour + values * (second - colour)
        surface += rim * (edge - surface)
        image[window] += inside * (surface - image[window])


def draw_weather(image, scene, rng):
    """The image (SIZE, SIZE, 3) as the scene's weather leaves it."""
    if scene.weather == "fog":
        thick = (uniform(rng, 0.3, 0.5) + 0.25 * smooth_noise(rng, 3, 3))[..., None]
        return image + thick * (0.82 - image)
    if scene.weather == "rain":
        image = image * np.array((0.70, 0.74, 0.80))
        lean, drops, length = uniform(rng, -0.4, 0.4), 34, 8
        steps = np.arange(length)
        y = (rng.random_sample((drops, 1)) * (SIZE + length) - length + steps).astype(int)
        x = (rng.random_sample((drops, 1)) * SIZE + lean * steps).astype(int)
        seen = (y >= 0) & (y < SIZE) & (x >= 0) & (x < SIZE)
        y, x = y[seen], x[seen]
        image[y, x] += 0.55 * (np.array((0.85, 0.9, 1.0)) - image[y, x])
        return image
    if scene.weather == "snowfall":
        image = image * 0.92
        flakes = rng.random_sample((45, 2)) * (SIZE - 2)
        for y, x in flakes.astype(int):
            image[y:y + 2, x:x + 2] += 0.85 * (1 - image[y:y + 2, x:x + 2])
        return image
    if scene.weather == "dusk":
        glow = 0.55 + 0.25 * ROWS[..., None] / SIZE
        return image * glow * np.array((1.15, 0.78, 0.72)) + np.array((0.10, 0.03, 0.02))
    return image * 1.04


def draw_frame(image, scene, rng):
    """Draw the scene's frame on an image, in place."""
    width = 2 + int(2 * rng.random_sample())
    if scene.frame is not None:
        for band in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
            image[band] = RGB[scene.frame]


def blurred(image, weight):
    """Three-tap blur along both axes, borders repeated."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = image * (1 - 2 * weight) + weight * (before + after)
    return image


def apply_style(image, style, rng):
    """The image (SIZE, SIZE, 3), values from 0 to 1, as a style shows it."""
    gain, gamma, saturation, noise, blur, shadow = [
        uniform(rng, *getattr(style, key)) for key in ("gain", "gamma", "saturation", "noise", "blur", "shadow")]
    light = (ROWS if rng.random_sample() < 0.5 else ROWS[::-1]) + (COLUMNS if rng.random_sample() < 0.5
                                                                   else COLUMNS[:, ::-1])
    image = blurred(image, blur)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + saturation * (image - grey)
    image = image * (gain * np.array(style.cast)) * (1 - shadow * light / (2 * SIZE))[..., None]
    if gamma != 1:
        # a parabola through 0 and 1 instead of a power, which would depend on the C library
        image = np.clip(image, 0, 1)
        image = image - (gamma - 1) * image * (1 - image)
    return image + noise * (2 * rng.random_sample(image.shape) - 1)


def render(scene, style=Style()):
    """Draw a scene in a style: (SIZE, SIZE, 3) uint8, RGB, the same for the same arguments on every machine."""
    rng = np.random.RandomState(scene.seed)
    image = draw_background(scene, rng)
    draw_objects(image, scene, rng)
    image = draw_weather(image, scene, rng)
    draw_frame(image, scene, rng)
    return np.rint(np.clip(apply_style(image, style, rng), 0, 1) * 255).astype(np.uint8)
