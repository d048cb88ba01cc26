"""Synthetic scenes: 3 to 6 coloured shapes of two sizes, which do not touch, on a slightly graded background."""

from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 160, 120
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "purple": (150, 40, 175),
}
# Range of the sides in pixels, without the upper bound.
SIZES = {"small": (15, 20), "large": (32, 39)}
BACKGROUNDS = {"dark": 45, "grey": 115, "light": 205}
COUNTS = (3, 6)
# Maximum difference of colour channels from the named colour, and of a background from its middle to each side.
JITTER, SLOPE = 12, 8
# Minimum free pixels between two shapes, and between a shape and the border.
GAP = 4
# Share of the scenes with two shapes that are so similar that attributes alone hardly distinguish them; and the share
# of these in which the two also have the same size.
TWIN_SHARE = 0.65
SAME_SIZE_SHARE = 0.5
TRIES = 60


class Thing(NamedTuple):
    """One shape: its three attributes, and its box x1, y1, x2, y2 in pixels (x2, y2 are just beyond the last pixel)."""

    size: str
    colour: str
    shape: str
    box: tuple

    @property
    def centre(self):
        """Centre of the box: x, y in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


class Scene(NamedTuple):
    """One picture.

    number: Number of the scene, from 1; this and the seed determine everything in it.
    background: Name of the background.
    things: Tuple of `Thing`.
    picture: uint8 (HEIGHT, WIDTH, 3), red, green, blue.
    """

    number: int
    background: str
    things: tuple
    picture: np.ndarray


def make_scene(seed, number):
    """Make the `Scene` with a number; it does not depend on what else is drawn."""
    draw = np.random.default_rng([seed, number])
    kinds = _kinds(draw)
    placed = None
    while placed is None:
        placed = _places(draw, kinds)
    background = str(draw.choice(list(BACKGROUNDS)))
    picture = _background(draw, BACKGROUNDS[background])
    things = []
    for (size, colour, shape), (x, y, side) in zip(kinds, placed, strict=True):
        inside = _mask(shape, side)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1
        things.append(Thing(size, colour, shape, tuple(int(value) for value in box)))
        picture[y : y + side, x : x + side][inside] = np.array(COLOURS[colour]) + draw.uniform(-JITTER, JITTER, 3)
    return Scene(number, background, tuple(things), picture.clip(0, 255).astype(np.uint8))


def _kinds(draw):
    """List of (size, colour, shape) of each thing, in random order."""
    count = int(draw.integers(COUNTS[0], COUNTS[1] + 1))
    kinds = [tuple(str(draw.choice(list(names))) for names in (SIZES, COLOURS, SHAPES)) for _ in range(count)]
    if draw.random() < TWIN_SHARE:
        size, colour, shape = kinds[0]
        if draw.random() >= SAME_SIZE_SHARE:
            size = next(other for other in SIZES if other != size)
        kinds[1] = size, colour, shape
    return [kinds[row] for row in draw.permutation(count)]


def _places(draw, kinds):
    """Draw x, y and side of each thing, none within GAP of another; None if they did not fit."""
    placed = []
    for size, _, _ in kinds:
        side = int(draw.integers(*SIZES[size]))
        for _ in range(TRIES):
            x, y = (int(draw.integers(GAP, most - side - GAP + 1)) for most in (WIDTH, HEIGHT))
            if all(
                x >= x2 + side2 + GAP or x2 >= x + side + GAP or y >= y2 + side2 + GAP or y2 >= y + side + GAP
                for x2, y2, side2 in placed
            ):
                placed.append((x, y, side))
                break
        else:
            return None
    return placed


def _background(draw, level):
    """Draw a background with a slight gradient in a random direction: float (HEIGHT, WIDTH, 3)."""
    across, down = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    angle = draw.uniform(0, 2 * np.pi)
    slope = SLOPE * (np.cos(angle) * across + np.sin(angle) * down) / np.sqrt(2)
    return level + draw.uniform(-SLOPE, SLOPE) / 2 + np.repeat(slope[..., None], 3, axis=2)


def _mask(shape, side):
    """Pixels of a shape within its square: bool (side, side)."""
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    across, down = np.meshgrid(axis, axis)
    if shape == "circle":
        return across**2 + down**2 <= 1
    if shape == "triangle":
        return np.abs(across) <= (down + 1) / 2
    if shape == "cross":
        return np.minimum(np.abs(across), np.abs(down)) <= 1 / 3
    return np.ones((side, side), dtype=bool)
