"""Each row's nearest training latents, and how far at least all the others are: what the near field is summed over.

The lists serve every bandwidth and every alpha: a candidate's near field are the lists of its two parents. `nearest`
is one pass over the latents by matrix products; `index.LatentIndex.search` takes the lists of a FAISS index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds import _near_compiled
from ldsaug_ray.lds._compiled import FAR, in_threads
from ldsaug_ray.lds._frame import EPSILON, Frame
from ldsaug_ray.lds._kernel import rows_within

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Products = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Neighbours:
    """Lists of latents near each of R rows.

    ids: int64[R, k], in no order, -1 where there are fewer; beyond: float64[R], a squared distance that no latent
    outside the list (but the row itself) is below, inf where the list holds all; bounded: whether that is certain.
    It is not where an index may have missed a neighbour: then `beyond` is what holds for the latents that were found.
    """

    ids: Index
    beyond: Array
    bounded: bool = True


def nearest(
    frame: Frame,
    train: NDArray[np.floating],  # [N, d]
    points: NDArray[np.floating],  # [R, d]
    own: Index,  # [R] the latent that a row is and that is left out; -1 for none
    k: int,
    *,
    products: Products = "float32",
    tile_rows: int = 32768,
    tile_latents: int = 1024,
) -> Neighbours:
    """The k nearest by inner products of that type, and a certain bound for all the others.

    A list may hold another latent than the true k-th where rounding hides their difference; `beyond` allows for it.
    bfloat16 takes a tenth of float32's time where the processor multiplies matrices of it (Intel AMX), and its bound
    is about 1 % lower. Raises ConfigError for k < 1 or another type.
    """
    if k < 1:
        raise ConfigError(f"neighbours must be at least 1; found {k}")
    if products not in get_args(Products):
        raise ConfigError(f"unknown products {products!r}; possible: {', '.join(get_args(Products))}")
    k = min(k, len(train))
    ids, beyond = np.full((len(points), k), -1, np.int64), np.empty(len(points))
    kind = torch.bfloat16 if products == "bfloat16" else torch.float32
    tile_rows = rows_within(tile_rows, train.shape[1])
    for top in range(0, len(points), tile_rows):
        part = slice(top, min(top + tile_rows, len(points)))
        rows = frame.rows(points[part], np.float32)
        vectors, loss = _rounded(rows.tensor(), kind)
        gaps = np.full((len(rows.norms), k), np.inf, np.float32)
        most_lost = farthest = 0.0
        for start in range(0, len(train), tile_latents):
            latents = frame.rows(train[start : start + tile_latents], np.float32)
            others, lost = _rounded(latents.tensor(), kind)
            most_lost, farthest = max(most_lost, float(lost.max())), max(farthest, float(latents.norms.max()) ** 0.5)
            cross = torch.mm(vectors, others.T)
            hidden = own[part] - start
            inside = np.flatnonzero((hidden >= 0) & (hidden < len(others)))
            cross[torch.from_numpy(inside), torch.from_numpy(hidden[inside])] = -float(FAR)
            in_threads(
                _near_compiled.keep_nearest,
                len(cross),
                cross.numpy() if kind == torch.float32 else cross.view(torch.int16).numpy(),
                latents.norms_from(frame.typical_norm),
                start,
                gaps,
                ids[part],
            )
        complete = np.isfinite(gaps[:, 0])  # the heap's front is the farthest of the k
        # gaps were compared less the typical norm, in float32
        shift = 4 * EPSILON * frame.typical_norm
        kth = np.where(complete, gaps[:, 0], 0) + frame.typical_norm + rows.norms + shift
        size = np.sqrt(rows.norms)
        # a latent nearer than the k-th found is within its distance: its norm is bounded, and so is its error
        reach = np.minimum(size + np.sqrt(np.maximum(kth, 0)), farthest)
        output = 2.0**-8 if kind == torch.bfloat16 else 0.0
        share = loss + most_lost * (1 + loss) + output + (train.shape[1] + 8) * EPSILON
        off = 2 * share * size * reach + 4 * EPSILON * (size + reach) ** 2 + 2 * shift
        beyond[part] = np.where(complete, np.maximum(kth - off, 0) * frame.scale**2, np.inf)
    return Neighbours(ids, beyond)


def _rounded(vectors: torch.Tensor, kind: torch.dtype) -> tuple[torch.Tensor, Array]:
    """Vectors [R, d] in that type and how far off each is, relative to its norm."""
    if kind == vectors.dtype:
        return vectors, np.zeros(len(vectors))
    out = vectors.to(kind)
    norms = torch.linalg.vector_norm(vectors, dim=1)
    off = torch.linalg.vector_norm(out.float() - vectors, dim=1)
    return out, torch.where(norms > 0, off / norms, 0.0).numpy().astype(np.float64) * (1 + 1e-3)


def squared_distances(train: NDArray[np.floating], ids: Index, points: NDArray[np.floating]) -> Array:
    """||train[ids[r, t]] - points[r]||^2 by direct differences, float64[R, k]; inf where the id is negative."""
    out = np.empty(ids.shape)
    in_threads(_near_compiled.squared_distances, len(ids), train, ids, points, out)
    return out
