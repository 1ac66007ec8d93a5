"""The space of a search: each setting's values, as points of a grid, at random, or as Optuna's distributions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldsaug_ray.config import Config, Range
from ldsaug_ray.config.load import build_config, read_tree
from ldsaug_ray.errors import ConfigError

Point = Mapping[str, Any]  # dotted name -> value

MOST_POINTS = 100_000  # of a grid
MOST_SCORINGS = 256
TRIES = 64  # combinations with a value that is not possible by itself
DRAWS = 1000  # in a row without a new point: hardly any are left
INSIDE = (3 - 5**0.5) / 2  # of a range; irrational, so that between whole ends it is no whole number
_SHARED = (
    "run_dir",
    "seed",
    "data",
    "vae",
    "train",
    "encode",
    "evaluate",
    "engine",
    "ray",
    "tracking",
    "experiment",
    "tune",
    "report",
    "sample.n",
    "sample.seed",
    "sample.format",
    "sample.out",
)  # by all trials


@dataclass(frozen=True)
class Dimension:
    """One setting: its `values`, in order, or any number from `low` to `high`."""

    name: str
    values: tuple[Any, ...] | None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def text(self) -> str:
        """For people."""
        if self.values is not None:
            return ", ".join(f"{v:g}" if isinstance(v, float) else json.dumps(v) for v in self.values)
        how = "whole numbers " if self.whole else ""
        return f"{how}{self.low:g} to {self.high:g}{', by ratios' if self.log else ''}"

    def at(self, u: float) -> Any:
        """The value at u, 0 <= u < 1."""
        if self.values is not None:
            return self.values[int(u * len(self.values))]
        if self.whole:
            span = self.high + 1 - self.low
            if not self.log:
                return int(self.low + int(u * span))
            return int(min(self.high, np.floor(self.low * ((self.high + 1) / self.low) ** u)))
        return self.rounded(
            self.low * (self.high / self.low) ** u if self.log else self.low + u * (self.high - self.low)
        )

    def rounded(self, value: float) -> float:
        """Six digits, so that a value can be read, and typed again."""
        return float(min(self.high, max(self.low, float(f"{value:.6g}"))))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of it."""
        if self.values is not None:
            return value in self.values
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside and (not self.whole or float(value).is_integer())

    @property
    def ends(self) -> tuple[Any, ...]:
        """What a check must try: every value; or both ends, and last, where any number is meant, one between them."""
        if self.values is not None:
            return self.values
        return (self.at(0.0), int(self.high)) if self.whole else (self.at(0.0), self.high, self.at(INSIDE))


@dataclass(frozen=True)
class Space:
    """All dimensions, in the order of the settings."""

    dimensions: tuple[Dimension, ...]

    @property
    def size(self) -> float:
        """How many points it has; infinite where a range has any values."""
        return math.prod(math.inf if d.values is None else len(d.values) for d in self.dimensions)

    def holds(self, point: Point) -> bool:
        """Whether a point of this or another space lies in it."""
        return {d.name for d in self.dimensions} == set(point) and all(d.holds(point[d.name]) for d in self.dimensions)

    def grid(self) -> list[Point]:
        """Every combination, the last setting fastest.

        Raises:
            ConfigError: a range has no number of values, or there are too many combinations.
        """
        for d in self.dimensions:
            if d.values is None:
                raise ConfigError(f"tune.space.{d.name}: search: grid needs a list, or a range with `values`")
        if self.size > MOST_POINTS:
            raise ConfigError(f"tune.space: a grid of {self.size:,} points; the most is {MOST_POINTS:,}")
        names = [d.name for d in self.dimensions]
        points = itertools.product(*(d.values or () for d in self.dimensions))
        return [dict(zip(names, point, strict=True)) for point in points]

    def random(self, n: int, seed: int) -> list[Point]:
        """n different points, or as many as there are: the k-th draw depends on the seed and k alone, and of equal
        ones the first counts, so that more points begin with the same ones."""
        found: dict[str, Point] = {}
        k = last = 0
        while len(found) < min(n, self.size) and k - last < DRAWS:
            u = np.random.default_rng([seed, k]).random(len(self.dimensions))
            point = {d.name: d.at(float(x)) for d, x in zip(self.dimensions, u, strict=True)}
            k += 1
            if (text := json.dumps(point)) not in found:
                found[text], last = point, k
        if len(found) < n and self.size <= MOST_POINTS:  # the few that are hard to meet by chance
            for other in self.grid():
                found.setdefault(json.dumps(other), other)
        return list(found.values())[:n]

    def scorings(self) -> list[Point]:
        """Every combination of what changes the scores: each is scored once, whatever trials take it."""
        of_score = [d for d in self.dimensions if d.name.split(".")[0] == "score"]
        return Space(tuple(of_score)).grid()


def space_of(config: Config) -> Space:
    """The space that the settings ask for.

    Raises:
        ConfigError: it is empty, names what all trials share, or has a range of `score` that is not finite.
    """
    asked = config.tune
    if not asked.space:
        raise ConfigError("tune.space names no setting; configs/tune-demo.yaml is an example")
    dimensions = []
    for name in asked.space:
        if inside := next((other for other in asked.space if other.startswith(f"{name}.")), None):
            raise ConfigError(f"tune.space: {inside} lies in {name}; search one of them")
    for name, given in asked.space.items():
        if name.split(".")[0] in _SHARED or name in _SHARED:
            raise ConfigError(
                f"tune.space: {name} cannot be searched: all trials start from one set of images, model and "
                "latents, and are measured alike (`ldsaug experiment` compares seeds and sizes)"
            )
        dimensions.append(_dimension(name, given, asked.bandwidths))
    return Space(tuple(dimensions))


@dataclass(frozen=True)
class Source:
    """The settings file as it was when the search began, and the command line's settings."""

    path: str
    tree: Mapping[str, Any]
    overrides: Sequence[str]

    @classmethod
    def read(cls, path: str, overrides: Sequence[str]) -> Source:
        """Raises ConfigError and StorageError, as `load_config` does."""
        return cls(path, read_tree(path), overrides)

    def config(self, point: Point | None = None, fixed: Point | None = None) -> Config:
        """The settings at a point, as if they stood last on the command line, and `fixed` after them.

        Raises:
            ConfigError: they are not possible.
        """
        changes = {**(point or {}), **(fixed or {})}
        given = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
        try:
            return build_config(self.tree, [*self.overrides, *given], self.path)
        except ConfigError as e:
            if not point:
                raise
            raise ConfigError(f"tune.space at {shown(point)}: {e}") from None


def check_values(source: Source, space: Space, refuse: Callable[[Config], None] = lambda config: None) -> None:
    """Try every value, of a range some: with the others as they stand, else with others of the space. A combination
    that is not possible is a trial that fails; a value that never is, and scores that cannot be made, are said before
    work starts.

    Args:
        refuse: raises ConfigError for settings that no trial can have.

    Raises:
        ConfigError: a name is unknown, a value is not possible, or a combination of `score`'s is not.
    """
    others = space.random(TRIES, 0)

    def build(point: Point) -> None:
        refuse(source.config(point))

    for d in space.dimensions:
        for value in d.ends:
            wrong = _wrong(build, d.name, value, others)
            if wrong is None:
                continue
            between = d.values is None and d.low < value < d.high  # both ends are possible, then: they come first
            if between and _wrong(build, d.name, round(value), others) is None:
                raise ConfigError(f"{wrong}; a range of whole numbers needs `whole: true`")
            raise wrong
    scorings = space.scorings()
    if len(scorings) > MOST_SCORINGS:
        raise ConfigError(f"tune.space asks for {len(scorings):,} scorings of all candidates; {MOST_SCORINGS} at most")
    for scoring in scorings:
        source.config(scoring)


def _wrong(build: Callable[[Point], None], name: str, value: Any, others: Sequence[Point]) -> ConfigError | None:
    """Why a value is possible neither by itself nor with any of the `others`; none where it is."""
    try:
        build({name: value})
    except ConfigError as e:
        return None if any(_possible(build, {**other, name: value}) for other in others) else e
    return None


def _possible(build: Callable[[Point], None], point: Point) -> bool:
    try:
        build(point)
    except ConfigError:
        return False
    return True


def _dimension(name: str, given: Range | Sequence[Any], bandwidths: int) -> Dimension:
    if not isinstance(given, Range):
        if len({json.dumps(v, sort_keys=True) for v in given}) < len(given):
            raise ConfigError(f"tune.space.{name}: each value once")
        return Dimension(name, tuple(given))
    count = given.values
    if count is None and name.startswith("score.sigma."):
        count = bandwidths
    if count is None and name.startswith("score."):
        raise ConfigError(f"tune.space.{name}: each value is scored anew; give a list, or a range with `values`")
    if count is None:
        return Dimension(name, None, given.low, given.high, given.log, given.whole)
    return Dimension(name, tuple(dict.fromkeys(_spaced(given, count))))


def _spaced(given: Range, count: int) -> Iterator[float]:
    for k in range(count):
        u = k / (count - 1)
        value = given.low * (given.high / given.low) ** u if given.log else given.low + u * (given.high - given.low)
        yield round(value) if given.whole else float(f"{value:.6g}")


def shown(point: Point) -> str:
    """`name=value, …`."""
    return ", ".join(f"{name}={value}" for name, value in point.items())
