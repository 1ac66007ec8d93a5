"""What stands on the page for items: tiles of images, and contact sheets of them; or what else the domain shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldsaug_ray.domains import Domain
from ldsaug_ray.domains.base import Array
from ldsaug_ray.domains.images.stored import png_bytes

SMALLEST, LARGEST = 64, 128  # side of a tile, px
GAP = 4
COLUMNS = 8


def tile_side(resolution: int) -> int:
    """Side of the tile that shows an image of this side: whole multiples below 64 px, at most 128."""
    if resolution >= LARGEST:
        return LARGEST
    return resolution * math.ceil(SMALLEST / resolution)


Shown = NDArray[np.uint8] | list[str]  # tiles uint8[N, T, T, 3], or a fragment of HTML each


def shown(domain: Domain, batch: Array, facts: Mapping[str, Any]) -> Shown:
    """What the page shows of each item of a batch."""
    pixels = domain.pixels(batch)
    return domain.show(batch, facts) if pixels is None else tiles(pixels)


def in_a_row(parts: Sequence[Any]) -> Shown:
    """Single tiles, or fragments, as several."""
    return [str(part) for part in parts] if isinstance(parts[0], str) else np.stack(parts)


def blocks(fragments: Sequence[str]) -> str:
    """Fragments of HTML, each in a block."""
    return "".join(f"<div>{fragment}</div>" for fragment in fragments)


def drawn(name: str, items: Shown, columns: int = 8) -> dict[str, bytes]:
    """A file of the report for some items: NAME.png, a contact sheet, or NAME.html."""
    if isinstance(items, list):
        return {f"{name}.html": blocks(items).encode()}
    return {f"{name}.png": sheet(items, columns)}


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


def beside(above: Shown, below: Shown) -> Shown:
    """Items, each followed by its other: tiles as `pairs`, fragments in turn."""
    if isinstance(above, list):
        return [fragment for both in zip(above, below, strict=True) for fragment in both]
    return pairs(above, np.asarray(below))


def pairs(above: NDArray[np.uint8], below: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles uint8[N, T, T, 3] for a sheet whose rows alternate: some of the first, those of the second below them."""
    rows = [x[k : k + COLUMNS] for k in range(0, len(above), COLUMNS) for x in (above, below)]
    return np.concatenate(rows)
