"""What a prior is: how it is fitted to latents and drawn from, the settings it goes by, the sentence that tells it.

Sample n is a function of (seed, n) alone, whatever the batch or the worker: `noise` gives numbers that are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import InputError, failing

Latents = NDArray[np.float32]
Fitted = Mapping[str, Any]  # arrays, and facts: numbers, text, true and false, which the manifest shows


class Prior(ABC):
    """A distribution of latents that is fitted to those of the training images, or needs none.

    title: it in a few words, in the report; words: in the help; reads: whether it looks at latents never, as it is
    fitted, or as it is drawn from too: what is not looked at is float32[0, d]; settings: names in section `sample` that
    change its draws.
    """

    title: ClassVar[str] = ""
    words: ClassVar[str] = ""
    reads: ClassVar[Literal["nothing", "fitted", "drawn"]] = "fitted"
    settings: ClassVar[tuple[str, ...]] = ()

    def fit(self, latents: Latents, settings: Sampling, seed: int, *, of_a: int = 0) -> Fitted:
        """What draws need of the latents float32[N + of_a, d], of which the last are A's; kept for a resumed command.

        Raises InputError where nothing can be fitted to them.
        """
        return {}

    @abstractmethod
    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.floating[Any]]:
        """Samples start..stop-1 of a seed, float[stop - start, d], each a function of its number and the seed alone."""

    def remark(self, facts: Mapping[str, Any]) -> str:
        """What a user should hear of the fit, or nothing."""
        return ""

    @abstractmethod
    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        """What it is, from the facts among what was fitted; latents: such as "44 latents and 30 of A"."""


PRIORS: Registry[Prior] = Registry("prior", Prior)  # type: ignore[type-abstract]


def facts_of(fitted: Fitted) -> dict[str, Any]:
    """What of a fit is no array."""
    facts = {name: x for name, x in fitted.items() if not isinstance(x, np.ndarray)}
    return {name: x.item() if isinstance(x, np.generic) else x for name, x in facts.items()}


def write_fitted(file: Location, fitted: Fitted) -> None:
    """Write the arrays of a fit as safetensors, atomically; nothing where it has none."""
    if arrays := {name: x for name, x in fitted.items() if isinstance(x, np.ndarray)}:
        file.write_bytes(save_safetensors(arrays))


def read_fitted(file: Location, facts: Mapping[str, Any]) -> Fitted:
    """What `write_fitted` wrote, and the facts. Raises InputError for another file, or one that is damaged."""
    try:
        arrays = load_safetensors(file.read_bytes()) if file.exists() else {}
    except (SafetensorError, ValueError) as e:
        raise InputError(f"{file.uri}: not a prior that ldsaug_ray wrote ({e}); delete it") from None
    if bad := [name for name, x in arrays.items() if not np.isfinite(x).all()]:
        raise InputError(f"{file.uri}: {bad[0]} is not finite; delete it")
    return {**facts, **arrays}


def title_of(name: str) -> str:
    """A registered prior in a few words; another by its path, without importing it."""
    return PRIORS.get(name).title if name in PRIORS.names() else name


@dataclass(frozen=True, eq=False)
class Draws:
    """A fitted prior, to be sent to workers. name: of the prior; latents: float32[N, d], or [0, d]."""

    name: str
    fitted: Fitted
    latents: Latents

    def sample(self, start: int, stop: int, seed: int) -> Latents:
        """Samples start..stop-1 of a seed, float32[stop - start, d].

        Raises:
            ConfigError: an impossible range or seed.
            InputError: a user's prior failed, or drew what are no finite latents.
        """
        with failing(f"sample.prior {self.name}"):
            z = np.asarray(PRIORS.get(self.name).draw(self.fitted, self.latents, start, stop, seed))
        want = (stop - start, self.latents.shape[1])
        if z.shape != want or z.dtype.kind != "f":
            raise InputError(f"sample.prior {self.name} drew {z.dtype}{list(z.shape)}; needed is float{list(want)}")
        if not np.isfinite(z).all():
            raise InputError(f"sample.prior {self.name} drew latents that are NaN or infinite")
        return z.astype(np.float32, copy=False)

    def check(self, seed: int) -> None:
        """Raises InputError where a sample depends on those that are drawn with it: no run could be repeated."""
        if not np.array_equal(self.sample(0, 3, seed)[2:], self.sample(2, 3, seed)):
            raise InputError(
                f"sample.prior {self.name}: a sample depends on those that are drawn with it, but must follow from "
                "(seed, number) alone; ldsaug_ray.models.priors.noise gives numbers that do"
            )
