"""Draw an image's regions, a box that a network predicted in it, and contact sheets of several images."""

from datasets.storage.pictures import BadImage, open_picture
from util.cli import UserError
from util.files import atomic_path

# Regions below this share of the largest weight are not drawn.
FAINT = 0.05
COLOUR = (213, 94, 0)
MAX_SIDE, MIN_SIDE = 1200, 400
LINE = 3
TILE, MARGIN, TEXT_HEIGHT, COLUMNS = 240, 12, 22, 5


def draw_regions(image, boxes, weights, path):
    """Draw boxes over an image as networks see it (`datasets.storage.pictures`), with opacity by weight.

    The picture is written atomically.

    Args:
        image: Path of the image.
        boxes: float (n, 4), x1, y1, x2, y2 in pixels of the image.
        weights: float (n,), not negative.
        path: The file to write; its suffix determines the format (.png, .jpg).

    Raises:
        UserError: the image cannot be read, or the picture cannot be written.
    """
    largest = max(float(weights.max()), 1e-12)
    marks = sorted(zip(boxes.tolist(), weights.tolist(), strict=True), key=lambda pair: pair[1])
    marks = [(box, f"{100 * weight:.0f} %", weight / largest) for box, weight in marks if weight >= FAINT * largest]
    _draw(image, marks, path)


def draw_box(image, box, text, path):
    """Draw one box (x1, y1, x2, y2 in pixels) with a text; see `draw_regions`."""
    _draw(image, [(box, text, 1.0)], path)


def _draw(image, marks, path):
    """Draw ``marks``, tuples of box, text and strength in 0..1, the last one on top."""
    from PIL import Image, ImageDraw

    try:
        picture = open_picture(image)
    except BadImage as reason:
        raise UserError(f"{image} {reason}; give another image") from None
    scale = max(1, round(MIN_SIDE / min(picture.size)))
    scale = min(scale, MAX_SIDE / max(picture.size))
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.NEAREST).convert("RGBA")
    for box, text, strength in marks:
        layer = Image.new("RGBA", picture.size)
        draw, corners = ImageDraw.Draw(layer), [scale * edge for edge in box]
        draw.rectangle(corners, outline=(*COLOUR, round(255 * strength)), width=LINE)
        # The text has its own background, so that it is readable on any picture.
        place = (corners[0] + LINE + 2, corners[1] + LINE)
        draw.rectangle(draw.textbbox(place, text), fill=(255, 255, 255, 200))
        draw.text(place, text, fill=(*COLOUR, 255))
        picture = Image.alpha_composite(picture, layer)
    with atomic_path(path) as temporary:
        form = Image.registered_extensions().get(f".{str(path).rsplit('.', 1)[-1].lower()}", "PNG")
        picture.convert("RGB").save(temporary, format=form)


def draw_sheet(images, texts, path, title=""):
    """Draw images in order, in rows of five, and write the picture atomically.

    Args:
        images: Paths of the images, or binary file objects.
        texts: One text per image.
        path: The file to write; its suffix determines the format (.png, .jpg).
        title: Text above the images.

    Raises:
        UserError: the picture cannot be written.
    """
    from PIL import Image, ImageDraw

    from datasets.storage.pictures import open_picture

    columns, rows = min(COLUMNS, len(images)), -(-len(images) // COLUMNS)
    step = TILE + MARGIN
    size = (MARGIN + columns * step, MARGIN + TEXT_HEIGHT + rows * (step + TEXT_HEIGHT))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill="black")
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        left = MARGIN + number % COLUMNS * step
        top = MARGIN + TEXT_HEIGHT + number // COLUMNS * (step + TEXT_HEIGHT)
        picture = open_picture(image)
        scale = TILE / max(picture.size)
        picture = picture.resize([max(1, round(scale * side)) for side in picture.size])
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + TILE - picture.height))
        draw.text((left, top + TILE + 2), text, fill="black")
    with atomic_path(path) as temporary:
        form = Image.registered_extensions().get(f".{str(path).rsplit('.', 1)[-1].lower()}", "PNG")
        sheet.save(temporary, format=form)
