"""Images of any sizes to features, batch by batch, or from the user's cache: known by what the images are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ldsaug_ray.api._given import BATCH, Images, batches
from ldsaug_ray.domains import Domain
from ldsaug_ray.errors import ConfigError, InputError, LdsaugError
from ldsaug_ray.metrics import Extractor, open_extractor
from ldsaug_ray.metrics.features import Features
from ldsaug_ray.metrics.kept import Arrays, kept
from ldsaug_ray.run.progress import bar

FORM = "1"  # of what is kept: another number where images come to the extractor otherwise


@dataclass(frozen=True, eq=False)
class Given:
    """A set as it is measured. features: float[N, C]; quality: name -> float64[M] of all that were read, M > N where
    some have no features since they are invalid; origin: where it comes from, for the reader; images: what pictures
    come from, None of features; rows: int64[N], which of the images they are; sizes: int64[N, 2], their height and
    width; notes: what a reader must know of them.
    """

    features: Features
    quality: Mapping[str, NDArray[np.float64]]
    origin: str
    images: Images | None
    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        """What the images of some rows are called."""
        return [f"row {row}" for row in rows] if self.images is None else self.images.names(self.rows[rows].tolist())

    @cached_property
    def items(self) -> NDArray[Any]:
        """All that were read, of another domain than images."""
        assert self.images is not None
        return np.stack([x for x in self.images.read() if not isinstance(x, str)])


def network_of(extractor: str | None, resize: int | None, domain: Domain, facts: Mapping[str, Any]) -> Extractor:
    """The extractor of that name, or the domain's; on a GPU where there is one. Raises as `open_extractor`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    named = extractor or domain.extractor
    if named is None:
        raise ConfigError(f"domain {domain.name} has no extractor that needs no file: name one")
    try:
        return open_extractor(named, device=device, batch_size=BATCH, resize=resize, domain=domain.name, facts=facts)
    except InputError as e:
        if extractor is None:
            raise InputError(f"{e}; or name another extractor: pixels (no network), or a TorchScript FILE.pt") from None
        raise


def features_of(
    name: str, of: Images | Features, origin: str, network: Extractor | None, console: Console, learned: str = ""
) -> Given:
    """Features of images, computed or kept from an earlier call; or those that were given.

    Raises:
        InputError: too many images are unusable, or the extractor cannot take them; the name is in the message.
    """
    if not isinstance(of, Images):
        return Given(of, {}, origin, None, np.arange(len(of)), np.empty((0, 2), np.int64))
    assert network is not None  # of images
    notes = [f"{name}: {note}" for note in of.notes]
    with bar(console, name, len(of), of.domain.unit) as shown:
        content = f"{FORM} {of.digest()} {network.fingerprint}{learned}"
        key = hashlib.blake2b(content.encode(), digest_size=20).hexdigest()

        def compute() -> Arrays:
            return _features(name, of, network, shown.advance)

        arrays = kept(key, compute, lambda note: console.print(f"{name}: {note}", highlight=False))
        shown.set(len(of))
    reasons = arrays["reasons"].tolist()
    if reasons:
        (first,) = of.names(arrays["unusable"][:1].tolist())
        unusable = f"{len(reasons):,} of {len(of):,} {of.domain.unit} cannot be used (the first: {first}: {reasons[0]})"
        if len(reasons) > of.fraction * len(of):
            raise InputError(f"{name}: {unusable}; data.max_quarantined_fraction = {of.fraction:g} of them may be")
        notes.append(f"{name}: {unusable}, and do not count.")
    quality = {kind: arrays[kind] for kind in of.domain.qualities}
    features, rows, sizes = (arrays[kind][of.domain.usable(quality)] for kind in ("features", "rows", "sizes"))
    if invalid := len(arrays["rows"]) - len(rows):
        notes.append(f"{name}: {invalid:,} of {len(arrays['rows']):,} {of.domain.unit} are invalid: without features.")
    return Given(features, quality, origin, of, rows, sizes, tuple(notes))


def _features(name: str, images: Images, network: Extractor, advance: Callable[[int], None]) -> Arrays:
    """Features and qualities of the items that can be used, which they are, of images sizes; why the others cannot."""
    n, domain = len(images), images.domain
    found: dict[int, NDArray[np.float32]] = {}
    quality = {quality: np.empty(n) for quality in domain.qualities}
    sizes, reasons = np.zeros((n, 2), np.int64), {}
    start = 0
    for batch in batches(images.read()):
        of_size: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(batch, start):
            if isinstance(image, str):
                reasons[row] = image
            else:
                of_size.setdefault(image.shape, []).append(row)
        for shape, rows in of_size.items():
            items = np.stack([batch[row - start] for row in rows])
            try:
                found.update(zip(rows, network(items), strict=True))
            except LdsaugError as e:
                raise type(e)(f"{name}: {e}") from None
            for kind, values in domain.quality(items).items():
                quality[kind][rows] = values
            if domain.pixels(items) is not None:
                sizes[rows] = shape[:2]
        start += len(batch)
        advance(len(batch))
    used = np.array([row for row in range(n) if row not in reasons], np.int64)
    features = np.stack([found[row] for row in used.tolist()]) if len(used) else np.empty((0, 0), np.float32)
    return {
        "features": features,
        **{kind: values[used] for kind, values in quality.items()},
        "sizes": sizes[used],
        "rows": used,
        "unusable": np.array(list(reasons), np.int64),
        "reasons": np.array(list(reasons.values()), np.str_),
    }
