"""Rows of the MM-IMDB demos (poster, text vector, genres): real ones from the easy-vqa package, and synthetic ones."""

import re
import zlib

import numpy as np

from datasets.mmimdb.dataset import IMAGE_SHAPE, TEXT_DIM
from util.cli import UserError

NATIVE_SIZE = (64, 64)
EASY_VQA_BLOCK = 256
SYNTHETIC_BLOCK = 128
POSTER_GENRES, TEXT_GENRES, PAIRS, PAIR_VALUES = 8, 7, 2, 4
TEXT_STRENGTH = 5.0
TEXT_NOISE = 0.2
PIXEL_NOISE = 24
# The poster is a 4 x 4 grid. Each pair variable fills one 2 x 2 corner with one of four colours, and each poster genre
# has its own cell in the other two corners.
GRID = 4
PAIR_CORNERS = ((0, 0), (2, 2))
GENRE_CELLS = ((0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1))
PAIR_COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], dtype=np.int16)
GENRE_COLOURS = np.array([(255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)] * 2, dtype=np.int16)
STRIPE = 4


def word_vector(word):
    """The fixed Gaussian vector of a word, float32 (300,), which is the same on every machine and in every run."""
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    return rng.standard_normal(TEXT_DIM).astype(np.float32)


def question_vector(question):
    """Sum of a question's word vectors, divided by the square root of their number: float32 (300,)."""
    words = re.findall(r"[a-z0-9]+", question.lower())
    return sum(word_vector(word) for word in words) / np.float32(np.sqrt(len(words)))


class EasyVQADemo:
    """Rows of picture, question and answer. Train and dev share no picture; test comes from easy-vqa's test set.

    Args:
        counts: dict split -> number of rows.
        seed: Seed of the choice of pictures and questions.
        image_size: (H, W), or None for the native 64 x 64.
        questions_per_image: Maximum number of questions about one picture.

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
        # Dev continues where train stopped in the same list of pictures, so that they share none.
        self.rows = {split: (test if split == "test" else train).take(split, counts[split]) for split in counts}

    def blocks(self):
        """Yield blocks of rows; see `datasets.demo.mmimdb.write_hdf5`."""
        for split, rows in self.rows.items():
            for start in range(0, len(rows), EASY_VQA_BLOCK):
                chosen = rows[start : start + EASY_VQA_BLOCK]
                labels = [self.label_names.index(answer) for _, _, answer in chosen]
                yield {
                    "images": np.stack([_read_picture(path, self._size) for path, _, _ in chosen]),
                    "features": np.stack([question_vector(question) for _, question, _ in chosen]),
                    "genres": np.eye(len(self.label_names), dtype=np.int32)[labels],
                    "imdb_ids": np.array([f"{split}-{start + i:06d}" for i in range(len(chosen))], dtype="S16"),
                }


class _Questions:
    """Hands out questions picture by picture, in a random order drawn with ``rng``."""

    def __init__(self, questions, paths, rng, per_image):
        self._rng = rng
        self._per_image = per_image
        self._pictures = {}
        for text, answer, image in zip(*questions, strict=True):
            self._pictures.setdefault(image, []).append((paths[image], text, answer))
        order = rng.permutation(np.array(sorted(self._pictures)))
        self._order = iter(order.tolist())

    def take(self, split, count):
        """Take ``count`` rows (path, question, answer) about pictures that were not handed out before."""
        rows = []
        for image in self._order:
            questions = self._pictures[image]
            picked = self._rng.permutation(len(questions))[: min(self._per_image, count - len(rows))]
            rows += [questions[number] for number in picked]
            if len(rows) == count:
                return [rows[number] for number in self._rng.permutation(count)]
        raise UserError(
            f"easy-vqa has only {len(rows):,} questions left for {split}, but {count:,} are needed:"
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

    from datasets.storage.pictures import open_picture

    picture = open_picture(path)
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)


class SyntheticDemo:
    """23 synthetic genres: 8 in the poster, 7 in the text, 2 x 4 in the combination of both.

    Each pair has a variable A in 0..3, which the poster shows, and a variable B in 0..3, which the text shows. A sample
    has its genre k exactly if (A + B) mod 4 = k. So neither A alone nor B alone contains information about the genre,
    and no sum of a score of the poster and a score of the text does either.

    Args:
        counts: dict split -> number of rows.
        seed: Seed of all random choices.
        image_size: (H, W), or None for 256 x 160.
    """

    synthetic = True
    description = "synthetic posters and texts, generated; not films"

    def __init__(self, counts, seed, image_size):
        self.counts = counts
        self._seed = seed
        self.image_shape = (3, *image_size) if image_size else IMAGE_SHAPE
        self.label_names = [f"synthetic poster {number}" for number in range(POSTER_GENRES)]
        self.label_names += [f"synthetic text {number}" for number in range(TEXT_GENRES)]
        self.label_names += [f"synthetic pair {pair} sum {k}" for pair in range(PAIRS) for k in range(PAIR_VALUES)]

    def blocks(self):
        """Yield blocks of rows; see `datasets.demo.mmimdb.write_hdf5`."""
        rng = np.random.default_rng(self._seed)
        # Orthonormal directions: one per text genre, then one per value of each text variable.
        gaussian = rng.standard_normal((TEXT_DIM, TEXT_GENRES + PAIRS * PAIR_VALUES))
        directions = np.linalg.qr(gaussian)[0].T
        chances = rng.uniform(0.25, 0.35, POSTER_GENRES + TEXT_GENRES)
        for split, count in self.counts.items():
            for start in range(0, count, SYNTHETIC_BLOCK):
                size = min(SYNTHETIC_BLOCK, count - start)
                single = rng.random((size, POSTER_GENRES + TEXT_GENRES)) < chances
                in_poster, in_text = rng.integers(PAIR_VALUES, size=(2, size, PAIRS))
                sums = (in_poster + in_text) % PAIR_VALUES
                pairs = np.eye(PAIR_VALUES, dtype=bool)[sums].reshape(size, -1)
                values = np.eye(PAIR_VALUES, dtype=bool)[in_text].reshape(size, -1)
                shown = np.concatenate([single[:, POSTER_GENRES:], values], axis=1)
                noise = rng.normal(0, TEXT_NOISE, (size, TEXT_DIM))
                yield {
                    "images": self._posters(rng, single[:, :POSTER_GENRES], in_poster),
                    "features": (TEXT_STRENGTH * shown @ directions + noise).astype(np.float32),
                    "genres": np.concatenate([single, pairs], axis=1).astype(np.int32),
                    "imdb_ids": np.array([f"{split}-{start + i:06d}" for i in range(size)], dtype="S16"),
                }

    def _posters(self, rng, genres, in_poster):
        """Draw posters uint8 (n, 3, H, W) from poster genres bool (n, 8) and pair variables int (n, 2)."""
        size, (_, height, width) = len(genres), self.image_shape
        background = rng.integers(40, 90, size=(size, 3, 1, 1), dtype=np.int16)
        posters = np.broadcast_to(background, (size, 3, height, width)).copy()
        for pair, (row, column) in enumerate(PAIR_CORNERS):
            rows, columns = self._area(row, column, cells=2)
            posters[:, :, rows, columns] = PAIR_COLOURS[in_poster[:, pair]][:, :, None, None]
        ys, xs = np.mgrid[:height, :width]
        for genre, (row, column) in enumerate(GENRE_CELLS):
            rows, columns = self._area(row, column, cells=1)
            stripes = (ys, xs, ys + xs, ys - xs)[genre % 4][rows, columns] // STRIPE % 2
            positive = np.flatnonzero(genres[:, genre])
            posters[positive, :, rows, columns] = GENRE_COLOURS[genre][:, None, None] * stripes
        posters += rng.integers(-PIXEL_NOISE, PIXEL_NOISE + 1, size=posters.shape, dtype=np.int16)
        return np.clip(posters, 0, 255).astype(np.uint8)

    def _area(self, row, column, cells):
        """Slices of the pixel rows and columns of a square of grid cells."""
        _, height, width = self.image_shape
        return (
            slice(row * height // GRID, (row + cells) * height // GRID),
            slice(column * width // GRID, (column + cells) * width // GRID),
        )
