"""What a search asks for, and what is said of it before work starts."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ldsaug_ray.config import load_config
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.trials import Trial

SPACE = {"score.sigma.scale": [0.1, 0.2], "select.tau": [0.3, 0.6]}
POINT = {"score.sigma.scale": 0.2, "select.tau": 0.3}


def plan(folder: Path, *overrides: str, evaluate: dict[str, Any] | None = None, **tune: Any) -> Search:
    network = folder / "network.pt"
    network.write_bytes(b"whose stamp counts")
    tree = {
        "run_dir": str(folder / "run"),
        "data": {"source": "faces", "attributes": "columns"},
        "finetune": {"steps": 100},
        "evaluate": {**(evaluate or {}), **({"extractor": str(network)} if "extractor" in (evaluate or {}) else {})},
        "tune": {"space": SPACE, "objectives": [{"a_nearer": 1}], **tune},
    }
    file = folder / "tune.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return plan_search(str(file), overrides)


EXTRACTOR = {"extractor": "network.pt", "attributes": ["Male"]}


@pytest.mark.parametrize(
    ("tune", "evaluate", "message"),
    [
        ({"objectives": [{"frechet": 1}]}, {}, r"frechet needs evaluate\.extractor"),
        ({"objectives": [{"a_frechet": 1}, {"a_authpct": 1}]}, {}, r"a_frechet, a_authpct need evaluate\.extractor"),
        ({"objectives": [{"a_attribute_gap": 1}]}, {}, r"a_attribute_gap needs evaluate\.attributes"),
        ({"objectives": [{"attribute_gap": 1}]}, {"extractor": "x.pt"}, r"attribute_gap needs evaluate\.attributes"),
        ({"objectives": [{"fid": 1}]}, EXTRACTOR, r"tune\.objectives"),
        ({"objectives": [{"frechet": 0}]}, EXTRACTOR, r"tune\.objectives"),
        ({"objectives": []}, EXTRACTOR, r"tune\.objectives"),
        ({"objectives": [{}]}, EXTRACTOR, "objectives: each names a measure at least"),
        ({"asha": {"grace_steps": 10}}, {}, "there is no fine-tuning to stop"),
        ({"objectives": [{"frechet": 1}], "asha": {"grace_steps": 100}}, EXTRACTOR, "grace_steps = 100 is not below"),
        (
            {"objectives": [{"frechet": 1}, {"coverage": 1}], "asha": {"grace_steps": 10}},
            EXTRACTOR,
            "asha ranks trials by one objective",
        ),
        ({"register_as": "faces"}, {}, "there is no model"),
        ({"search": "grid", "space": {"finetune.mixing": {"low": 0.1, "high": 1}}}, {}, "grid needs a list"),
        ({"search": "anneal"}, {}, r"tune\.search must be"),
        ({"trials": 0}, {}, r"tune\.trials must be at least 1"),
        ({"space": {"finetune.mixing": [0.5, 1.0]}}, {}, "changes nothing that these objectives look at"),
        ({"space": {"select.which": ["lds", "lds+sharpness"]}}, {}, r"which=lds\+sharpness decodes first"),
        ({"space": {"select": [{"which": "lds"}, {"which": "lds+sharpness"}]}}, {}, "decodes first"),
        (
            {
                "objectives": [{"frechet": 1}],
                "asha": {"grace_steps": 10},
                "space": {"finetune.best_by": [None, "held_out_reconstruction"]},
            },
            EXTRACTOR,
            "which finetune.best_by would notice",
        ),
        ({"space": {"score.sigma": [{"scale": 0.3}], "score.sigma.scale": [0.1]}}, {}, r"scale lies in score\.sigma"),
        (
            {"space": {"score.sigma.rule": ["norm_fraction", "leave_one_out"], "score.sigma.scale": [0.1, 0.2]}},
            {},
            "at score.sigma.rule=leave_one_out, score.sigma.scale=0.1: .*scale belongs to",
        ),
        ({"space": {"evaluate.k": [3, 5]}}, {}, r"evaluate\.k cannot be searched"),
    ],
)
def test_what_is_wrong_is_said_before_work_starts(tmp_path, tune, evaluate, message):
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, evaluate=evaluate, **tune)


def test_what_the_space_replaces_is_not_asked_of_the_settings(tmp_path):
    search = plan(tmp_path, "select.which=lds+sharpness", space={"select.which": ["lds", "random"]})
    assert search.trial_config({"select.which": "random"}).select.which == "random"
    with pytest.raises(ConfigError, match="decodes first"):
        plan(tmp_path, "select.which=lds+sharpness")


def test_attributes_without_labels(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.attributes needs labelled images"):
        plan(tmp_path, "data.attributes=null", evaluate={"attributes": ["Male"]})


@pytest.mark.parametrize("trains", [True, False])
def test_commands_give_the_settings_of_the_trial(tmp_path, trains):
    objectives, evaluate = ([{"frechet": 1}], EXTRACTOR) if trains else ([{"a_nearer": 1}], {})
    space = {**SPACE, "finetune.objective": [{"reconstruction": "l2"}, {"beta": 0.5}]} if trains else SPACE
    point = {**POINT, **({"finetune.objective": {"beta": 0.5}} if trains else {})}
    folder = tmp_path / "my #1: it's"  # a remark and a mapping in YAML, a quotation mark in a shell
    folder.mkdir()
    search = plan(folder, "seed=3", "tune.seed=4", evaluate=evaluate, objectives=objectives, space=space)
    trial = Trial(point, 1, "same")
    want = search.trial_config(point)
    for what, command in search.commands(trial):
        _, kind, path, *overrides = shlex.split(command)
        if kind == "tune":
            assert what == "measured again"
            again = plan_search(path, overrides)
            assert again.space.grid() == [point]
            assert again.config.tune.objectives == search.config.tune.objectives
            found = again.trial_config(point)
        else:
            found = load_config(path, overrides)
        assert found.run_dir.startswith(f"{search.config.run_dir}-")
        for section in ("seed", "data", "vae", "train", "encode", "score", "select", "decode", "finetune", "sample"):
            assert getattr(found, section) == getattr(want, section), section
    assert len(search.commands(trial)) == (1 if trains else 2)


def test_a_trial_is_a_run_with_the_points_settings(tmp_path):
    search = plan(tmp_path, "seed=3", evaluate=EXTRACTOR, objectives=[{"frechet": 1, "attribute_gap": 50}])
    assert search.trains
    assert search.titles == ["frechet + 50 attribute_gap"]
    config = search.trial_config(POINT)
    assert (config.seed, config.select.tau, config.score.sigma.scale) == (3, 0.3, 0.2)
    assert config.run_dir.startswith(f"{tmp_path}/run/trials/")
    assert config.evaluate.models == ("finetune",)
    assert not config.tune.space
    assert search.scoring(POINT) == {"score.sigma.scale": 0.2}
    assert search.scoring_config({"score.sigma.scale": 0.2}).score == config.score


def test_identity_is_of_what_the_numbers_depend_on(tmp_path):
    digests = {"encode": "a"}
    same = plan(tmp_path).identity(POINT, digests)
    assert plan(tmp_path, "tune.trials=99", "finetune.workers.cpus=2").identity(POINT, digests) == same
    assert plan(tmp_path, objectives=[{"a_nearer": 2}]).identity(POINT, digests) == same
    assert plan(tmp_path, objectives=[{"a_likelihood": 1}]).identity(POINT, digests) != same  # it was not measured
    assert plan(tmp_path).identity(POINT, {"encode": "b"}) != same
    assert plan(tmp_path, "score.n_candidates=999").identity(POINT, digests) != same
    assert plan(tmp_path, evaluate=EXTRACTOR, objectives=[{"frechet": 1}]).identity(POINT, digests) != same


def test_values_that_are_possible_together_alone(tmp_path):
    rules = {"score.sigma.rule": ["fixed"], "score.sigma.value": [1.0, 2.0]}
    assert len(plan(tmp_path, space=rules).space.grid()) == 2
    either = {"select.tau": [None, 0.3], "select.top_fraction": [None, 0.2]}
    search = plan(tmp_path, "select.tau=0.28", space=either)  # neither is an impossible trial, not an impossible search
    with pytest.raises(ConfigError, match=r"at select\.tau=None, select\.top_fraction=None"):
        search.identity(search.space.grid()[0], {})


def test_what_evaluation_draws_counts(tmp_path):
    digests = {"encode": "a"}
    made = {"evaluate": EXTRACTOR, "objectives": [{"frechet": 1}]}
    same = plan(tmp_path, **made).identity(POINT, digests)
    assert plan(tmp_path, "sample.n=9", **made).identity(POINT, digests) == same
    assert plan(tmp_path, **{**made, "objectives": [{"coverage": 1}]}).identity(POINT, digests) == same
    assert plan(tmp_path, "sample.prior=kde", **made).identity(POINT, digests) != same


def test_rungs_and_gpus(tmp_path):
    search = plan(
        tmp_path, evaluate=EXTRACTOR, objectives=[{"frechet": 1}], asha={"grace_steps": 7, "reduction_factor": 3}
    )
    assert search.rungs(100) == [7, 21, 63]
    assert search.rungs(63) == [7, 21]
    assert plan(tmp_path).rungs(100) == []
    on_gpus = replace(search, one_gpu=True)
    assert on_gpus.trial_config(POINT).finetune.workers.count == 1
    assert "finetune.workers.count=1" in on_gpus.command(Trial(POINT, 1, "same"))
    assert search.trial_config(POINT).finetune.workers.count == "auto"
