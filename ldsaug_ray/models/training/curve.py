"""The loss curve: terms averaged between points, whatever terms a step has, and the same after a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIGITS = 6


class Means:
    """Mean of each term over the steps that had it."""

    def __init__(self, sums: Mapping[str, tuple[float, int]] | None = None):
        self.sums: dict[str, tuple[float, int]] = {k: (float(a), int(n)) for k, (a, n) in (sums or {}).items()}

    def add(self, terms: Mapping[str, float]) -> None:
        """Take in the terms of one step."""
        for name, value in terms.items():
            total, n = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, n + 1)

    def take(self) -> dict[str, float]:
        """The means so far; the next begin anew."""
        means = {name: float(f"{total / n:.{_DIGITS}g}") for name, (total, n) in self.sums.items()}
        self.sums = {}
        return means


class LossCurve:
    """Points {"step": n, term: mean since the point before, …}.

    Args:
        state: of a curve to go on with.
    """

    def __init__(self, state: Mapping[str, Any] | None = None):
        self.points: list[dict[str, float]] = list(state["points"]) if state else []
        self._means = Means(state["sums"] if state else None)

    def add(self, terms: Mapping[str, float]) -> None:
        """Take in the terms of one step."""
        self._means.add(terms)

    def close_point(self, step: int) -> None:
        """Make a point of what came since the last one."""
        self.note(step, self._means.take())

    def note(self, step: int, terms: Mapping[str, float]) -> None:
        """Set terms at `step`, in its point if it has one."""
        if not self.points or self.points[-1]["step"] != step:
            self.points.append({"step": step})
        self.points[-1].update(terms)

    def state(self) -> dict[str, Any]:
        """As JSON can hold it; `LossCurve(state)` goes on from there."""
        return {"points": self.points, "sums": self._means.sums}
