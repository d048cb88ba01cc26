"""A picture of an image's regions, each as strong as the weight that a network gave it."""

from util.files import atomic_path

# Regions below this share of the largest weight are not drawn.
FAINT = 0.05
COLOUR = (213, 94, 0)
LARGEST_SIDE, SMALLEST_SIDE = 1200, 400


def draw_regions(image, boxes, weights, path):
    """Draw boxes over an image and write it atomically.

    Args:
        image: Path of the image.
        boxes: float (n, 4), x1, y1, x2, y2 in pixels of the image.
        weights: float (n,), not negative.
        path: Where to write; the suffix gives the form (.png, .jpg).

    Raises:
        UserError: the picture cannot be written.
    """
    from PIL import Image, ImageDraw

    picture = Image.open(image).convert("RGB")
    scale = max(1, round(SMALLEST_SIDE / min(picture.size)))
    scale = min(scale, LARGEST_SIDE / max(picture.size))
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.NEAREST).convert("RGBA")
    largest = max(float(weights.max()), 1e-12)
    for box, weight in sorted(zip(boxes.tolist(), weights.tolist(), strict=True), key=lambda pair: pair[1]):
        if weight < FAINT * largest:
            continue
        layer = Image.new("RGBA", picture.size)
        draw, corners = ImageDraw.Draw(layer), [scale * edge for edge in box]
        draw.rectangle(corners, outline=(*COLOUR, round(255 * weight / largest)), width=3)
        draw.text((corners[0] + 5, corners[1] + 3), f"{100 * weight:.0f} %", fill=(*COLOUR, 255))
        picture = Image.alpha_composite(picture, layer)
    with atomic_path(path) as temporary:
        form = Image.registered_extensions().get(f".{str(path).rsplit('.', 1)[-1].lower()}", "PNG")
        picture.convert("RGB").save(temporary, format=form)
