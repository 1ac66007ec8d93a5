"""Which point a search tries next: all of a grid, points at random, or Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ldsaug_ray.config import Tune
from ldsaug_ray.search.space import MOST_POINTS, Dimension, Point, Space
from ldsaug_ray.search.trials import Trial, key_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

WORST = 1e300
TRIES = 100  # for a point that is new, where values are few


class Sampler(Protocol):
    """Gives points, each once, and is told what they came to."""

    @property
    def has_more(self) -> bool:
        """Whether there may be another point."""

    def ask(self) -> Point | None:
        """The next point; None: there is none left."""

    def tell(self, trial: Trial) -> None:
        """What a point came to."""


def open_sampler(asked: Tune, space: Space, known: Sequence[Trial]) -> Sampler:
    """The sampler that the settings ask for.

    Args:
        known: trials of an earlier attempt: those that are over are not given again, the others first.

    Raises:
        ConfigError: a grid of a space that has none, or too large a one.
    """
    over = [t for t in known if t.is_over and space.holds(t.point)]
    begun = [t.point for t in known if not t.is_over and space.holds(t.point)]
    if asked.search == "tpe":
        return _Parzen(asked, space, over, begun)
    points = space.grid() if asked.search == "grid" else space.random(asked.trials, asked.seed)
    done = {t.key for t in over}
    rank = {key_of(point): n for n, point in reversed(list(enumerate(begun)))}
    points.sort(key=lambda point: rank.get(key_of(point), len(begun)))
    left = {key: p for p in (*begun, *points) if (key := key_of(p)) not in done}
    return _Listed(list(left.values()))


class _Listed:
    """Points in their order."""

    def __init__(self, points: Sequence[Point]):
        self._left = list(reversed(points))

    @property
    def has_more(self) -> bool:
        return bool(self._left)

    def ask(self) -> Point | None:
        return self._left.pop() if self._left else None

    def tell(self, trial: Trial) -> None:
        pass


class _Parzen:
    """Optuna's TPE (Bergstra et al. 2011; of two objectives Ozaki et al. 2022), multivariate: the settings together."""

    def __init__(self, asked: Tune, space: Space, over: Sequence[Trial], begun: Sequence[Point]):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # another seed for another attempt, or it would begin with the points that it began with before
        seed = (asked.seed + len(over)) % 2**32
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(directions=["minimize"] * len(asked.objectives), sampler=sampler)
        self._codes = {d.name: _Code(d) for d in space.dimensions}
        self._space, self._seed = space, seed
        self._left = asked.trials - len(over)
        self._known = {t.key for t in over}
        self._asked: dict[str, Any] = {}  # key -> Optuna's trial
        self._objectives = asked.objectives
        for trial in over:
            self._add(trial)
        self._begun = list(reversed(begun))

    @property
    def has_more(self) -> bool:
        return self._left > 0 or bool(self._begun)

    def ask(self) -> Point | None:
        if not self.has_more:
            return None
        point = self._begun.pop() if self._begun else self._new()
        if point is None:
            return None
        self._left -= 1
        self._known.add(key_of(point))
        return point

    def tell(self, trial: Trial) -> None:
        asked = self._asked.pop(trial.key, None)
        if asked is None:
            self._add(trial)
            return
        values, state = self._outcome(trial)
        if values is not None and trial.state == "stopped":
            asked.report(values[0], trial.step)
            values = None
        self._study.tell(asked, values, state=state)

    def _new(self) -> Point | None:
        """A point that was not given yet: Optuna's, or, where it finds none, any."""
        from optuna.trial import TrialState

        for _ in range(TRIES):
            trial = self._study.ask(fixed_distributions={n: c.distribution for n, c in self._codes.items()})
            point = {name: code.value(trial.params[name]) for name, code in self._codes.items()}
            if (key := key_of(point)) not in self._known:
                self._asked[key] = trial
                return point
            self._study.tell(trial, state=TrialState.FAIL)
        rest = self._space.random(TRIES, self._seed)
        if self._space.size <= MOST_POINTS:
            rest += self._space.grid()
        return next((point for point in rest if key_of(point) not in self._known), None)

    def _add(self, trial: Trial) -> None:
        from optuna.trial import create_trial

        values, state = self._outcome(trial)
        stopped = values is not None and trial.state == "stopped"
        self._study.add_trial(
            create_trial(
                state=state,
                params={name: code.code(trial.point[name]) for name, code in self._codes.items()},
                distributions={name: code.distribution for name, code in self._codes.items()},
                values=None if stopped else values,
                intermediate_values={trial.step: values[0]} if stopped and values is not None else None,
            )
        )

    def _outcome(self, trial: Trial) -> tuple[list[float] | None, Any]:
        """Values, and in Optuna's words how it ended: a trial that was stopped stands behind those that were not."""
        from optuna.trial import TrialState

        values = trial.values(self._objectives)
        if values is None and trial.is_over and len(self._objectives) == 1:
            return [WORST], TrialState.COMPLETE  # TPE ranks values: it shall keep away from where nothing is selected
        if values is None:
            return None, TrialState.FAIL
        return values, TrialState.PRUNED if trial.state == "stopped" else TrialState.COMPLETE


class _Code:
    """A dimension as one of Optuna's: listed values by their place, so that their order counts where they have one."""

    def __init__(self, dimension: Dimension):
        self._dimension = dimension
        self._values: Sequence[Any] | None = dimension.values
        numbers = dimension.values is not None and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in dimension.values
        )
        if numbers:
            self._values = sorted(dimension.values or ())
        self.distribution = self._distribution(dimension, numbers)

    def _distribution(self, d: Dimension, numbers: bool) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self._values is not None:
            last = len(self._values) - 1
            return IntDistribution(0, last) if numbers else CategoricalDistribution(range(last + 1))
        if d.whole:
            return IntDistribution(int(d.low), int(d.high), log=d.log)
        return FloatDistribution(d.low, d.high, log=d.log)

    def code(self, value: Any) -> Any:
        return value if self._values is None else list(self._values).index(value)

    def value(self, code: Any) -> Any:
        if self._values is not None:
            return self._values[code]
        return code if self._dimension.whole else self._dimension.rounded(code)
