"""Two sets of images, or of their features, compared: every measure of `metrics/` with intervals and notes.

Images are read at their own size, as the extractor takes them, and become features once: these are kept in the user's
cache by the images' content and the extractor's weights. No Ray, no run directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
from rich.console import Console

from ldsaug_ray.api._features import Given, features_of, network_of
from ldsaug_ray.api._given import Images, SourceItems, opened
from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.domains import DOMAINS, Domain
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import (
    OF_SETS,
    Measure,
    Reading,
    Sample,
    SetReadings,
    UsedExtractor,
    intervals_of,
    measure_set,
    own_measures,
)
from ldsaug_ray.metrics.features import Features

NO_MEASURES = ("intervals", "n", "real", "train", "extractor", "k", "notes")  # keys of the result that are no measures


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found. sets: `fake`, then `train` if there is one, as if generated, then `real`; intervals: of
    `fake`; given: the sets themselves, by name; own: measures of the user's.
    """

    sets: Mapping[str, SetReadings]
    intervals: Mapping[str, tuple[float, float]]
    given: Mapping[str, Given]
    extractor: UsedExtractor | None
    k: int
    notes: tuple[str, ...]
    own: tuple[Measure, ...] = field(default=())

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those that were taken, in the order of the tables."""
        return tuple(m for m in (*OF_SETS, *self.own) if m.name in self.sets["fake"].readings)

    def numbers(self) -> dict[str, Any]:
        """What `measure` returns."""
        values = {name: {m: r.value for m, r in of.readings.items()} for name, of in self.sets.items()}
        e = self.extractor
        return {
            **values.pop("fake"),
            "intervals": {name: list(limits) for name, limits in self.intervals.items()},
            "n": {name: len(of.features) for name, of in self.given.items()},
            **values,
            "extractor": None if e is None else asdict(e),
            "k": self.k,
            "notes": list(self.notes),
        }


def measure(
    real: Any,
    fake: Any,
    *,
    train: Any = None,
    extractor: str | os.PathLike[str] | None = None,
    domain: str = "images",
    k: int = 5,
    measures: Sequence[str] = (),
    resize: int | None = None,
    data: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """How near the images `fake` come to the images `real`, and whether they are copies of the images `train`.

    Each set is a folder, a Parquet, tar or .npy file or a URI, by name; an array of images uint8[N, H, W, C]; or an
    array of features float[N, d]. All are images, or all are features of one extractor. Of another domain they are
    what it reads, and its own measures are taken too; what is no molecule counts, in `fake`, as invalid.

    Args:
        real: held-out real images: the reference.
        fake: what is measured.
        train: images that the generator was trained on; none: nothing is said on copies.
        extractor: what makes features of images: any that `open_extractor` takes; none: inception, FID's, or the
            domain's own.
        domain: of the data, where sets are named; arrays are images, or features of anything.
        k: neighbours of precision, recall, density and coverage.
        measures: of your own, by their dotted paths.
        resize: side in px to which images are resized for a TorchScript extractor; none: they are given as they are.
        data: settings of `data` that say how sources are read, such as {"image_column": "img"}.
        seed: of random subsets and of the bootstrap.

    Returns:
        Each measure's value of `fake` by its name, None where these images do not allow one; `intervals`, 95 % limits
        by name; `n`, images by set; `real` and `train`, name -> value: what they themselves reach, as far as it can be
        said, train as if it were generated, in as many images as fake has; `extractor`, None of features; `k`;
        `notes`, sentences on what so few images can tell. All of it can be written as JSON.

    Raises:
        InputError: a set cannot be used, or is too small for k; the extractor does not fit it.
        ConfigError: an unknown domain, extractor, measure or setting; an extractor for features.

    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(600, 4))
    >>> found = measure(z[:300], z[300:])
    >>> found["coverage"] > 0.9, sorted(found["n"].items())
    (True, [('fake', 300), ('real', 300)])
    """
    found = measured(
        {"real": real, "fake": fake} | ({} if train is None else {"train": train}),
        extractor=extractor,
        domain=domain,
        k=k,
        measures=measures,
        resize=resize,
        data=data,
        seed=seed,
        console=Console(quiet=True),
    )
    return found.numbers()


def measured(
    sets: Mapping[str, Any],
    *,
    extractor: str | os.PathLike[str] | None,
    domain: str,
    k: int,
    measures: Sequence[str],
    resize: int | None,
    data: Mapping[str, Any] | None,
    seed: int,
    console: Console,
) -> Measured:
    """As `measure`, of sets by name; progress goes to the console."""
    kind = DOMAINS.get(domain)
    for argument, value, least in (("k", k, 1), ("seed", seed, 0), ("resize", 1 if resize is None else resize, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ConfigError(f"{argument} must be at least {least}, a whole number; found {value!r}")
    if not isinstance(extractor, str | os.PathLike | None):
        raise ConfigError(f"extractor: the name or file of one; found {type(extractor).__name__}")
    extractor = None if extractor is None else os.fspath(extractor)
    own = own_measures([measures] if isinstance(measures, str) else measures)
    if taken := [m.name for m in own if m.name in NO_MEASURES]:
        raise ConfigError(f"a measure of your own is called {taken[0]}, as a part of the result is; rename it")
    found = {name: opened(name, of, data or {}, domain) for name, of in sets.items()}
    _check(found, extractor, k, kind.unit)
    network, learned = None, ""
    if isinstance(found["real"], Images):
        facts = _facts(found["real"], kind)
        learned = fingerprint(facts) if facts else ""
        if like := kind.alike(facts):
            others = {name: of for name, of in sets.items() if name != "real"}
            found |= {name: opened(name, of, {**(data or {}), **like}, domain) for name, of in others.items()}
        network = network_of(extractor, resize, kind, facts)
    given = {name: features_of(name, of, _origin(sets[name]), network, console, learned) for name, of in found.items()}
    _check_features(given, k, kind.unit)
    real, fake, train = given["real"], given["fake"], given.get("train")
    chosen = (*OF_SETS, *own)
    held: dict[str, Any] = {}
    if network is not None and domain != "images" and any(domain in m.needs for m in chosen):
        held = {{"real": "reference"}.get(name, name): one.items for name, one in given.items()}

    def items(of: str, rows: Any = slice(None)) -> dict[str, Any]:
        return {domain: {**held, "features": held[of][rows]}} if held else {}

    none = real.features[:0]
    trained = none if train is None else train.features
    sample = Sample(fake.features, real.features, trained, fake.quality, k, seed, items("fake"))
    console.print(f"{'measures':<9} starting", highlight=False)
    of = {"fake": measure_set(sample, chosen)}
    if train is not None:
        rows = np.random.default_rng([seed, 2]).permutation(len(train.features))[: len(fake.features)]
        quality = {name: values[rows] for name, values in train.quality.items()}
        some = Sample(train.features[rows], real.features, none, quality, k, seed, items("train", rows))
        of["train"] = measure_set(some, chosen)
    alone = Sample(real.features, quality=real.quality, k=k, seed=seed, items=items("reference"))
    of["real"] = _of_reference(measure_set(alone, chosen), of["fake"])
    limits = intervals_of(sample, of["fake"], chosen)
    notes = [note for one in given.values() for note in one.notes] + [*of["fake"].notes, *_flat(limits), *_sizes(given)]
    used = None
    if network is not None:
        used = UsedExtractor(network.name, real.features.shape[1], network.fingerprint, resize)
    return Measured(of, limits, given, used, k, tuple(dict.fromkeys(map(kind.words, notes))), own)


def _facts(real: Images, domain: Domain) -> dict[str, Any]:
    """What a domain learns of the real items, such as the spread of columns."""
    if not isinstance(real, SourceItems):
        return {}
    batches = (np.stack([x]) for x in real.read() if not isinstance(x, str))
    return domain.learn(batches, real.source, real.data)


def _origin(given: Any) -> str:
    return without_password(os.fspath(given)) if isinstance(given, str | os.PathLike) else "an array"


def _of_reference(own: SetReadings, fake: SetReadings) -> SetReadings:
    """What was measured of the real images, and on the way to the fake ones' values."""
    beside = {name: Reading(r.more["held_out"]) for name, r in fake.readings.items() if "held_out" in r.more}
    return replace(own, readings={**own.readings, **beside})


def _check(found: Mapping[str, Images | Features], extractor: str | None, k: int, unit: str) -> None:
    """What can be known before any image is read."""
    are_images = {name: isinstance(of, Images) for name, of in found.items()}
    if len(set(are_images.values())) > 1:
        kinds = ", ".join(f"{name} {unit if is_one else 'features'}" for name, is_one in are_images.items())
        raise InputError(f"{kinds}: give all as {unit}, or all as features of one extractor")
    if extractor is not None and not are_images["real"]:
        raise ConfigError(f"extractor = {extractor}: features were given, and need none")
    for name, of in found.items():
        _check_count(name, len(of), k, unit)


def _check_count(name: str, n: int, k: int, unit: str) -> None:
    least = 2 if name == "train" else k + 1
    if n < least:
        why = "" if name == "train" else f" with k = {k} neighbours"
        raise InputError(f"{name}: {n} {unit}; at least {least} are needed{why}")


def _check_features(given: Mapping[str, Given], k: int, unit: str) -> None:
    real = given["real"].features
    for name, of in given.items():
        _check_count(name, len(of.features), k, unit)  # some may have been unusable
        if of.features.shape[1] != real.shape[1]:
            raise InputError(
                f"{name}: features of {of.features.shape[1]} dimensions, real has {real.shape[1]}; take all from one "
                "extractor"
            )


def _flat(limits: Mapping[str, tuple[float, float]]) -> list[str]:
    """What to say where the bootstrap has nothing to vary, as of shares of all or none."""
    flat = [name for name, (low, high) in limits.items() if low == high]
    return [
        f"{', '.join(flat)}: every image says the same, so the interval has no width; a share among n images may still "
        "be off by 3 / n."
    ] * bool(flat)


def _sizes(given: Mapping[str, Given]) -> list[str]:
    found = np.unique(np.concatenate([of.sizes for of in given.values()]), axis=0).tolist()
    if len(found) < 2:
        return []
    (low, high), n = (f"{width} x {height}" for height, width in (found[0], found[-1])), len(found)
    return [f"Images of {n:,} sizes, from {low} to {high} px: sharpness compares images of one size."]
