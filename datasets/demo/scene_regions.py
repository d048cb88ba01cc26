"""Region features of synthetic scenes, made from shapes and not from pixels: like a detector's, but small and noisy.

A region is one shape. Its features are the sum of fixed random vectors of its size, its colour and its shape, followed
by its box, scaled to -2 to 2 across the picture; all have Gaussian noise. So the content of a region is easy to
recognise, and what remains to be learned is how regions and words relate.
"""

from pathlib import Path

import numpy as np

from datasets.demo.scene_pictures import COLOURS, HEIGHT, SHAPES, SIZES, WIDTH, Scene
from datasets.regions.files import ENDING, META_FILE, write_regions
from util.files import write_json

WIDTH_OF_ATTRIBUTES, PLACE = 28, 4
FEATURE_SIZE = WIDTH_OF_ATTRIBUTES + PLACE
# Standard deviation of the noise on attributes (each attribute's vector has standard deviation 1), and on boxes.
NOISE, PLACE_NOISE = 0.3, 0.05
BACKBONE = "synthetic-attributes"


def scene_features(scene: Scene, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make features and boxes of a scene's shapes, in the scene's order.

    Args:
        scene: The `Scene`.
        seed: Seed of the attributes' vectors and, together with the scene's number, of the noise.

    Returns:
        (float32 (n, `FEATURE_SIZE`), float32 (n, 4): x1, y1, x2, y2 in pixels).
    """
    words = [*SIZES, *COLOURS, *SHAPES]
    drawn = np.random.default_rng([seed, 0]).normal(size=(len(words), WIDTH_OF_ATTRIBUTES))
    vectors = dict(zip(words, drawn, strict=True))
    boxes = np.array([thing.box for thing in scene.things], dtype=np.float32)
    attributes = [vectors[thing.size] + vectors[thing.colour] + vectors[thing.shape] for thing in scene.things]
    place = 4 * boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT] - 2
    draw = np.random.default_rng([seed, 1, scene.number])
    noise = draw.normal(size=(len(boxes), FEATURE_SIZE)) * ([NOISE] * WIDTH_OF_ATTRIBUTES + [PLACE_NOISE] * PLACE)
    return (np.concatenate([attributes, place], axis=1) + noise).astype(np.float32), boxes


def write_features(out: Path, scenes: dict[str, Scene], seed: int) -> None:
    """Write ``<name>.npz`` for every picture, and meta.json.

    Args:
        out: Folder.
        scenes: dict file name of a picture -> its `Scene`.
        seed: See `scene_features`.

    Raises:
        UserError: a file cannot be written.
    """
    settings = {"backbone": BACKBONE, "feature_size": FEATURE_SIZE, "noise": NOISE, "place_noise": PLACE_NOISE}
    for name, scene in scenes.items():
        write_regions(out / f"{name}{ENDING}", *scene_features(scene, seed), HEIGHT, WIDTH)
    write_json(out / META_FILE, {"extractor": settings, "feature_size": FEATURE_SIZE, "complete": True})
