"""A picture of several images side by side, each with a text below it."""

from util.files import atomic_path

TILE, MARGIN, TEXT_HEIGHT, COLUMNS = 240, 12, 22, 5


def draw_sheet(images, texts, path, title=""):
    """Draw images in rows of five, in their order, and write the picture atomically.

    Args:
        images: Paths of the images.
        texts: A text for each.
        path: Where to write; the suffix gives the form (.png, .jpg).
        title: Text above them.

    Raises:
        UserError: the picture cannot be written.
    """
    from PIL import Image, ImageDraw

    from datasets.pictures import open_picture

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
