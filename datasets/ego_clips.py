"""Which frames of a gesture are shown, and which part of them: the transforms of EgoGesture, with Pillow."""

import io
import random

import numpy as np

from datasets.pictures import BadImage, open_grey, open_picture

SCALES = (1.0, 0.84089641525, 0.7071067811803005, 0.5946035574934808, 0.4999999999911653)
CHANNELS = {"rgb": 3, "depth": 1}
OPENERS = {"rgb": open_picture, "depth": open_grey}


def centre_begin(length, duration):
    """First frame (from 0) of the middle of a clip of ``length`` frames."""
    return max(0, length // 2 - duration // 2)


def random_begin(length, duration, rng):
    """A random first frame (from 0). NOTE: as in the original, the last possible one is never drawn."""
    return rng.randint(0, max(0, length - duration - 1))


def take_frames(length, begin, duration):
    """Frames shown of a clip: ``duration`` from ``begin`` on, a short rest repeated from its start.

    Returns:
        int64 array (duration,) of positions in 0..length-1.
    """
    count = min(begin + duration, length) - begin
    return begin + np.arange(duration) % count


def draw_crop(rng):
    """Draw scale and place of a training crop: (scale, across, down), the latter two in [0, 1)."""
    return SCALES[rng.randint(0, len(SCALES) - 1)], rng.random(), rng.random()


def sample_generator(seed, epoch, index):
    """The generator of all draws of sample ``index`` in ``epoch``; nothing else can change them."""
    return random.Random(f"{seed} {epoch} {index}")


def random_crop(image, crop, size):
    """The square part that ``crop`` (of `draw_crop`) names, resized to ``size`` x ``size``."""
    from PIL import Image

    scale, across, down = crop
    width, height = image.size
    side = int(min(width, height) * scale)
    left, top = across * (width - side), down * (height - side)
    # Pillow rounds the edges of the box itself, half to even.
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def centre_crop(image, size):
    """The smaller edge resized to ``size``, then the middle ``size`` x ``size``."""
    from PIL import Image

    width, height = image.size
    if min(width, height) != size:
        scaled = (size, int(size * height / width)) if width < height else (int(size * width / height), size)
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def decode(data, field):
    """Decode one image file.

    Args:
        data: The bytes of the file.
        field: ``rgb`` for three channels, ``depth`` for 8-bit grey.

    Returns:
        A Pillow image of mode RGB or L, see `datasets.pictures`.

    Raises:
        ValueError: the bytes are no whole image.
    """
    try:
        return OPENERS[field](io.BytesIO(data))
    except BadImage as reason:
        raise ValueError(str(reason).removeprefix("is ")) from None


def pixels(image):
    """A Pillow image as uint8 (channels, height, width)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
