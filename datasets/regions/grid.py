"""Grid features as one ``.pth`` file per image, as grid-feats-vqa writes them: maps of the last layers of a network.

A file contains one tensor, (1, D, h, w) or (D, h, w), and is named by the image's id. Each cell becomes a region, row
by row. The files do not contain the image size, so boxes are the cells, 32 pixels each, of the resized picture that the
network saw.
"""

import math

import numpy as np

from datasets.regions.files import BadRegions, checked_regions
from util.cli import UserError

ENDING = ".pth"
STRIDE = 32
# Value of ``boxes`` in meta.json of a store of such features.
BOXES = "cells of a grid, in pixels of a resized picture"


def read_grid(path, most):
    """Read the `Regions` of one file, with features float32 (h' w', D).

    Args:
        path: The file.
        most: Maximum number of regions, since networks do not read more. A larger map is averaged to the largest one of
            about the same shape that has at most this many cells.

    Raises:
        BadRegions: the file is missing, damaged, or contains something else.
    """
    import torch

    from util.checkpoint import load_checkpoint

    try:
        grid = load_checkpoint(path)
    except UserError as error:
        raise BadRegions(str(error).removeprefix(f"{path} ")) from None
    dense = isinstance(grid, torch.Tensor) and grid.layout == torch.strided and not (grid.is_meta or grid.is_nested)
    if not dense or not grid.is_floating_point():
        raise BadRegions("holds no tensor of numbers; expected grid features (1, D, h, w)")
    shape = tuple(grid.shape)
    grid = grid[0] if grid.dim() == 4 and len(grid) == 1 else grid
    if grid.dim() != 3 or not grid.numel():
        raise BadRegions(f"holds a tensor {shape}; expected grid features (1, D, h, w)")
    _, height, width = grid.shape
    rows, columns = pooled_size(height, width, most)
    grid = torch.nn.functional.adaptive_avg_pool2d(grid.detach().float()[None], (rows, columns))[0]
    features = np.ascontiguousarray(grid.flatten(1).T.numpy())
    row, column = np.divmod(np.arange(rows * columns), columns)
    cells = np.stack([column, row, column + 1, row + 1], axis=1)
    size = np.array([width / columns, height / rows] * 2) * STRIDE
    return checked_regions(features, (cells * size).astype(np.float32), height * STRIDE, width * STRIDE)


def pooled_size(height, width, most):
    """(rows, columns) of the largest grid with about the shape ``height`` x ``width`` and at most ``most`` cells."""
    if height * width <= most:
        return height, width
    scale = math.sqrt(most / (height * width))
    rows = min(most, max(1, math.floor(height * scale)))
    return rows, max(1, min(math.floor(width * scale), most // rows))
