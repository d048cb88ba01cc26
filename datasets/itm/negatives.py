"""Hard negatives of image-text matching: the captions and images that a training sample is compared with.

One table has candidate captions for every image, the other has candidate images for every caption, by default five
each. In every epoch a sample uses one of its candidates. The tables are in shared memory, so that data loader workers
that outlive an epoch see the new ones.
"""

import numpy as np
import torch

from datasets.itm.files import CAPTIONS_PER_IMAGE
from util.cli import UserError
from util.hashed_draws import hashed_integers

# Numbers of the random streams of `hashed_integers`.
_CAPTIONS_OF, _IMAGES_OF, _CHOICE_OF_CAPTION, _CHOICE_OF_IMAGE = range(4)


def other_captions(key, images, count, num_images):
    """Draw captions of other images: int64 (n, count), a row for each of ``images`` int64 (n,).

    They are uniform with replacement, and depend on ``key`` and the image alone.
    """
    own = CAPTIONS_PER_IMAGE * np.asarray(images)[:, None]
    drawn = hashed_integers((*key, _CAPTIONS_OF), images, count, CAPTIONS_PER_IMAGE * (num_images - 1))
    return drawn + CAPTIONS_PER_IMAGE * (drawn >= own)


def other_images(key, captions, count, num_images):
    """Draw images other than each caption's own: int64 (n, count); see `other_captions`."""
    own = np.asarray(captions)[:, None] // CAPTIONS_PER_IMAGE
    drawn = hashed_integers((*key, _IMAGES_OF), captions, count, num_images - 1)
    return drawn + (drawn >= own)


def hardest(scores, candidates, count):
    """The ``count`` candidates with the largest scores of each row: (n, count); ties keep the order of candidates."""
    return np.take_along_axis(candidates, np.argsort(-scores, axis=1, kind="stable")[:, :count], axis=1)


class Negatives:
    """The two tables of candidates; they are zeros until `draw` or `set` fills them.

    Args:
        num_images: Number of images n.
        size: Number of candidates per row.

    Attributes:
        captions: int64 (n, size), captions of other images for each image; in shared memory.
        images: int64 (5 n, size), other images for each caption; in shared memory.

    Raises:
        UserError: shared memory has no room for the tables.
    """

    def __init__(self, num_images, size):
        self.num_images, self.size = num_images, size
        self.captions = _shared_zeros(num_images, size)
        self.images = _shared_zeros(CAPTIONS_PER_IMAGE * num_images, size)

    def draw(self, seed, epoch):
        """Fill both tables at random. NOTE: unlike the original's, they never contain a matching pair."""
        rows = np.arange(len(self.images))
        key, images = (seed, epoch), rows[: self.num_images]
        self.set(
            other_captions(key, images, self.size, self.num_images),
            other_images(key, rows, self.size, self.num_images),
        )

    def set(self, captions, images):
        """Replace both tables by int64 arrays of the shapes of `captions` and `images`."""
        self.captions.copy_(torch.from_numpy(np.ascontiguousarray(captions)))
        self.images.copy_(torch.from_numpy(np.ascontiguousarray(images)))

    def of(self, captions, seed, epoch):
        """Choose the negatives of the samples ``captions`` int64 (B,): (images, captions), int64 (B,) each.

        The choice among the candidates depends on seed, epoch and caption alone.
        """
        picks = [
            hashed_integers((seed, epoch, stream), captions, 1, self.size)[:, 0]
            for stream in (_CHOICE_OF_IMAGE, _CHOICE_OF_CAPTION)
        ]
        return self.images.numpy()[captions, picks[0]], self.captions.numpy()[captions // CAPTIONS_PER_IMAGE, picks[1]]

    def state_dict(self):
        """dict of copies of both tables."""
        return {"captions": self.captions.clone(), "images": self.images.clone()}

    def load_state_dict(self, state):
        """Restore both tables from a `state_dict`."""
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
