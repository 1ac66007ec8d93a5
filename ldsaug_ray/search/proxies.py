"""Measures of A that need no training, of the candidates of a trial: a search by them is cheap, and can narrow an
expensive one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.lds import Candidates, Noise
from ldsaug_ray.metrics import MEASURES, OF_A, MeasureOfA, Members, Real, Sample
from ldsaug_ray.selection.best import id_hash

COMPARED = 10_000  # members of A that are measured
HELD_OUT = 2_000  # real latents that A is compared with, at most
ALL = tuple(measure.name for measure in OF_A if "images" not in measure.needs)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What every A is measured against; made once for all trials.

    Attributes:
        train: float32[N, d], training latents, which parents are rows of.
        known: path of a measure -> what it has prepared; those that lack it have no value for any A.
        lacks: name of a measure -> why it has no value for any A, of the measures that are asked for.
    """

    train: NDArray[np.float32]
    known: Mapping[str, Any]
    lacks: Mapping[str, str]

    @classmethod
    def of(
        cls,
        train: NDArray[np.float32],
        held_out: NDArray[np.float32],
        labels: NDArray[np.integer],
        real_labels: NDArray[np.integer],
        seed: int,
        names: Collection[str] = ALL,
    ) -> Prepared:
        """Measure of the real latents what the measures `names` of A need; of more than `HELD_OUT` held-out latents a
        random sample is taken, by the seed.

        Args:
            train, held_out, labels, real_labels: as in `metrics.Real`, `held_out` of all test images, in any order.
            seed: of the sample, and of the latents that a bandwidth is sought with.

        Raises:
            InputError: there are no held-out latents.
        """
        if not len(held_out):
            raise InputError("a search compares with held-out real latents; data.test must not be 0")
        # not the first: images are in the order of their keys, which begin with folders or classes
        held_out = held_out[np.sort(np.random.default_rng([seed, 1]).permutation(len(held_out))[:HELD_OUT])]
        real, known, lacks = Real(train, held_out, labels, real_labels, seed), {}, {}
        for path in names:
            measure = _of_a(path)
            try:
                known[path] = measure.prepare(real)
            except (ImpossibleError, InputError) as e:
                lacks[measure.name] = str(e)
        return cls(train, known, lacks)

    def measures_of(
        self,
        chosen: Candidates,
        interpolation: Interpolation,
        names: Collection[str] = ALL,
        noise: Noise | None = None,
        images: Callable[[Members], Sample] | None = None,
    ) -> dict[str, float | None]:
        """Those of `names` for some candidates; of more than `COMPARED` a sample is measured, by a hash of the id.

        images: gives the images of members, where a measure needs them.
        """
        place = id_hash(chosen.id)  # different for different ids
        first = np.argpartition(place, COMPARED)[:COMPARED] if len(place) > COMPARED else np.arange(len(place))
        first = first[np.argsort(place[first])]
        i, j, alpha = chosen.i[first], chosen.j[first], chosen.alpha[first]
        members = Members(self.train, i, j, alpha, interpolation, len(chosen), noise, chosen.id[first])
        if images is not None:
            members = replace(members, images=images(members))
        measures = {path: _of_a(path) for path in names}
        return {m.name: m.take(self.known[p], members) if p in self.known else None for p, m in measures.items()}


def _of_a(path: str) -> MeasureOfA:
    measure = MEASURES.get(path)
    if not isinstance(measure, MeasureOfA):
        raise ConfigError(f"{path} is no measure of A alone")
    return measure
