"""Trainings: batches, uses of A, the best checkpoint, the discriminator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stages_helpers import Tree, manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.columns import matrix
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import inline
from ldsaug_ray.engines.ray import training as ray_training
from ldsaug_ray.errors import ImpossibleError, LdsaugError, StorageError
from ldsaug_ray.run.directory import CHECKPOINTS, RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.shared.batches import AugmentedParts, Parts, StepBatch, _ReadSteps, _unpacked, step_batches
from ldsaug_ray.stages.shared.checkpoints import RECORD
from ldsaug_ray.stages.shared.prior import Judged

ADVERSARIAL = {"weight": 0.5, "r1_every": 2, "path_length": 0.1, "path_length_every": 2, "style_mixing": 0.5}


def run(settings: Tree, command: str) -> None:
    assert run_command(Config.model_validate(settings), command) == 0


def curve(settings: Tree, stage: str) -> list[dict[str, float]]:
    return json.loads((Path(settings["run_dir"]) / stage / "curve.json").read_text())


BLANK = np.zeros((1, 16, 16, 3), np.uint8)


def parts_of(settings: Tree, per_step: int) -> Parts:
    units = RunDir(Location.of(settings["run_dir"])).finished_units("prepare").values()
    files = [(f, n) for u in units for f, n in zip(u.files, u.file_rows, strict=True) if "train-" in f]
    return Parts(tuple(files), per_step)


def augmented_of(settings: Tree, per_step: int, power: float = 0.0, log_mean: float = 0.0) -> AugmentedParts:
    units = RunDir(Location.of(settings["run_dir"])).finished_units("decode").values()
    files = [(f, n) for u in units for f, n in zip(u.files, u.file_rows, strict=True)]
    return AugmentedParts(tuple(files), per_step, True, True, power, log_mean)


def read(settings: Tree, real: Parts, augmented: AugmentedParts | None, first: int, last: int) -> list[StepBatch]:
    """Rows as the reading actor makes them, without Ray."""
    reader = _ReadSteps(Location.of(settings["run_dir"]), real, augmented, None, 3, 0, 1, 2, 2, "images", BLANK.dtype)
    tables = list(reader(pa.table({"first": [first], "last": [last]})))
    return [_unpacked(t.slice(k, 1), BLANK) for t in tables for k in range(len(t))]


def test_every_arm_sees_the_same_training_images_and_a_resumed_one_goes_on(finished):
    settings = finished.settings
    alone = read(settings, parts_of(settings, 8), None, 0, 9)
    both = read(settings, parts_of(settings, 8), augmented_of(settings, 5), 0, 9)
    assert len(alone) == len(both) == 9
    for a, b in zip(alone, both, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        assert a.augmented is None
        assert b.augmented is not None
        assert {k: v.shape for k, v in b.augmented.items()} == {
            "image": (5, 16, 16, 3),
            "z": (5, 6),
            "weight": (5,),
        }
    for first in (1, 4):
        for a, b in zip(
            both[first:], read(settings, parts_of(settings, 8), augmented_of(settings, 5), first, 9), strict=True
        ):
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.augmented["z"], b.augmented["z"])


@pytest.mark.parametrize("engine", [inline, ray_training])
def test_every_engine_brings_the_same_rows(finished, engine):
    """Ray's reads ahead, in a thread; rows and their order are those of a plain loop."""
    settings = finished.settings
    rank = object.__new__(engine._Rank)  # of a training it needs nothing
    rank.number, rank.world = 0, 1
    arguments = (parts_of(settings, 8), augmented_of(settings, 4))
    straight = read(settings, *arguments, 2, 150)
    root = Location.of(settings["run_dir"])
    order = {"seed": 3, "shuffle_parts": 2, "domain": "images", "blank": BLANK}
    through = list(step_batches(root, *arguments, None, range(2, 150), rank, **order))
    assert len(through) == len(straight) == 148
    for a, b in zip(straight, through, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.augmented["image"], b.augmented["image"])


def test_weights_follow_the_density_and_are_one_in_the_mean(finished, copied):
    """An epoch of A: weight = LDS^power / mean(LDS^power)."""
    table = pa.concat_tables(
        Location.of(f).read_table(["z", "log_lds"])
        for f in sorted((Path(copied["run_dir"]) / "augmented").glob("*.parquet"))
    )
    density = np.exp(0.5 * table["log_lds"].to_numpy())
    mean = density.mean()
    batches = read(copied, parts_of(copied, 8), augmented_of(copied, 9, 0.5, float(np.log(mean))), 0, 100)
    weights = np.concatenate([b.augmented["weight"] for b in batches])
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    by_latent = {tuple(np.float32(z)): w for z, w in zip(table["z"].to_pylist(), density / mean, strict=True)}
    latents = np.concatenate([b.augmented["z"] for b in batches])
    np.testing.assert_allclose(weights, [by_latent[tuple(z)] for z in latents], rtol=1e-5)


def test_all_uses_of_a_at_once_and_the_discriminator_goes_on_from_training(copied):
    objective = {"adversarial": ADVERSARIAL}
    settings = merge(
        copied,
        {
            "train": {"objective": objective},
            "finetune": {
                "steps": 6,
                "objective": objective,
                "lds_weight": 0.5,
                "mixing": 0.5,
                "uses": {"pixels": 0.5, "adversarial": 0.5, "cycle": 0.1},
            },
        },
    )
    run(settings, "run")
    entry = manifest(settings)["finetune"]
    assert (entry["train_images"], entry["augmented_images"], entry["augmented_per_step"]) == (44, 900, 4)
    assert {"adversarial", "discriminator", "r1", "path_length", "cycle", "held_out_reconstruction"} <= {
        term for point in curve(settings, "finetune") for term in point
    }
    folder = Path(settings["run_dir"])
    assert (folder / "train/discriminator.safetensors").exists()
    assert (folder / "finetune/discriminator.safetensors").exists()
    assert not (folder / f"finetune/{CHECKPOINTS}").exists()
    assert not list((folder / "finetune").glob("*trainer*"))


@pytest.mark.parametrize("judge", ["kde", "a"])
def test_what_the_discriminator_judges_follows_from_the_step(copied, judge):
    """Two ranks share what one draws; the latents are the prior's, or A's own."""
    root = Location.of(copied["run_dir"])
    settings = merge(
        copied,
        {"finetune": {"judge": judge, "steps": 6, "uses": {"pixels": 0}, "objective": {"adversarial": ADVERSARIAL}}},
    )
    run(settings, "finetune")
    assert "discriminator" in curve(settings, "finetune")[-1]
    digest = manifest(settings)["finetune"]["digest"]
    judged = Judged(root, judge, 2, Config.model_validate(settings).sample, 6)
    parts, made = parts_of(copied, 8), {}
    for world in (1, 2):
        for rank in range(world):
            reader = _ReadSteps(root, parts, None, judged, 3, rank, world, 2, 2, "images", BLANK.dtype)
            rows = pa.concat_tables(reader(pa.table({"first": [3], "last": [6]})))
            made[rank, world] = [_unpacked(rows.slice(k, 1), BLANK).judged for k in range(3)]
    for step in range(3):
        np.testing.assert_array_equal(np.concatenate([made[0, 2][step], made[1, 2][step]]), made[0, 1][step])
    drawn = np.concatenate(made[0, 1])
    assert drawn.shape == (24, 6)
    sigma = 0.0
    if judge == "kde":
        sigma, of = (root / "finetune/prior.json").read_json()["sigma"], read_latents(RunDir(root), "train").z
    else:
        of = matrix(pa.concat_tables(f.read_table(["z"]) for f in (root / "augmented").files(".parquet"))["z"])
    assert (np.sqrt(((drawn[:, None] - of[None]) ** 2).sum(-1)).min(1) <= 6 * sigma).all()
    run(merge(settings, {"finetune": {"steps": 7}}), "finetune")  # trained anew, and by the same draws again
    run(settings, "finetune")
    assert manifest(settings)["finetune"]["digest"] == digest


def test_a_as_judge_needs_candidates(copied):
    off = {"select": {"which": "none"}}
    tuning = {"judge": "a", "mixing": None, "objective": {"adversarial": ADVERSARIAL}}
    settings = merge(copied, {**off, "finetune": tuning})
    with pytest.raises(ValueError, match=r"finetune.judge: a is of A's latents, but select.which: none keeps nothing"):
        Config.model_validate(settings)


def test_the_best_checkpoint_is_what_the_stage_gives(copied):
    changes = {"steps": 12, "checkpoint_every": 3, "best_by": "held_out_reconstruction", "num_to_keep": 1}
    # a large step at the end of a short run: the last checkpoint is not the best
    settings = merge(copied, {"finetune": {**changes, "learning_rate": 0.3, "adam_betas": [0.9, 0.99]}})
    run(settings, "finetune")
    found = {
        p["step"]: p["held_out_reconstruction"] for p in curve(settings, "finetune") if "held_out_reconstruction" in p
    }
    entry = manifest(settings)["finetune"]
    assert list(found) == [3, 6, 9, 12]
    assert entry["final"]["held_out_reconstruction"] == min(found.values())
    assert found[entry["steps"]] == min(found.values())
    assert entry["steps"] < 12


def test_too_little_of_a_for_a_batch(copied):
    with pytest.raises(ImpossibleError, match=r"finetune.mixing.*at least 0.125"):
        run(merge(copied, {"finetune": {"mixing": 0.01}}), "finetune")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_what_one_worker_cannot_read_ends_all(copied):
    """The first reads the held-out images; the second must not wait for it."""
    test = min((Path(copied["run_dir"]) / "images").glob("test-*.parquet"))
    test.write_bytes(test.read_bytes()[:-50])
    settings = merge(copied, {"finetune": {"steps": 5, "workers": {"count": 2, "cpus": 1}, "max_failures": 1}})
    with pytest.raises(LdsaugError, match=re.escape(test.name)):
        run(settings, "finetune")


def test_a_training_keeps_its_last_checkpoint_until_the_manifest_has_it(copied, monkeypatch):
    run_dir = Path(copied["run_dir"])
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "finish", lambda *_, **__: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            run(merge(copied, {"finetune": {"steps": 6}}), "finetune")
    record = run_dir / f"finetune/{CHECKPOINTS}/00000006" / RECORD
    whole = record.read_bytes()
    record.write_bytes(whole[:40])
    with pytest.raises(StorageError, match=f"{record}: not valid JSON"):
        run(merge(copied, {"finetune": {"steps": 6}}), "finetune")
    record.write_bytes(whole)
    run(merge(copied, {"finetune": {"steps": 6}}), "finetune")
    assert manifest(copied)["finetune"]["resumed_from_step"] == 6
    assert not (run_dir / f"finetune/{CHECKPOINTS}").exists()
    assert RunDir(Location.of(run_dir)).is_complete("finetune", manifest(copied)["finetune"]["fingerprint"])


def test_frozen_parts_stay_as_they_were(copied):
    from safetensors.numpy import load_file

    settings = merge(copied, {"finetune": {"freeze": "encoder", "steps": 3}})
    run(settings, "finetune")
    folder = Path(settings["run_dir"])
    before, after = (load_file(folder / s / "vae.safetensors") for s in ("train", "finetune"))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {n for n in before if n.startswith("encoder.")} | {"centre"} <= same
    assert any(n.startswith("decoder.") and n not in same for n in before)
