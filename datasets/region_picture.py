"""Pictures of an image's regions, and of boxes that a network found in it."""

from datasets.pictures import BadImage, open_picture
from util.cli import UserError
from util.files import atomic_path

# Regions below this share of the largest weight are not drawn.
FAINT = 0.05
COLOUR = (213, 94, 0)
LARGEST_SIDE, SMALLEST_SIDE = 1200, 400
LINE = 3


def draw_regions(image, boxes, weights, path):
    """Draw boxes over an image as networks see it (`datasets.pictures`), each as strong as its weight.

    It is written atomically.

    Args:
        image: Path of the image.
        boxes: float (n, 4), x1, y1, x2, y2 in pixels of the image.
        weights: float (n,), not negative.
        path: Where to write; the suffix gives the form (.png, .jpg).

    Raises:
        UserError: the image cannot be read, or the picture cannot be written.
    """
    largest = max(float(weights.max()), 1e-12)
    marks = sorted(zip(boxes.tolist(), weights.tolist(), strict=True), key=lambda pair: pair[1])
    marks = [(box, f"{100 * weight:.0f} %", weight / largest) for box, weight in marks if weight >= FAINT * largest]
    _draw(image, marks, path)


def draw_box(image, box, text, path):
    """Draw one box (x1, y1, x2, y2 in pixels) with a text; otherwise as `draw_regions`."""
    _draw(image, [(box, text, 1.0)], path)


def _draw(image, marks, path):
    """Draw ``marks``, tuples of box, text and strength in 0..1, the last one on top."""
    from PIL import Image, ImageDraw

    try:
        picture = open_picture(image)
    except BadImage as reason:
        raise UserError(f"{image} {reason}; give another image") from None
    scale = max(1, round(SMALLEST_SIDE / min(picture.size)))
    scale = min(scale, LARGEST_SIDE / max(picture.size))
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.NEAREST).convert("RGBA")
    for box, text, strength in marks:
        layer = Image.new("RGBA", picture.size)
        draw, corners = ImageDraw.Draw(layer), [scale * edge for edge in box]
        draw.rectangle(corners, outline=(*COLOUR, round(255 * strength)), width=LINE)
        # On a plate of its own, so that it can be read on any picture.
        place = (corners[0] + LINE + 2, corners[1] + LINE)
        draw.rectangle(draw.textbbox(place, text), fill=(255, 255, 255, 200))
        draw.text(place, text, fill=(*COLOUR, 255))
        picture = Image.alpha_composite(picture, layer)
    with atomic_path(path) as temporary:
        form = Image.registered_extensions().get(f".{str(path).rsplit('.', 1)[-1].lower()}", "PNG")
        picture.convert("RGB").save(temporary, format=form)
