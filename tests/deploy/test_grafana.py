"""`deploy/grafana.json`: built as Ray's own dashboards are, over metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.metrics.grafana_dashboard_factory import generate_default_grafana_dashboard

from ldsaug_ray.engines.ray.meters import MEANINGS

OURS = json.loads((Path(__file__).parents[2] / "deploy/grafana.json").read_text())
# of the panel kind that took the place of `graph`, which Ray's dashboards still have and Grafana 12 has no more
OF_TIMESERIES = {"options", "fieldConfig"}


@pytest.fixture(scope="module")
def rays() -> dict[str, Any]:
    """A dashboard that Grafana is known to take."""
    found: dict[str, Any] = json.loads(generate_default_grafana_dashboard()[0])
    return found


def expressions(dashboard: dict[str, Any]) -> list[str]:
    inner = [p for panel in dashboard["panels"] for p in (panel, *panel.get("panels", []))]
    return [target["expr"] for panel in inner for target in panel.get("targets", [])]


def metrics(dashboard: dict[str, Any]) -> set[str]:
    return {name for e in expressions(dashboard) for name in re.findall(r"\bray_\w+", e)}


def check(ours: dict[str, Any], theirs: list[dict[str, Any]], beside: frozenset[str] = frozenset()) -> None:
    """Each field is one of theirs, with a value of the same kind."""
    for name, value in ours.items():
        kinds = {type(t[name]) for t in theirs if name in t} - {type(None)}
        assert kinds or name in beside, f"{name} is no field"
        if name not in beside | {"refresh"}:  # false, or how often
            assert type(value) in kinds, name


def test_it_is_built_as_rays_own(rays):
    check(OURS, [rays], frozenset({"description"}))
    theirs = [p for panel in rays["panels"] for p in (panel, *panel.get("panels", [])) if "targets" in p]
    for panel in OURS["panels"]:
        check(panel, theirs, frozenset(OF_TIMESERIES))
        check(panel["gridPos"], [p["gridPos"] for p in theirs])
        for target in panel["targets"]:
            check(target, [t for p in theirs for t in p["targets"]])
    (variable,) = OURS["templating"]["list"]
    check(variable, rays["templating"]["list"])
    assert {panel["datasource"] for panel in OURS["panels"]} == {f"${{{variable['name']}}}"}


def test_every_counter_has_a_panel_and_every_panel_metrics_that_exist(rays):
    counters = {f"ray_ldsaug_{name}_total" for name in MEANINGS}  # Prometheus' name of a counter of Ray's
    assert counters <= metrics(OURS)
    assert metrics(OURS) - counters <= metrics(rays)
    for expression in expressions(OURS):
        assert expression.count("(") == expression.count(")")
        for counter in counters & set(re.findall(r"\bray_\w+", expression)):
            assert "by (stage)" in expression
            assert f"rate({counter}[$__rate_interval])" in expression or expression == f"sum by (stage) ({counter})"


def test_panels_have_their_own_number_and_place():
    assert len({panel["id"] for panel in OURS["panels"]}) == len(OURS["panels"])
    places = [panel["gridPos"] for panel in OURS["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
