"""Pictures of coloured shapes at known places, for the tests of region features."""

import numpy as np

BACKGROUND = (250, 244, 236)
COLOURS = {"red": (255, 0, 0), "teal": (0, 128, 128), "black": (0, 0, 0), "yellow": (255, 255, 0)}


def draw(boxes, size=(80, 100), background=BACKGROUND):
    """A uint8 (H, W, 3) picture with a filled rectangle of each colour at its box x1, y1, x2, y2 (x2, y2 behind it)."""
    picture = np.empty((*size, 3), dtype=np.uint8)
    picture[:] = background
    for colour, (x1, y1, x2, y2) in boxes.items():
        picture[y1:y2, x1:x2] = COLOURS[colour]
    return picture


def save(path, picture, **how):
    """Write a uint8 (H, W, 3 or 4) picture as an image file; returns ``path``."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **how)
    return path


def write_pictures(folder, count, seed=0):
    """``count`` PNG files 000.png, 001.png, ... of one rectangle each; returns the boxes, int (count, 4)."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(1, 30, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 20, (count, 2))], axis=1)
    names = list(COLOURS)
    for number, box in enumerate(boxes.tolist()):
        save(folder / f"{number:03d}.png", draw({names[number % len(names)]: box}, size=(50, 60)))
    return boxes
