"""`typical`: the thresholds, a band of held-out real latents' log LDS among them."""

from __future__ import annotations

from typing import Any

from ldsaug_ray.selection.rule import RULES, Rule


class Typical(Rule):
    """As `lds`, with select.typical where it is not given."""

    words = "the rules, with select.typical"

    def fill(self, given: dict[str, Any]) -> dict[str, Any]:
        """With the central band of 90 %."""
        return {**given, "typical": 0.9} if given.get("typical") is None else given


RULES.add("typical", Typical())
