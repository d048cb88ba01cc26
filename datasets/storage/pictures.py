"""Open pictures of any kind in the same way, for networks as well as for drawing."""

import numpy as np

# Modes with an opacity per pixel.
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
# Possible values of white in a file with integers of more than 8 bits.
_WHITE = (255, 2**16 - 1, 2**31 - 1)


class BadImage(Exception):
    """An image that cannot be read; the message is a predicate without the image's name ("does not exist")."""


def open_picture(source):
    """Open a picture as a viewer shows it: a Pillow image of mode RGB.

    It is rotated according to its EXIF orientation, and transparent parts become white. Palettes, greys, CMYK and 16
    bits are converted to 8 bits each of red, green and blue. If the file has several frames, the first one is used.

    Args:
        source: Path of the file, or a binary file object.

    Raises:
        BadImage: the file cannot be read.
    """
    return _opened(source, on_white)


def open_grey(source):
    """Open a picture as `open_picture` does, but as a Pillow image of mode L: 8 bits of grey."""
    return _opened(source, lambda image: (on_white(image) if _clear(image) else _eight_bits(image)).convert("L"))


def _opened(source, convert):
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as file:
            return convert(_upright(file))
    except FileNotFoundError:
        raise BadImage("does not exist") from None
    except UnidentifiedImageError:
        raise BadImage("is not a readable image (empty, cut off, or of an unknown kind)") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise almost any exception
        raise BadImage(f"is not a readable image ({' '.join(str(error).split()) or type(error).__name__})") from None


def _upright(image):
    """Rotate an image according to its EXIF data; it is returned unchanged if these are damaged."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # a picture with damaged EXIF data is still a picture
        turned = False
    return ImageOps.exif_transpose(image) if turned else image


def on_white(image):
    """Convert a Pillow image of any mode to RGB, with white in place of transparent pixels."""
    from PIL import Image

    clear, opacity = _clear(image), None
    if clear and _many_bits(image):
        # The transparent grey has to be found now: after the conversion to 8 bits Pillow could not find it any more.
        opacity = Image.fromarray(np.uint8(np.asarray(image) != image.info["transparency"]) * np.uint8(255))
    image = _eight_bits(image)
    if image.mode == "La":
        image = image.convert("LA")
    if opacity is not None:
        image = image.convert("RGB")
        image.putalpha(opacity)
    elif clear:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _clear(image):
    return image.mode in _TRANSPARENT or "transparency" in image.info


def _many_bits(image):
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _eight_bits(image):
    """Convert an image with more than 8 bits per channel to 8 bits of grey; Pillow itself would clip values at 255.

    16 bits are divided by 257. The range of wider integers is unknown: white is the smallest of 255, 65,535 and
    2**31 - 1 that no pixel exceeds. For floating point numbers 1 is tried first.
    """
    from PIL import Image

    if not _many_bits(image):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or image.format == "PNG":
        white = _WHITE[1]
    else:
        limits = (1, 255, *_WHITE[1:]) if image.mode == "F" else _WHITE
        largest = np.nan_to_num(values).max(initial=0)
        white = next((limit for limit in limits if largest <= limit), largest)
    return Image.fromarray(np.nan_to_num(values * (255 / white)).round().clip(0, 255).astype(np.uint8))
