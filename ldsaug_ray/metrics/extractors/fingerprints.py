"""Molecules without a network: how often each of their circular substructures occurs, in 128 bins.

Morgan fingerprints of radius 2 (Rogers & Hahn 2010), as log(1 + count): what needs no weights, and few molecules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.domains.molecules.chemistry import molecule
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork

BINS = 128


class Fingerprints(FeatureNetwork):
    """`fingerprints`: of what is no molecule all 0."""

    domain = "molecules"

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """Counts of SMILES S[N], float32[N, 128]."""
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

        counts = GetMorganGenerator(radius=2, fpSize=BINS).GetCountFingerprintAsNumPy
        found = [molecule(text.decode()) for text in batch.tolist()]
        rows = [np.zeros(BINS, np.uint32) if m is None else counts(m) for m in found]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return torch.log1p(pixels)


EXTRACTORS.add("fingerprints", Fingerprints())
