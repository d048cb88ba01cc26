"""Hard negatives of image-text matching: the captions and images that a training sample is compared with.

Two tables hold five candidates each, for images the captions and for captions the images; every epoch a sample takes
one of the five. They lie in shared memory, so that loader processes that outlive an epoch see the new ones.
"""

import numpy as np
import torch

from datasets.itm.files import CAPTIONS_PER_IMAGE
from util.cli import UserError
from util.hashed_draws import hashed_integers

# Streams of `hashed_integers`.
_CAPTIONS_OF, _IMAGES_OF, _CHOICE_OF_CAPTION, _CHOICE_OF_IMAGE = range(4)


def other_captions(key, images, count, num_images):
    """Random captions of other images: int64 (n, count), a row for each of ``images`` int64 (n,).

    Uniform, repeats are possible, a function of ``key`` and the image alone.
    """
    own = CAPTIONS_PER_IMAGE * np.asarray(images)[:, None]
    drawn = hashed_integers((*key, _CAPTIONS_OF), images, count, CAPTIONS_PER_IMAGE * (num_images - 1))
    return drawn + CAPTIONS_PER_IMAGE * (drawn >= own)


def other_images(key, captions, count, num_images):
    """Random images other than each caption's own: int64 (n, count); see `other_captions`."""
    own = np.asarray(captions)[:, None] // CAPTIONS_PER_IMAGE
    drawn = hashed_integers((*key, _IMAGES_OF), captions, count, num_images - 1)
    return drawn + (drawn >= own)


def hardest(scores, candidates, count):
    """The ``count`` candidates with the largest scores of each row: (n, count); of equal ones the earlier."""
    return np.take_along_axis(candidates, np.argsort(-scores, axis=1, kind="stable")[:, :count], axis=1)


class Negatives:
    """The two tables, at first of candidate 0 everywhere.

    Args:
        num_images: Number of images n.
        size: Candidates per row.

    Attributes:
        captions: int64 (n, size), for each image captions of others; shared memory.
        images: int64 (5 n, size), for each caption other images; shared memory.

    Raises:
        UserError: shared memory has no room for them.
    """

    def __init__(self, num_images, size):
        self.num_images, self.size = num_images, size
        self.captions = _shared_zeros(num_images, size)
        self.images = _shared_zeros(CAPTIONS_PER_IMAGE * num_images, size)

    def draw(self, seed, epoch):
        """Fill both tables at random. NOTE: unlike the original's, they never hold a matching pair."""
        rows = np.arange(len(self.images))
        key, images = (seed, epoch), rows[: self.num_images]
        self.set(
            other_captions(key, images, self.size, self.num_images),
            other_images(key, rows, self.size, self.num_images),
        )

    def set(self, captions, images):
        """Take over tables, int64 arrays of the shapes of `captions` and `images`."""
        self.captions.copy_(torch.from_numpy(np.ascontiguousarray(captions)))
        self.images.copy_(torch.from_numpy(np.ascontiguousarray(images)))

    def of(self, captions, seed, epoch):
        """The negatives of the samples ``captions`` int64 (B,): images and captions, int64 (B,) each.

        Which of the candidates it is depends on seed, epoch and caption alone.
        """
        picks = [
            hashed_integers((seed, epoch, stream), captions, 1, self.size)[:, 0]
            for stream in (_CHOICE_OF_IMAGE, _CHOICE_OF_CAPTION)
        ]
        return self.images.numpy()[captions, picks[0]], self.captions.numpy()[captions // CAPTIONS_PER_IMAGE, picks[1]]

    def state_dict(self):
        """Both tables."""
        return {"captions": self.captions.clone(), "images": self.images.clone()}

    def load_state_dict(self, state):
        """Continue with the tables of `state_dict`."""
        self.captions.copy_(state["captions"])
        self.images.copy_(state["images"])


def _shared_zeros(*shape):
    table = torch.zeros(shape, dtype=torch.int64)
    try:
        return table.share_memory_()
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"no room in shared memory for the {table.nbytes / 2**20:,.1f} MB of negatives"
            f" ({' '.join(str(error).split())}); free /dev/shm, or give more with `docker run --shm-size 8g`"
        ) from None
