"""Hand-made EgoGesture files in the official form, small enough for a test."""

import json

import numpy as np
from PIL import Image

LABELS = ["wave", "knock", "point"]
FRAMES = 60
# Subject 3 belongs to training, 1 to validation, 2 to testing.
VIDEOS = {"Subject03/Scene1": 2, "Subject01/Scene2": 1, "Subject02/Scene1": 1}
# Name, subset, label, first and last frame.
CLIPS = [
    ("Subject03/Scene1/Color/rgb1", "training", "wave", "1", "5"),
    ("Subject03/Scene1/Color/rgb1_2", "training", "knock", "4", "49"),
    ("Subject03/Scene1/Color/rgb2_3", "training", "point", "20.0", "39.0"),
    ("Subject03/Scene1/Color/rgb2_4", "training", "wave", 11, 50),
    ("Subject01/Scene2/Color/rgb1_5", "validation", "knock", "3", "42"),
    ("Subject01/Scene2/Color/rgb1_6", "validation", "wave", "30", "60"),
    ("Subject02/Scene1/Color/rgb1_7", "testing", "point", "1", "60"),
]
SUBSET_OF = {"train": ["training"], "dev": ["validation"], "train+dev": ["training", "validation"], "test": ["testing"]}


def content(clips=CLIPS, labels=LABELS):
    """The annotation of ``clips``."""
    database = {}
    for name, subset, label, start, end in clips:
        bounds = {"label": label, "start_frame": start, "end_frame": end}
        database[name] = {"subset": subset, "annotations": bounds}
    return {"labels": labels, "database": database}


def write_annotation(folder, clips=CLIPS, labels=LABELS):
    path = folder / "egogestureall_but_None.json"
    path.write_text(json.dumps(content(clips, labels)))
    return path


def write_frames(folder, size=(26, 20), frames=FRAMES):
    """Write all videos; every frame is different."""
    rng = np.random.default_rng(7)
    for scene, videos in VIDEOS.items():
        for video in range(1, videos + 1):
            for name, channels in ((f"Color/rgb{video}", 3), (f"Depth/depth{video}", 1)):
                target = folder / scene / name
                target.mkdir(parents=True)
                for frame in range(1, frames + 1):
                    # A coarse pattern, which JPEG keeps well.
                    image = rng.integers(0, 256, (4, 5, channels), dtype=np.uint8)
                    image = Image.fromarray(image if channels == 3 else image[..., 0]).resize(size)
                    image.save(target / f"{frame:06d}.jpg", quality=90)
    return folder


def write_tree(folder, **options):
    """Frames and annotation; returns the folder."""
    write_frames(folder, **options)
    write_annotation(folder)
    return folder


def clips_of(split, clips=CLIPS):
    """Name, colour folder, label number, first frame and number of frames of each clip of a split, in order."""
    rows = []
    for subset in SUBSET_OF[split]:
        for name, of, label, start, end in clips:
            if of == subset:
                start, end = int(float(start)), int(float(end))
                rows.append((name, name.split("_")[0], LABELS.index(label), start, end - start + 1))
    return rows


def frame_path(folder, colour, field, number):
    """The file of one frame."""
    if field == "depth":
        colour = colour.replace("Color", "Depth").replace("rgb", "depth")
    return folder / colour / f"{number:06d}.jpg"


def one_line(error, *words):
    """Check that a user error is one line and says ``words``."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
