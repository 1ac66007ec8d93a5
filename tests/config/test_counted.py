"""Which settings count for a result is said at the field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from ldsaug_ray.config import Config, Section, counted, describe

MINIMAL: dict[str, Any] = {"run_dir": "runs/x", "data": {"source": "images"}}
# settings that say how or where work is done; a new one of the kind is added here with thought
HOW = {
    *("run_dir", "engine", "ray", "sample", "frontier", "tracking", "experiment", "tune"),
    *(f"{stage}.max_failures" for stage in ("train", "finetune")),
    *(
        f"{stage}.{name}"
        for stage in ("train", "finetune")
        for name in ("checkpoint_every", "num_to_keep", "log_every")
    ),
    *("score.tile_rows", "score.tile_latents", "score.placement", "score.latents_gb", "data.max_quarantined_fraction"),
    *(f"{s}.workers" for s in ("data", "train", "encode", "score", "decode", "finetune", "evaluate")),
}

LATER = {
    *("train.compile", "finetune.compile", "finetune.judge", "evaluate.measures"),
    *("data.member", "data.shard_in_key", "data.near_duplicates", "data.split_by"),
    *("select.balance", "select.clusters", "score.neighbours", "score.noise"),
    *("domain", "select.rank", "report.sigmas"),
    *(f"evaluate.downstream.{name}" for name in ("batch_size", "label", "labels", "of", "seeds", "steps")),
}


def leaves(tree: Any, prefix: str = "") -> set[str]:
    if isinstance(tree, dict) and tree:
        return {name for key, value in tree.items() for name in leaves(value, f"{prefix}{key}.")}
    return {prefix.removesuffix(".")}


def test_all_settings_count_but_those_that_say_how():
    config = Config.model_validate(MINIMAL)
    found = leaves(counted(config))
    names = {name for name, _, _ in describe() if not any(name == h or name.startswith(f"{h}.") for h in HOW)}
    assert found == names - LATER  # which count once they are not the default
    assert names >= LATER


def test_settings_that_began_to_count_later_leave_fingerprints_of_defaults_as_they_were():
    plain = Config.model_validate(MINIMAL)
    changed = Config.model_validate({**MINIMAL, "train": {"compile": True, "workers": {"count": 2, "cpus": 3}}})
    assert counted(changed)["train"] == {**counted(plain)["train"], "compile": True, "workers": {"count": 2}}
    assert counted(changed, later=False) == counted(plain)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("select", "balance", "parent"),
        ("score", "noise", 0.5),
        ("data", "member", "left.png"),
        ("data", "shard_in_key", True),
    ],
)
def test_a_setting_that_came_later_counts_wherever_it_is_not_the_default(section: str, name: str, value: Any):
    plain = Config.model_validate(MINIMAL)
    given = {**MINIMAL, section: {**MINIMAL.get(section, {}), name: value}}
    for later in (True, False):  # no run of before had it, so none of these can be taken for one with it
        changed = counted(Config.model_validate(given), later=later)[section]
        assert changed == {**counted(plain, later=later)[section], name: value}


def test_values_are_those_of_the_dumped_tree():
    config = Config.model_validate(MINIMAL)
    dumped = config.dump()

    def same(tree: dict[str, Any], whole: dict[str, Any], section: BaseModel) -> None:
        for name, value in tree.items():
            if isinstance(getattr(section, name), Section):
                same(value, whole[name], getattr(section, name))
            else:
                assert value == whole[name]

    same(counted(config), dumped, config)
