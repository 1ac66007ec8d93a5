"""Contact sheets: uint8 images to tiles of a size that a page can show, and tiles to one PNG."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldsaug_ray.domains.images.stored import png_bytes

SMALLEST, LARGEST = 64, 128  # side of a tile, px
GAP = 4
COLUMNS = 8


def tile_side(resolution: int) -> int:
    """Side of the tile that shows an image of this side: whole multiples below 64 px, at most 128."""
    if resolution >= LARGEST:
        return LARGEST
    return resolution * math.ceil(SMALLEST / resolution)


def tiles(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[N, R, R, 3] -> uint8[N, T, T, 3], T = `tile_side(R)`; pixels repeated, or averaged where there are more."""
    n, side = images.shape[:2]
    target = tile_side(side)
    if target == side:
        return images.copy()
    if target > side:
        factor = target // side
        return images.repeat(factor, axis=1).repeat(factor, axis=2)
    small = [np.asarray(Image.fromarray(x).resize((target, target), Image.Resampling.LANCZOS)) for x in images]
    return np.stack(small) if n else np.empty((0, target, target, 3), np.uint8)


def sheet(images: NDArray[np.uint8], columns: int = COLUMNS) -> bytes:
    """Tiles uint8[N, T, T, 3] row by row as one PNG, transparent between them. Raises ValueError for no tiles."""
    n = len(images)
    if n == 0:
        raise ValueError("a contact sheet needs at least one image")
    side, columns = images.shape[1], min(columns, n)
    rows = math.ceil(n / columns)
    step = side + GAP
    canvas = np.zeros((rows * step - GAP, columns * step - GAP, 4), np.uint8)
    for k, image in enumerate(images):
        y, x = (k // columns) * step, (k % columns) * step
        canvas[y : y + side, x : x + side, :3] = image
        canvas[y : y + side, x : x + side, 3] = 255
    return png_bytes(canvas, optimize=True)


def pairs(above: NDArray[np.uint8], below: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles uint8[N, T, T, 3] for a sheet whose rows alternate: some of the first, those of the second below them."""
    rows = [x[k : k + COLUMNS] for k in range(0, len(above), COLUMNS) for x in (above, below)]
    return np.concatenate(rows)
