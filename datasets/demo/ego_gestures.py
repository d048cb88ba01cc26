"""Synthetic gestures: a hand-like shape whose class shows either in its colour or in its depth, never in both.

The four colour gestures all have the same middle depth, and the four depth gestures all have the subject's skin colour.
Position, path and outline of the hand are independent of the class.
"""

import numpy as np

GESTURES = (
    "synthetic red hand",
    "synthetic blue hand",
    "synthetic striped hand",
    "synthetic blinking hand",
    "synthetic near hand",
    "synthetic far hand",
    "synthetic approaching hand",
    "synthetic receding hand",
)
COLOURS = {0: (225, 45, 40), 1: (45, 75, 230)}
STRIPED, BLINKING = 2, 3
BRIGHT, DARK = (245, 245, 235), (35, 35, 40)
STRIPE_WIDTH, BLINK_FRAMES = 0.4, 4
# Depth is brighter where it is nearer. `DEPTHS` has each gesture's depth at the start and end of its periodic movement.
FAR, MIDDLE, NEAR = 100, 160, 220
MOVE_FRAMES = 16
DEPTHS = {4: (NEAR, NEAR), 5: (FAR, FAR), 6: (FAR, NEAR), 7: (NEAR, FAR)}
LENGTHS = (20, 50)
GAPS = (3, 6)
FINGERS = (-0.5, -0.17, 0.17, 0.5)


class Person:
    """Appearance of one subject and the room, drawn once for all clips of the subject.

    Args:
        rng: numpy Generator.
        size: (width, height) of the frames in pixels.
    """

    def __init__(self, rng, size):
        width, height = size
        self.skin = np.array([205, 160, 130]) + rng.uniform(-18, 18, 3)
        self.hand_size = rng.uniform(0.9, 1.1)
        self.light = rng.uniform(0.8, 1.05)
        # Coordinates from the middle of the frame, in units of its height.
        self.ys, self.xs = np.mgrid[:height, :width].astype(np.float32)
        self.ys, self.xs = self.ys / height - 0.5, (self.xs - width / 2) / height
        self.room = self._smooth(rng, rng.uniform(70, 140, 3), 18)
        self.distance = self._smooth(rng, rng.uniform(20, 45, 1), 8)[..., 0]

    def _smooth(self, rng, level, spread):
        """Draw a few waves across the frame: float32 (H, W, channels)."""
        waves = np.zeros((*self.xs.shape, len(level)), dtype=np.float32)
        for channel in range(len(level)):
            for _ in range(4):
                across, down, phase = rng.uniform(-7, 7), rng.uniform(-7, 7), rng.uniform(0, 2 * np.pi)
                waves[..., channel] += np.sin(across * self.xs + down * self.ys + phase)
        return level + spread / 2 * waves


def hand_places(rng, person, length):
    """Coordinates (across, along) of every pixel in the frame of reference of the hand, each float32 (length, H, W)."""
    time = np.arange(length)
    phases, speeds = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.1, 0.25, 3)
    x, y, angle = (np.sin(phase + speed * time) for phase, speed in zip(phases, speeds, strict=True))
    x, y = rng.uniform(-0.12, 0.12) + 0.06 * x, 0.06 + rng.uniform(-0.06, 0.06) + 0.05 * y
    angle = rng.uniform(-0.3, 0.3) + 0.2 * angle
    dx, dy = (place[:, None, None].astype(np.float32) for place in (x, y))
    cos, sin = (value[:, None, None].astype(np.float32) for value in (np.cos(angle), np.sin(angle)))
    across, along = person.xs - dx, person.ys - dy
    radius = 0.4 * person.hand_size
    return (cos * across + sin * along) / radius, (cos * along - sin * across) / radius


def hand_mask(across, along):
    """Pixels of the hand, which has a palm with a wrist and four fingers: bool (length, H, W)."""
    mask = (across**2 + (1.2 * along) ** 2 < 0.9) | ((np.abs(across) < 0.5) & (along > 0))
    for finger in FINGERS:
        mask |= (np.abs(across - finger) < 0.13) & (along < 0) & (along > -1.5 + 0.7 * abs(finger))
    return mask


def hand_colours(gesture, person, across):
    """Colour of the hand in every pixel: float (length, H, W, 3), or an array that broadcasts to it."""
    if gesture == STRIPED:
        bright = np.floor(across / STRIPE_WIDTH) % 2 < 1
    elif gesture == BLINKING:
        bright = (np.arange(len(across)) // BLINK_FRAMES % 2 < 1)[:, None, None]
    else:
        return np.array(COLOURS.get(gesture, person.skin), dtype=np.float32)
    return np.where(bright[..., None], np.array(BRIGHT, np.float32), np.array(DARK, np.float32))


def draw_clip(rng, person, gesture, length):
    """Draw one clip.

    Args:
        rng: numpy Generator.
        person: A `Person`.
        gesture: Class number, or None for frames without a hand.
        length: Number of frames.

    Returns:
        rgb uint8 (length, H, W, 3) and depth uint8 (length, H, W).
    """
    shape = (length, *person.xs.shape)
    rgb = np.broadcast_to(person.room, (*shape, 3)).astype(np.float32)
    depth = np.broadcast_to(person.distance, shape).astype(np.float32)
    if gesture is not None:
        across, along = hand_places(rng, person, length)
        mask = hand_mask(across, along)
        colours = np.broadcast_to(hand_colours(gesture, person, across), rgb.shape)
        rgb[mask] = colours[mask]
        begin, end = DEPTHS.get(gesture, (MIDDLE, MIDDLE))
        moved = (np.arange(length) + rng.integers(MOVE_FRAMES)) % MOVE_FRAMES / (MOVE_FRAMES - 1)
        depths = begin + (end - begin) * moved + rng.uniform(-8, 8)
        depth[mask] = np.broadcast_to(depths[:, None, None].astype(np.float32), shape)[mask]
    rgb = person.light * rgb + rng.normal(0, 6, rgb.shape)
    depth += rng.normal(0, 4, depth.shape)
    return tuple(np.clip(frames, 0, 255).astype(np.uint8) for frames in (rgb, depth))


def draw_video(rng, person, gestures):
    """Draw one video: the gestures one after another, with pauses without a hand before, between and after them.

    Returns:
        Generator of the (rgb, depth) that `draw_clip` returns, and a list of the rows of the label file (class number
        from 1, first frame, last frame, both counted from 1).
    """
    parts, rows, frame = [], [], 1
    for gesture in gestures:
        gap, length = rng.integers(GAPS[0], GAPS[1] + 1), rng.integers(LENGTHS[0], LENGTHS[1] + 1)
        parts += [(None, int(gap)), (gesture, int(length))]
        rows.append((gesture + 1, int(frame + gap), int(frame + gap + length - 1)))
        frame += gap + length
    parts.append((None, GAPS[0]))
    return (draw_clip(rng, person, gesture, length) for gesture, length in parts), rows
