"""One image and one text of a user as a batch, for a network that is asked instead of trained."""

import logging

import torch

from datasets.extractors import extractor_from_meta, regions_of_image
from datasets.vqa_text import UNK, tokenise
from util.cli import UserError

log = logging.getLogger("mdarts")


def read_sample(image, text, *, flag, vocabulary, max_tokens, extraction, device):
    """A batch of one image and one text.

    Args:
        image: Path of the image.
        text: What is asked, in words.
        flag: Flag that ``text`` came with, for messages.
        vocabulary: `Vocabulary` of the network.
        max_tokens: Most words of a text.
        extraction: How the features of the network's images were made: ``extraction`` of its data.
        device: Torch device.

    Returns:
        dict of regions float32 (1, n, D), boxes float32 (1, n, 4) as x1, y1, x2, y2 in pixels, image_size float32
        (1, 2) as height and width, counts int64 (1,) and tokens int64 (1, T), on ``device``.

    Raises:
        UserError: the image cannot be read, or the text has no word that the network knows.
    """
    tokens = read_text(text, flag=flag, vocabulary=vocabulary, max_tokens=max_tokens)
    batch = read_regions(image, extractor_from_meta(extraction, str(device))) | {"tokens": tokens}
    return {name: value.to(device) for name, value in batch.items()}


def read_text(text, *, flag, vocabulary, max_tokens):
    """The tokens of one text: int64 (1, T); arguments and error as in `read_sample`."""
    tokens = vocabulary.encode([text], max_tokens)
    words = tokens[0][tokens[0] != 0]
    if not len(words) or (words == UNK).all():
        raise UserError(f"{flag} {text!r}: the network knows none of these words; use the words of its data")
    said = tokenise(text)
    unknown = [word for word, number in zip(said, words.tolist(), strict=False) if number == UNK]
    if unknown:
        log.warning("%s: the network does not know %s", flag, ", ".join(unknown))
    if len(said) > max_tokens:
        log.warning("%s: the network reads %d words; the rest is left out", flag, max_tokens)
    return torch.from_numpy(words.astype("int64"))[None]


def read_regions(image, extractor):
    """What `read_sample` returns but the tokens, by an extractor of `datasets.extractors`, on the CPU."""
    found = regions_of_image(image, extractor)
    return {
        "regions": torch.from_numpy(found["x"])[None],
        "boxes": torch.from_numpy(found["boxes"])[None].float(),
        "image_size": torch.tensor([[found["height"], found["width"]]], dtype=torch.float32),
        "counts": torch.tensor([len(found["x"])]),
    }
