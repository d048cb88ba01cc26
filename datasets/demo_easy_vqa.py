"""Real pictures and questions of the easy-vqa package as MM-IMDB-like rows: poster, text vector, 13 genres."""

import re
import zlib

import numpy as np

from datasets.mmimdb import TEXT_DIM
from util.cli import UserError

NATIVE_SIZE = (64, 64)
BLOCK = 256


def word_vector(word):
    """The fixed Gaussian vector of a word, float32 (300,): the same on every machine and in every run."""
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    return rng.standard_normal(TEXT_DIM).astype(np.float32)


def question_vector(question):
    """Sum of the word vectors over the square root of their number, float32 (300,)."""
    words = re.findall(r"[a-z0-9]+", question.lower())
    return sum(word_vector(word) for word in words) / np.float32(np.sqrt(len(words)))


class EasyVQADemo:
    """Rows of picture, question and answer; dev pictures never occur in train, test comes from easy-vqa's test.

    Args:
        counts: Rows per split.
        seed: Seed of the choice of pictures and questions.
        image_size: (H, W), or None for the native 64 x 64.
        questions_per_image: Most questions about one picture.

    Raises:
        UserError: easy-vqa is not installed, or has too few questions.
    """

    synthetic = False
    description = "easy-vqa: real pictures and questions of the easy_vqa package, answers as genres"

    def __init__(self, counts, seed, image_size, questions_per_image):
        package = _import_easy_vqa()
        self.counts = counts
        self.label_names = [str(answer) for answer in package.get_answers()]
        self._size = tuple(image_size or NATIVE_SIZE)
        self.image_shape = (3, *self._size)
        rng = np.random.default_rng(seed)
        train = _Questions(package.get_train_questions(), package.get_train_image_paths(), rng, questions_per_image)
        test = _Questions(package.get_test_questions(), package.get_test_image_paths(), rng, questions_per_image)
        # Train and dev take turns on one list of pictures, so that they share none.
        self.rows = {split: (test if split == "test" else train).take(split, counts[split]) for split in counts}

    def blocks(self):
        """Yield blocks of rows; see `datasets.demo_mmimdb.write_hdf5`."""
        for split, rows in self.rows.items():
            for start in range(0, len(rows), BLOCK):
                chosen = rows[start : start + BLOCK]
                labels = [self.label_names.index(answer) for _, _, answer in chosen]
                yield {
                    "images": np.stack([_read_picture(path, self._size) for path, _, _ in chosen]),
                    "features": np.stack([question_vector(question) for _, question, _ in chosen]),
                    "genres": np.eye(len(self.label_names), dtype=np.int32)[labels],
                    "imdb_ids": np.array([f"{split}-{start + i:06d}" for i in range(len(chosen))], dtype="S16"),
                }


class _Questions:
    """Hands out questions picture by picture, in an order drawn from ``rng``."""

    def __init__(self, questions, paths, rng, per_image):
        self._rng = rng
        self._per_image = per_image
        self._pictures = {}
        for text, answer, image in zip(*questions, strict=True):
            self._pictures.setdefault(image, []).append((paths[image], text, answer))
        order = rng.permutation(np.array(sorted(self._pictures)))
        self._order = iter(order.tolist())

    def take(self, split, count):
        """``count`` rows (path, question, answer) about pictures that were not handed out before."""
        rows = []
        for image in self._order:
            questions = self._pictures[image]
            picked = self._rng.permutation(len(questions))[: min(self._per_image, count - len(rows))]
            rows += [questions[number] for number in picked]
            if len(rows) == count:
                return [rows[number] for number in self._rng.permutation(count)]
        raise UserError(
            f"easy-vqa has only {len(rows):,} questions left for {split} where {count:,} are wanted:"
            f" lower --{split}, or raise --questions_per_image ({self._per_image} now)"
        )


def _import_easy_vqa():
    try:
        import easy_vqa
    except ImportError:
        raise UserError("--source easy-vqa needs the package easy_vqa: pip install easy-vqa") from None
    return easy_vqa


def _read_picture(path, size):
    from PIL import Image

    from datasets.pictures import open_picture

    picture = open_picture(path)
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)
