"""Synthetic NTU-like clips: a moving stick figure of 25 joints, and moving coloured shapes."""

from typing import NamedTuple

import numpy as np

# The first four classes differ only in the skeleton, the others only in the video.
MOTIONS = ("raise the right arm", "raise the left arm", "kick with the right leg", "bow")
SHAPES = ("red square to the right", "green disc to the left", "blue triangle upwards", "yellow cross downwards")
CLASSES = (*MOTIONS, *SHAPES)

LENGTHS = (40, 70)
NOISE_METRES = 0.008
NOISE_LEVELS = 6.0

# Joints in the order of the official files; x to the side, y up, z away from the camera, metres.
_REST = np.array(
    [
        (0, 0, 0),  # base of the spine
        (0, 0.28, 0),  # middle of the spine
        (0, 0.57, 0),  # neck
        (0, 0.72, 0),  # head
        (-0.18, 0.48, 0),  # left shoulder
        (-0.2, 0.22, 0),  # left elbow
        (-0.2, -0.02, 0),  # left wrist
        (-0.2, -0.09, 0),  # left hand
        (0.18, 0.48, 0),  # right shoulder
        (0.2, 0.22, 0),  # right elbow
        (0.2, -0.02, 0),  # right wrist
        (0.2, -0.09, 0),  # right hand
        (-0.1, -0.02, 0),  # left hip
        (-0.11, -0.42, 0),  # left knee
        (-0.11, -0.8, 0),  # left ankle
        (-0.11, -0.86, -0.1),  # left foot
        (0.1, -0.02, 0),  # right hip
        (0.11, -0.42, 0),  # right knee
        (0.11, -0.8, 0),  # right ankle
        (0.11, -0.86, -0.1),  # right foot
        (0, 0.5, 0),  # spine between the shoulders
        (-0.2, -0.16, 0),  # tip of the left hand
        (-0.16, -0.1, 0),  # left thumb
        (0.2, -0.16, 0),  # tip of the right hand
        (0.16, -0.1, 0),  # right thumb
    ]
)

# Action -> (joints that rotate, joint that they rotate about, plane of the rotation (axes), largest angle in radians).
_TURNS = {
    0: ((9, 10, 11, 23, 24), 8, (0, 1), 2.4),
    1: ((5, 6, 7, 21, 22), 4, (0, 1), -2.4),
    2: ((17, 18, 19), 16, (1, 2), 1.3),
    3: ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 22, 23, 24), 0, (1, 2), -1.0),
}
_COLOURS = ((220, 40, 40), (40, 200, 60), (50, 70, 230), (230, 210, 40))
_GENERIC_COLOUR = (190, 190, 190)
_PATHS = (
    ((0.12, 0.5), (0.88, 0.5)),
    ((0.88, 0.5), (0.12, 0.5)),
    ((0.5, 0.85), (0.5, 0.15)),
    ((0.5, 0.15), (0.5, 0.85)),
)


class Subject(NamedTuple):
    """Properties that all clips of one person have in common."""

    height: float
    place: tuple
    speed: float
    background: tuple
    slope: tuple


def draw_subject(draw):
    """Draw a random `Subject`."""
    grey = draw.uniform(50, 130)
    return Subject(
        height=draw.uniform(0.85, 1.15),
        place=(draw.uniform(-0.5, 0.5), draw.uniform(-0.1, 0.1), draw.uniform(2.5, 3.8)),
        speed=draw.uniform(1.0, 1.8),
        background=tuple(grey + draw.uniform(-15, 15, 3)),
        slope=tuple(draw.uniform(-25, 25, 2)),
    )


def _swing(length, speed, draw):
    """Values that go from 0 to 1 and back ``speed`` times: float (T,)."""
    phase = draw.uniform(-0.3, 0.3)
    return 0.5 - 0.5 * np.cos(2 * np.pi * speed * np.linspace(0, 1, length) + phase)


def figure(action, length, subject, draw):
    """Draw the joints of a moving person.

    Args:
        action: Number of the class, 0 to 7; from 4 on the person only stands.
        length: Number of frames T.
        subject: The `Subject`.
        draw: numpy Generator.

    Returns:
        float64 (T, 25, 3), metres in camera space.
    """
    body = np.repeat(_REST[None], length, axis=0)
    if action in _TURNS:
        joints, centre, (first, second), most = _TURNS[action]
        angle = most * draw.uniform(0.85, 1.1) * _swing(length, subject.speed, draw)
        away = body[:, joints] - body[:, [centre]]
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        turned = away.copy()
        turned[..., first] = cosine * away[..., first] - sine * away[..., second]
        turned[..., second] = sine * away[..., first] + cosine * away[..., second]
        body[:, joints] = body[:, [centre]] + turned
    sway = 0.03 * np.sin(np.linspace(0, draw.uniform(2, 5), length) + draw.uniform(0, 6))
    body[..., 0] += sway[:, None] * (body[..., 1] + 1)
    place = np.array(subject.place) + draw.uniform(-0.1, 0.1, 3)
    return subject.height * body + place + draw.normal(0, NOISE_METRES, body.shape)


def skeleton_text(persons):
    """Convert a skeleton to the official text format.

    Args:
        persons: For each frame a list of (25, 3) arrays, one per person.

    Returns:
        The text, str.
    """
    lines = [str(len(persons))]
    for frame in persons:
        lines.append(str(len(frame)))
        for number, joints in enumerate(frame):
            lines += [f"7205759403793{number:04d} 0 1 1 0 0 0 0.0 0.0 2", str(len(joints))]
            x, y, z = joints.T
            # Approximate positions of the joint in the depth and colour pictures of a Kinect.
            pixels = (256 + 365 * x / z, 212 - 365 * y / z, 960 + 1060 * x / z, 540 - 1060 * y / z)
            for row in np.stack([x, y, z, *pixels], axis=1).tolist():
                lines.append("%.6g %.6g %.6g %.5g %.5g %.5g %.5g 0.0 0.0 0.0 1.0 2" % tuple(row))  # noqa: UP031
    return "\n".join(lines) + "\n"


def scene(action, length, width, height, subject, draw, extra=False):
    """Draw pictures of a moving shape.

    Args:
        action: Number of the class, 0 to 7; below 4 the shape is a grey disc that moves in a random direction.
        length: Number of frames T.
        width, height: Size of the pictures in pixels.
        subject: The `Subject` whose background is drawn.
        draw: numpy Generator.
        extra: Also draw a grey disc if the class has another shape, as a passer-by.

    Returns:
        uint8 (T, height, width, 3), red, green, blue.
    """
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    slope = subject.slope[0] * (across - 0.5) + subject.slope[1] * (down - 0.5)
    pictures = np.empty((length, height, width, 3), dtype=np.float32)
    pictures[:] = np.array(subject.background, dtype=np.float32) + slope[..., None]
    shapes = [(None, _GENERIC_COLOUR, draw.uniform(0.1, 0.9, (2, 2)))] if extra or action < len(MOTIONS) else []
    if action >= len(MOTIONS):
        kind = action - len(MOTIONS)
        shapes.append((kind, _COLOURS[kind], np.array(_PATHS[kind]) + draw.uniform(-0.12, 0.12, 2)))
    for kind, colour, (begin, end) in shapes:
        where = begin + np.linspace(0, 1, length)[:, None] ** draw.uniform(0.8, 1.25) * (end - begin)
        size = draw.uniform(0.2, 0.27)
        side = (across * width - (where[:, 0] * width)[:, None, None]) / height / size
        above = (down - where[:, 1, None, None]) / size
        pictures[_inside(kind, side, above)] = np.array(colour) + draw.uniform(-15, 15, 3)
    pictures += draw.standard_normal(pictures.shape, dtype=np.float32) * NOISE_LEVELS
    return pictures.clip(0, 255).astype(np.uint8)


def _inside(kind, side, above):
    """Whether points are inside a shape of half-width 1; ``side`` and ``above`` are their distances from its centre."""
    if kind == 0:
        return np.maximum(np.abs(side), np.abs(above)) < 0.9
    if kind == 2:
        return (above < 0.9) & (above > 2 * np.abs(side) - 0.95)
    if kind == 3:
        return (np.minimum(np.abs(side), np.abs(above)) < 0.35) & (np.maximum(np.abs(side), np.abs(above)) < 1)
    return side**2 + above**2 < 1
