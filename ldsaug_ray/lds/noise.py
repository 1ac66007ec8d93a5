"""Isotropic noise of candidates: of one norm, a function of (seed, id), whoever asks for it.

Candidate c takes the words of Philox-4x64-10 with key (seed, TAG) from counter c S on, S = ceil(d / 4) (Salmon et al.
2011); x[k] = Phi^-1(((word[k] >> 12) + 1/2) 2**-52) for k < d is N(0, I), and radius x / ||x|| uniform on the sphere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAG = int.from_bytes(b"noise", "big")  # second key word: apart from other uses of the same seed


def uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers strictly between 0 and 1, exact: the middles of 2**52 equal parts, by the words' upper bits."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class Noise:
    """Noise of a radius, in the latents' units."""

    radius: float
    seed: int

    @classmethod
    def kept(cls, entry: Mapping[str, Any], seed: int) -> Noise | None:
        """The noise of candidates that were scored, by the manifest's entry of `score`."""
        return cls(entry["noise_radius"], seed) if "noise_radius" in entry else None

    def of(self, ids: NDArray[np.int64], d: int) -> NDArray[np.float64]:
        """Noise of candidates, float64[M, d]; fastest where their ids follow each other."""
        from scipy.special import ndtri

        out, steps = np.empty((len(ids), d)), -(-d // 4)
        starts = np.flatnonzero(np.diff(ids, prepend=-2) != 1)
        for start, stop in pairwise([*starts, len(ids)]):
            source = np.random.Philox(key=np.array([self.seed, TAG], np.uint64)).advance(int(ids[start]) * steps)
            words = source.random_raw(4 * steps * (stop - start)).reshape(stop - start, 4 * steps)[:, :d]
            out[start:stop] = ndtri(uniform(words))
        return out * (self.radius / np.linalg.norm(out, axis=1, keepdims=True))
