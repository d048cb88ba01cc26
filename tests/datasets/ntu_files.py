"""Small NTU files for the tests: videos whose frames tell their number, skeletons with known joints."""

import numpy as np

from tests.golden import DATA

SKELETON = DATA / "S001C002P003R002A060.skeleton"


def level(number):
    """Grey level of frame ``number``; far enough apart to survive compression for 50 frames."""
    return 5 * number % 250


def write_mjpg(path, length, size=(48, 32), fps=30, start=0):
    """An MJPG AVI file of ``length`` grey frames, written with OpenCV; the level says the frame's number."""
    import cv2

    width, height = size
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size)
    assert video.isOpened()
    for number in range(start, start + length):
        video.write(np.full((height, width, 3), level(number), dtype=np.uint8))
    video.release()
    return path


def skeleton_text(length, persons=1, seed=0):
    """A skeleton file of ``length`` frames with random joints."""
    draw = np.random.default_rng(seed)
    lines = [str(length)]
    for _ in range(length):
        lines.append(str(persons))
        for person in range(persons):
            lines += [f"7205759403793000{person} 0 1 1 1 1 0 0.01 0.02 2", "25"]
            joints = draw.standard_normal((25, 11)).round(4)
            lines += [" ".join(map(str, joint)) + " 2" for joint in joints.tolist()]
    return "\n".join(lines) + "\n"


def write_raw(folder, lengths, persons=1):
    """Official-looking files: dict id -> frames into ``nturgb+d_rgb`` and ``nturgb+d_skeletons`` of ``folder``."""
    videos, skeletons = folder / "nturgb+d_rgb", folder / "nturgb+d_skeletons"
    for made in (videos, skeletons):
        made.mkdir(parents=True, exist_ok=True)
    for seed, (name, length) in enumerate(lengths.items()):
        write_mjpg(videos / f"{name}_rgb.avi", length)
        (skeletons / f"{name}.skeleton").write_text(skeleton_text(length, persons, seed))
    return videos, skeletons
