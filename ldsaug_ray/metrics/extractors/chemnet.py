"""ChemNet: the 512 features of molecules whose Fréchet distance is the FCD (Preuer et al. 2018, arXiv:1803.09518)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork, read_weights
from ldsaug_ray.models.torchscript import load_torchscript

SYMBOLS = (*"CNOHF", "Cl", "P", "B", "Br", "S", "I", "Si", *"#()+-12345678=[]@cnosX.")
UNKNOWN, END, PADDING = SYMBOLS.index("X"), SYMBOLS.index("."), 255
LONGEST = 349  # symbols before `END`
WIDTH = 512  # features
_NUMBER = {symbol: n for n, symbol in enumerate(SYMBOLS)}
_SYMBOL = re.compile(r".[ril]|.", re.DOTALL)  # two letters where the second is one of these


def chemnet_tokens(smiles: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    """uint8[N, T ≤ 350] of canonical SMILES S[N], as the network was trained to read them."""
    rows = []
    for text in smiles.tolist():
        found = _SYMBOL.findall(text.decode().partition(".")[0])[:LONGEST]
        rows.append([*(_NUMBER.get(symbol, UNKNOWN) for symbol in found), END])
    out = np.full((len(rows), max(map(len, rows), default=1)), PADDING, np.uint8)
    for to, row in zip(out, rows, strict=True):
        to[: len(row)] = row
    return out


class ChemNet(FeatureNetwork):
    """`chemnet:FILE.pt`: TorchScript, uint8[N, T] of `chemnet_tokens` to float32[N, 512]."""

    domain = "molecules"

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """The file after the colon."""
        if not where:
            raise ConfigError("extractor chemnet: name its weights, chemnet:FILE.pt")
        data = read_weights(Path(where))
        return load_torchscript(data, where), hashlib.sha256(data).hexdigest()

    def stamp(self, spec: str, where: str) -> str:
        return hashlib.sha256(read_weights(Path(where))).hexdigest() if where else ""

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """Tokens of SMILES S[N], uint8[N, T]."""
        return torch.from_numpy(chemnet_tokens(batch))

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        features: Tensor = network(pixels)
        if features.shape[1] != WIDTH:
            raise ConfigError(f"extractor chemnet: the file gives {features.shape[1]} features; ChemNet has {WIDTH}")
        return features


EXTRACTORS.add("chemnet", ChemNet())
