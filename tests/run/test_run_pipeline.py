"""Stage fingerprints: what makes a result outdated, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ldsaug_ray.config import Config, describe, load_config
from ldsaug_ray.run.pipeline import STAGES

DIGESTS = {name: f"{k:064x}" for k, name in enumerate(STAGES)}
STOCHASTIC = {"prepare", "train", "score", "finetune", "evaluate"}
# of `sample`, what says which images `evaluate` draws
DRAWN = {f"sample.{name}" for name in ("prior", "with_augmented", "seed", "batch_size", "part_rows")}

# how the work is done, not what comes out
HOW = {
    "workers",
    "max_failures",
    "checkpoint_every",
    "num_to_keep",
    "log_every",
    "tile_rows",
    "tile_latents",
    "placement",
    "latents_gb",
    "max_quarantined_fraction",
}
APART = {"run_dir", "engine", "ray", "sample", "frontier", "tracking", "experiment", "tune"}  # of no stage of a run
SECTION_OF = {"data": "prepare", "domain": "prepare", "vae": "train"}  # the others are named as their stage
OTHER = {  # a valid value that is not the default, where one cannot be made up from the default's type
    "data.resolution": 64,
    "data.format": "folder",
    "data.crop": "none",
    "data.missing_attributes": "keep",
    "data.train": 0.5,
    "data.test": 0.1,
    "data.part_rows": 64,
    "data.attribute_names": ["Male"],
    "score.interpolation": "slerp",
    "score.plan": "blocks",
    "score.block": [8, 16],
    "score.part_candidates": 512,
    "score.placement": "sharded",
    "score.backend": "faiss",
    "score.approximate.index": "flat",
    "score.approximate.lists": 30,
    "score.approximate.probes": 3,
    "score.latents_gb": 2.0,
    **{
        f"{stage}.{name}": value
        for stage in ("train", "finetune")
        for name, value in {
            "adam_betas": [0.5, 0.9],
            "precision": "float32",
            "best_by": "loss",
            "objective.reconstruction": "l2",
            "objective.perceptual.pixel_range": "unit",
            "objective.adversarial.r1_gamma": 2.0,
            "objective.adversarial.learning_rate": 0.1,
            "objective.adversarial.augment": ["color"],
            "objective.adversarial.augment_probability": "adaptive",
        }.items()
    },
    "finetune.freeze": "encoder",
    "finetune.mixing": 0.5,
    "score.alphas": [0.5],
    "score.sigma.scale": 0.4,
    "select.which": "random",
    "select.tau": 0.28,
    "select.typical": 0.9,
    "select.top_fraction": 0.1,
    "evaluate.extractor": "pixels",
    "evaluate.resize": 64,
    "evaluate.models": ["train"],
    "evaluate.attributes": ["Male"],
    "evaluate.measures": ["mine:Vendi"],
    "evaluate.detection.corruptions": ["blur"],
    "evaluate.detection.scales": [0.3],
    "evaluate.downstream.labels": "same",
    "evaluate.downstream.of": "features",
    "report.sigmas": [0.5],
    "select.rank": "likelihood",
    "select.balance": "parent",
    "sample.candidates.plan": "neighbours",
    "sample.candidates.alphas": [0.5],
    "sample.candidates.noise": 0.3,
    "frontier.noise": [0.1, 0.2],
    "frontier.rules": {"half": {"top_fraction": 0.5}},
    "frontier.samplers": {"half": {"prior": "kde"}},
    "engine": "inline",
    "data.near_duplicates": 3,
    "experiment.arms": {"lds": {}},
    "experiment.seeds": [5],
    "experiment.train": [50],
    "experiment.tables": {"Table 1": ["baseline"]},
    "tune.space": {"select.tau": [0.1, 0.2]},
    "tune.objectives": [{"coverage": 1.0}],
    "tune.search": "grid",
    "tune.asha.grace_steps": 3,
    "tune.concurrent": 2,
    "tune.hours": 1.5,
    "sample.model": "train",
    "sample.prior": "kde",
    "sample.covariance": "diag",
    "sample.sigma": 0.5,
    "sample.format": "png",
    "sample.seed": 3,
}


LATER = {f"{stage}.{name}" for stage in ("train", "finetune") for name in ("compile", "workers.count")}


def config(**sections: dict[str, Any]) -> Config:
    return Config.model_validate({"run_dir": "r", "data": {"source": "s"}, **sections})


def prints(c: Config) -> dict[str, str]:
    return {name: stage.fingerprint(c, DIGESTS) for name, stage in STAGES.items()}


def changed(name: str) -> Config:
    tree = config().dump()
    *parents, leaf = name.split(".")
    section = tree
    for parent in parents:
        section = section[parent]
    old = section[leaf]
    if name in ("score.sigma.rule", "score.sigma.value"):  # one needs the other
        section.update(rule="fixed", value=3.0)
    elif name in ("vae.kind", "vae.path"):
        section.update(kind="diffusers", path="p", latent_dim=None, mapping_layers=None)
    elif name in ("vae.encoder", "vae.decoder", "vae.pixel_range"):
        own = {"encoder": "e.pt", "decoder": "d.pt", "pixel_range": "unit"}
        section.update(kind="torchscript", latent_dim=None, mapping_layers=None, **own)
    elif name == "score.sigma.share":
        section.update(rule="parent_share", share=0.3)
    elif name == "sample.with_augmented":
        section.update(prior="kde", with_augmented=True)
    elif name == "finetune.uses.adversarial":  # needs a discriminator
        section[leaf] = 1.0
        tree["finetune"]["objective"]["adversarial"]["weight"] = 1.0
    elif name == "finetune.judge":
        section[leaf] = "a"
        tree["finetune"]["objective"]["adversarial"]["weight"] = 1.0
    elif name == "experiment.control":
        section.update(arms={"lds": {}}, control="lds")
    elif name in OTHER:
        section[leaf] = OTHER[name]
    elif leaf in ("count", "gpus"):
        section[leaf] = 1 if leaf == "count" else 0.5
    elif isinstance(old, bool):
        section[leaf] = not old
    elif isinstance(old, int | float):
        section[leaf] = old + 1 if isinstance(old, int) else old / 2 + 0.01
    elif old is None and leaf in ("num_cpus", "num_gpus", "object_store_gb", "memory_gb", "gradient_clip", "top_count"):
        section[leaf] = 3
    else:
        section[leaf] = "other"
    return Config.model_validate(tree)


@pytest.mark.parametrize("name", [n for n, _, _ in describe()])
def test_a_setting_outdates_its_own_stage_or_none(name: str) -> None:
    """Later stages follow from the digests of what they read, not from its settings."""
    parts = name.split(".")
    before, after = prints(config()), prints(changed(name))
    if name == "seed":
        expected = STOCHASTIC
    elif name in DRAWN:
        expected = {"evaluate"}
    elif name in LATER:
        expected = {parts[0]}
    elif parts[0] in ("run_dir", "engine", "ray", "sample", "frontier", "tracking", "experiment", "tune") or HOW & set(
        parts
    ):
        expected = set()
    else:
        expected = {SECTION_OF.get(parts[0], parts[0])}
    assert changed(name) != config()
    assert {n for n in STAGES if before[n] != after[n]} == expected


def test_which_a_outdates_what_it_changes() -> None:
    """The sharpness filter is the work of decode; a random draw depends on the seed, the rules do not."""
    rules, random, sharp, none = (config(select={"which": w}) for w in ("lds", "random", "lds+sharpness", "none"))
    before = prints(rules)
    for other, expected in ((random, {"select"}), (sharp, {"select", "decode"}), (none, {"select"})):
        assert {n for n in STAGES if before[n] != prints(other)[n]} == expected
    for which, counts in (("lds", False), ("random", True)):
        one, two = (Config.model_validate({**config(select={"which": which}).dump(), "seed": s}) for s in (1, 2))
        assert (prints(one)["select"] != prints(two)["select"]) == counts


@pytest.mark.parametrize("name", STAGES)
def test_the_digest_of_what_it_reads_outdates_a_stage(name: str) -> None:
    c = config()
    for other in STAGES:
        before, after = (STAGES[name].fingerprint(c, d) for d in (DIGESTS, {**DIGESTS, other: "f" * 64}))
        assert (before != after) == (other in (*STAGES[name].needs, *STAGES[name].uses))


def test_what_lies_outside_the_run_directory_counts() -> None:
    prepare = STAGES["prepare"]
    assert prepare.fingerprint(config(), {}, "a") != prepare.fingerprint(config(), {}, "b")
    assert prepare.fingerprint(config(), {}, "a") == prepare.fingerprint(config(), {}, "a")


def test_stages_do_not_share_fingerprints() -> None:
    assert len(set(prints(config()).values())) == len(STAGES)


def test_needed_and_used_digests() -> None:
    report = STAGES["report"]
    without = {n: d for n, d in DIGESTS.items() if n not in report.uses}
    assert report.fingerprint(config(), without) != report.fingerprint(config(), DIGESTS)


def test_stages_read_earlier_ones_only_and_write_apart() -> None:
    names = list(STAGES)
    for k, stage in enumerate(STAGES.values()):
        assert names[k] == stage.name
        assert {*stage.needs, *stage.uses} <= set(names[:k])
        assert stage.writes
    folders = [f for s in STAGES.values() for f in s.writes]
    assert len(folders) == len(set(folders))
    assert not any(a != b and b.startswith(f"{a}/") for a in folders for b in folders)
    assert not {"_progress", "config.yaml", "manifest.json"} & {f.split("/")[0] for f in folders}


def test_a_count_is_not_a_fraction() -> None:
    one, all_of_it = (
        load_config(None, ["run_dir=r", "data.source=s", f"data.train={v}", "data.test=0"]) for v in (1, 1.0)
    )
    assert prints(one)["prepare"] != prints(all_of_it)["prepare"]
