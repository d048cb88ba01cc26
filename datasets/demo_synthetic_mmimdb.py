"""Synthetic MM-IMDB-like rows: genres that show in the poster, in the text, or only in both together."""

import numpy as np

from datasets.mmimdb import IMAGE_SHAPE, TEXT_DIM

BLOCK = 128
POSTER_GENRES, TEXT_GENRES, PAIRS, PAIR_VALUES = 8, 7, 2, 4
TEXT_STRENGTH = 5.0
TEXT_NOISE = 0.2
PIXEL_NOISE = 24
# The poster is a 4 x 4 grid. Each pair variable fills one 2 x 2 corner with one of four colours,
# each poster genre has a cell of its own in the other two corners.
GRID = 4
PAIR_CORNERS = ((0, 0), (2, 2))
GENRE_CELLS = ((0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1))
PAIR_COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], dtype=np.int16)
GENRE_COLOURS = np.array([(255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)] * 2, dtype=np.int16)
STRIPE = 4


class SyntheticDemo:
    """23 synthetic genres: 8 in the poster, 7 in the text, 2 x 4 in the combination of both.

    Each pair has a variable A in 0..3 drawn in the poster and a variable B in 0..3 drawn in the text;
    its genre k holds exactly when (A + B) mod 4 = k. So A alone and B alone say nothing about it,
    and no sum of a score of the poster and a score of the text does either.

    Args:
        counts: Rows per split.
        seed: Seed of everything.
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
        """Yield blocks of rows; see `datasets.demo_mmimdb.write_hdf5`."""
        rng = np.random.default_rng(self._seed)
        # Orthonormal directions: one per text genre, then one per value of each text variable.
        gaussian = rng.standard_normal((TEXT_DIM, TEXT_GENRES + PAIRS * PAIR_VALUES))
        directions = np.linalg.qr(gaussian)[0].T
        chances = rng.uniform(0.25, 0.35, POSTER_GENRES + TEXT_GENRES)
        for split, count in self.counts.items():
            for start in range(0, count, BLOCK):
                size = min(BLOCK, count - start)
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
        """Posters uint8 (n, 3, H, W) from poster genres bool (n, 8) and pair variables (n, 2)."""
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
        """The pixel rows and columns of a square of cells of the grid, as slices."""
        _, height, width = self.image_shape
        return (
            slice(row * height // GRID, (row + cells) * height // GRID),
            slice(column * width // GRID, (column + cells) * width // GRID),
        )
