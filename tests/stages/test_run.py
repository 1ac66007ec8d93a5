"""The whole pipeline: files, accounting, MLflow, skipping, recomputing, and independence of the workers."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image
from rich.console import Console
from stages_helpers import Tree, digests, manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.ray import RayEngine
from ldsaug_ray.engines.ray import units as ray_units
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import (
    DivergedError,
    ImpossibleError,
    InputError,
    LdsaugError,
    MissingStageError,
    NothingSelectedError,
    ResourceError,
)
from ldsaug_ray.lds import score_points
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.selection import select
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.rank import of_the_checkpoints
from ldsaug_ray.stages.shared.runner import plan_steps
from ldsaug_ray.stages.shared.units import run_units


def table(settings: Tree, folder: str) -> pa.Table:
    return pads.dataset(Path(settings["run_dir"]) / folder, format="parquet").to_table()


def run(settings: Tree, command: str = "run") -> None:
    assert run_command(Config.model_validate(settings), command) == 0


def states(settings: Tree) -> dict[str, str]:
    config = Config.model_validate(settings)
    return {s.stage: s.state for s in plan_steps(config, open_run_dir(config, create=False), list(STAGES))}


def test_manifest_and_summary(finished):
    for word in ("quarantined", "mlflow ui", "report", "kept 900 of 4,500 candidates"):
        assert word in finished.output
    stages = manifest(finished.settings)
    assert list(stages) == [s for s in STAGES if s != "evaluate"]  # no extractor is set
    for entry in stages.values():
        assert entry["rows_in"] == entry["rows_out"] + entry["rows_dropped"] + entry["rows_quarantined"]
        assert entry["seconds"] > 0
        assert len(entry["digest"]) == 64
    counts = {s: (e["rows_in"], e["rows_out"]) for s, e in stages.items()}
    assert counts == {
        "prepare": (60, 60),
        "train": (44, 44),
        "encode": (60, 60),
        "score": (4500, 4500),
        "select": (4500, 900),
        "decode": (900, 900),
        "finetune": (944, 944),
        "report": (1, 1),
    }


def test_scores_are_the_density_and_the_densest_are_kept(finished):
    scores = table(finished.settings, "scores").sort_by("candidate")
    assert scores["candidate"].to_pylist() == list(range(4500))
    train = table(finished.settings, "latents").filter(pads.field("split") == "train").sort_by("key")
    z = np.array(train["z"].to_pylist(), np.float32)
    rows = {k: n for n, k in enumerate(train["key"].to_pylist())}
    i, j = (np.array([rows[k] for k in scores[c].to_pylist()]) for c in ("parent_i", "parent_j"))
    alpha = scores["alpha"].to_numpy()[:, None]
    sigma = 0.2 * np.linalg.norm(z.astype(np.float64), axis=1).mean()
    assert manifest(finished.settings)["score"]["sigma"] == pytest.approx(sigma)
    expected = score_points(z, (1 - alpha) * z[i].astype(np.float64) + alpha * z[j].astype(np.float64), [sigma])[:, 0]
    np.testing.assert_allclose(scores["log_lds"].to_numpy(), expected, rtol=0, atol=1e-5)
    held_out = table(finished.settings, "held_out")
    assert len(held_out) == manifest(finished.settings)["score"]["held_out"]["count"] == 16
    test = table(finished.settings, "latents").filter(pads.field("key").isin(held_out["key"])).sort_by("key")
    expected = score_points(z, np.array(test["z"].to_pylist()), [sigma])[:, 0]
    np.testing.assert_allclose(held_out["log_lds"].to_numpy(), expected, rtol=0, atol=1e-5)
    chosen = select(
        [(scores["candidate"].to_numpy(), scores["log_lds"].to_numpy())],
        4500,
        Config.model_validate(finished.settings).select,
    )
    assert sorted(table(finished.settings, "selected")["candidate"].to_pylist()) == chosen.ids.tolist()
    assert manifest(finished.settings)["select"]["threshold_log_lds"] == chosen.threshold_log


def test_augmented_dataset(finished):
    augmented = table(finished.settings, "augmented")
    assert len(set(augmented["key"].to_pylist())) == 900
    first = augmented.slice(0, 1).to_pylist()[0]
    assert Image.open(io.BytesIO(first["image"]["bytes"])).size == (16, 16)
    assert len(first["z"]) == 6
    assert {"parent_i", "parent_j", "alpha", "log_lds"} <= set(first)


def test_mlflow_holds_the_run(finished):
    client = MlflowClient(tracking_uri=f"sqlite:///{finished.folder / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["vae.latent_dim"] == "6"
    assert found.data.metrics["select/rows_out"] == 900
    assert [m.step for m in client.get_metric_history(found.info.run_id, "train/reconstruction")] == [1, 3, 6]
    assert {a.path for a in client.list_artifacts(found.info.run_id)} >= {"report", "config.yaml"}
    models = [client.get_logged_model(o.model_id) for o in found.outputs.model_outputs]
    assert sorted((m.name, str(m.status)) for m in models) == [("baseline", "READY"), ("finetuned", "READY")]
    (dataset,) = found.inputs.dataset_inputs
    assert manifest(finished.settings)["prepare"]["digest"].startswith(dataset.dataset.digest)


def test_the_same_command_again_does_nothing(copied, capsys):
    root = Path(copied["run_dir"])
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in ("config.yaml", ".lock"))
    before = {p: p.stat().st_mtime_ns for p in files}
    run(copied)
    assert capsys.readouterr().err.count("already complete") == len(STAGES) - 1
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_changed_setting_recomputes_what_depends_on_it(copied):
    changed = merge(copied, {"select": {"top_fraction": None, "top_count": 30}})
    assert [s for s, state in states(changed).items() if state == "complete"] == ["prepare", "train", "encode", "score"]
    before = digests(copied)
    run(changed, "select")
    run(changed, "decode")
    assert manifest(changed)["decode"]["rows_out"] == 30
    after = digests(changed)
    assert all(after[s] == before[s] for s in ("prepare", "train", "encode", "score"))
    assert len(table(changed, "augmented")) == 30
    assert states(merge(changed, {"encode": {"workers": {"count": 1}}}))["encode"] == "complete"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_unit_that_kills_who_works_on_it_ends_the_stage(copied, monkeypatch):
    """As one that needs more memory than there is."""

    class Worker:
        def __call__(self, unit: int, given: pa.Table) -> UnitResult:
            if unit == 2:
                os._exit(1)
            return UnitResult(unit, Counts(1, 1), 0)

    monkeypatch.setattr(ray_units, "DEATHS", 1)
    units = {n: pa.table({"n": [n]}) for n in range(4)}
    config = Config.model_validate(copied)
    job = Job(config, RunDir(Location.of(copied["run_dir"])), Console(quiet=True), RayEngine(config))
    with pytest.raises(ResourceError, match=r"died at work on unit 2, 2 times over.* units not done are .*2"):
        run_units(job, "nothing", units, dict.fromkeys(units, 1), {}, Pool(1, 1, 0, None), Worker, ())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_two_training_workers_share_the_batch(copied):
    settings = merge(copied, {"train": {"steps": 4, "workers": {"count": 2, "cpus": 0.5}}})
    run(settings, "train")
    entry = manifest(settings)["train"]
    assert (entry["workers"], entry["steps"]) == (2, 4)
    curve = json.loads((Path(settings["run_dir"]) / "train/curve.json").read_text())
    assert [p["step"] for p in curve] == [1, 3, 4]
    with pytest.raises(ImpossibleError, match=r"batch_size = 7 cannot be shared"):
        run(merge(settings, {"train": {"batch_size": 7}}), "train")


def test_a_threshold_that_keeps_nothing_says_which_would(copied):
    settings = merge(copied, {"select": {"tau": 0.999}})
    with pytest.raises(NothingSelectedError, match=r"99% quantile"):
        run(settings)
    assert list(manifest(settings)) == ["prepare", "train", "encode", "score", "decode", "finetune", "report"]
    run(merge(copied, {"select": {"tau": 1e-30, "top_fraction": None}}), "select")
    assert manifest(settings)["select"]["rows_out"] > 0


def test_latents_that_are_not_finite_name_the_image(copied):
    part = next(iter(sorted((Path(copied["run_dir"]) / "latents").glob("*.parquet"))))
    t = pq.read_table(part)
    z = np.array(t["z"].to_pylist(), np.float32)
    victim = t["split"].to_pylist().index("train")
    z[victim, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), 6)
    pq.write_table(t.set_column(t.column_names.index("z"), "z", column), part)
    with pytest.raises(InputError, match=t["key"][victim].as_py()):
        run(merge(copied, {"score": {"n_candidates": 90}}), "score")


def test_files_that_are_gone_are_made_again_and_never_passed_over(copied, finished):
    part = sorted((Path(copied["run_dir"]) / "latents").glob("*.parquet"))[1]
    part.unlink()
    changed = merge(copied, {"score": {"n_candidates": 90}})
    with pytest.raises(MissingStageError, match=r"stage encode is out of date \(1 of its files are gone\)"):
        run(changed, "score")
    run(copied, "encode")
    assert part.exists()
    assert digests(copied)["encode"] == digests(finished.settings)["encode"]
    assert states(copied)["score"] == "complete"


def test_a_stage_alone_refuses_what_other_settings_made(copied):
    changed = merge(copied, {"select": {"top_fraction": 0.5}})
    with pytest.raises(MissingStageError, match=r"stage select is out of date .*run `ldsaug select`"):
        run(changed, "report")


def test_training_that_diverges_names_step_and_term_and_is_not_tried_again(copied):
    settings = merge(copied, {"train": {"learning_rate": 1e20}})
    with pytest.raises(
        DivergedError, match=r"at step \d+: .*= nan.* lower learning_rate.*\. There was no checkpoint yet"
    ):
        run(settings, "train")
    assert "train" not in manifest(settings)
    with pytest.raises(DivergedError, match=r"at step 1: 16 of 16 latents are not finite.* There was no checkpoint"):
        run(merge(settings, {"train": {"checkpoint_every": 1}}), "train")
    assert str(of_the_checkpoints(DivergedError("x"), Location.of("/runs/a/train/ray"), 40)) == (
        "x. The checkpoint of step 40 is kept in /runs/a/train/ray, until the stage runs with other settings: that "
        "starts it anew"
    )


def test_what_training_cannot_do_is_told_before_the_finished_one_is_deleted(copied, tmp_path):
    weights = [Path(copied["run_dir"]) / stage / "vae.safetensors" for stage in ("train", "finetune")]
    before = [w.read_bytes() for w in weights]
    network = {"objective": {"perceptual": {"network": str(tmp_path / "none.pt")}}}
    for stage in ("train", "finetune"):
        for changes, message in (
            ({"batch_size": 64}, "batch_size = 64 is more than the 44 images"),
            (network, r"none\.pt"),
        ):
            with pytest.raises(LdsaugError, match=message):
                run(merge(copied, {stage: changes}), stage)
    with pytest.raises(ImpossibleError, match="less than one image of A a step"):
        run(merge(copied, {"finetune": {"mixing": 0.01}}), "finetune")
    assert [w.read_bytes() for w in weights] == before
    assert {"train", "finetune"} <= set(manifest(copied))


def test_a_stage_alone_needs_the_one_before(tree):
    with pytest.raises(MissingStageError, match="stage encode is not complete"):
        run(tree, "score")


def test_fewer_images_than_a_batch(copied):
    with pytest.raises(ImpossibleError, match=r"train.batch_size = 64 is more than the 44 images"):
        run(merge(copied, {"train": {"batch_size": 64}}), "train")


def test_no_attribute_is_invented_and_faces_of_a_folder_keep_their_names(finished):
    latents = table(finished.settings, "latents")
    assert "attributes" not in latents.column_names
    assert set(latents["key"].to_pylist()) == {f"disc-{n:03d}.png" for n in range(60)}


def test_approximate_scores_come_with_intervals_and_the_index_is_used_again(copied, capsys):
    approximate = {"backend": "faiss", "approximate": {"neighbours": 6, "sample": 20}, "shard_latents": 20}
    settings = merge(copied, {"score": {**approximate, "part_candidates": 900}})
    exact = table(copied, "scores").sort_by("candidate")
    run(settings, "score")
    assert "flat index: built a new index: there is no saved index" in capsys.readouterr().err
    assert (manifest(settings)["score"]["backend"], manifest(settings)["score"]["shards"]) == ("faiss", 3)
    found = table(settings, "scores").sort_by("candidate")
    assert found["candidate"].equals(exact["candidate"])
    for name in ("log_lds", "log_lds_excluding_parents"):
        low, high, truth = (
            t[n].to_numpy() for t, n in ((found, f"{name}_low"), (found, f"{name}_high"), (exact, name))
        )
        assert (low - 1e-4 <= truth).all()
        assert (truth <= high + 1e-4).all()
        assert (high - low > 0.01).any()  # the rest is a sample's
    run(merge(settings, {"score": {"n_candidates": 900}}), "score")
    assert "flat index: the saved index matches" in capsys.readouterr().err
