"""SMILES to the tokens of a notation and back, and the vocabulary of a training set: of the domain and of the model.

SMILES (Weininger 1988) are cut by the expression of Schwaller et al. 2018 (arXiv:1711.04810); what is decoded need not
be a molecule. Every string of SELFIES (Krenn et al. 2020, arXiv:1905.13741) is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import InputError, ResourceError

Notation = Literal["smiles", "selfies"]
Smiles = NDArray[np.bytes_]

PAD, BEGIN, END, MASK = range(4)  # before the tokens of the vocabulary
FIRST = 4
_SMILES = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|[A-Za-z]|\d|[^A-Za-z\d\s\[\]]")
_SHOWN = 5


class Vocabulary:
    """Tokens of one notation, and their numbers from `FIRST` on."""

    def __init__(self, notation: Notation, tokens: Sequence[str]) -> None:
        self.notation: Notation = notation
        self.tokens = tuple(tokens)
        self._number = {token: n for n, token in enumerate(self.tokens, FIRST)}

    @classmethod
    def of(cls, notation: Notation, smiles: Iterable[bytes]) -> Vocabulary:
        """All tokens of these molecules, in the order of the alphabet. Raises InputError as `tokens_of`.

        Of SELFIES also those that any molecule is written with, so that what is decoded can be read again.
        """
        tokens = {token for one in smiles for token in tokens_of(notation, one.decode())}
        if notation == "selfies":
            tokens |= _selfies().get_semantic_robust_alphabet()
        return cls(notation, sorted(tokens))

    def __len__(self) -> int:
        return FIRST + len(self.tokens)

    def numbers(self, smiles: Smiles) -> NDArray[np.int64]:
        """int64[N, T]: tokens and `END`, then `PAD` up to the longest.

        Raises:
            InputError: a token is not in the vocabulary, or a molecule has no form in the notation.
        """
        rows = [tokens_of(self.notation, one.decode()) for one in smiles.tolist()]
        if unknown := sorted({token for row in rows for token in row} - self._number.keys()):
            first = next(one for one, row in zip(smiles.tolist(), rows, strict=True) if unknown[0] in row).decode()
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            raise InputError(
                f"{', '.join(unknown[:_SHOWN])}{more}: not among the {len(self.tokens)} tokens that the model was "
                f"trained on ({self.notation}; first in {first}); leave such molecules out, or train with them"
            )
        out = np.full((len(rows), max(map(len, rows), default=0) + 1), PAD, np.int64)
        for to, row in zip(out, rows, strict=True):
            to[: len(row) + 1] = [*(self._number[token] for token in row), END]
        return out

    def smiles(self, numbers: NDArray[np.int64], length: int) -> Smiles:
        """SMILES S[length] of int64[N, T], each up to its first `END`; longer ones are cut before a token."""
        join = _decoder(self.notation)
        rows = []
        for row in numbers.tolist():
            stop = row.index(END) if END in row else len(row)
            text = join([self.tokens[n - FIRST] for n in row[:stop] if n >= FIRST])
            if len(text) > length:
                sizes = accumulate(map(len, whole := tokens_of("smiles", text)))
                text = "".join(whole[: sum(size <= length for size in sizes)])
            rows.append(text.encode())
        return np.array(rows, f"S{length}")


@lru_cache(maxsize=1 << 17)  # a training set's, epoch after epoch
def tokens_of(notation: Notation, smiles: str) -> tuple[str, ...]:
    """A molecule's tokens. Raises InputError where it has none in this notation."""
    if notation == "smiles":
        return tuple(_SMILES.findall(smiles))
    selfies = _selfies()
    try:
        return tuple(selfies.split_selfies(selfies.encoder(smiles)))
    except selfies.EncoderError as e:
        why = " ".join(str(e).split())
        raise InputError(f"{smiles}: it has no SELFIES ({why}); leave it out, or set data.notation: smiles") from None


def _decoder(notation: Notation) -> Callable[[Sequence[str]], str]:
    if notation == "smiles":
        return "".join
    selfies = _selfies()
    return lambda tokens: selfies.decoder("".join(tokens))


def _selfies():  # type: ignore[no-untyped-def]
    try:
        import selfies
    except ImportError:
        raise ResourceError(
            "data.notation: selfies needs the package selfies; pip install ldsaug_ray[molecules]"
        ) from None
    return selfies
