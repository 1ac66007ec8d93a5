"""A whole run of rows of numbers: nothing is trained, and A is what interpolation by hand gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.decomposition import PCA
from stages_helpers import digests, manifest

from ldsaug_ray import load_run
from ldsaug_ray.api.runs import perform
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config.load import build_config
from ldsaug_ray.models import Trainer, load_vae

CONFIG = Path(__file__).parents[2] / "configs/vectors.yaml"


def tree(folder: Path, source: Path | str, **data: Any) -> dict[str, Any]:
    one = {"workers": {"count": 1}}
    return {
        "run_dir": str(folder),
        "engine": "inline",
        "domain": "vectors",
        "data": {"source": str(source), "train": 0.8, "test": 0.2, "part_rows": 32, **one, **data},
        "score": {"n_candidates": 1800, "part_candidates": 450, **one},
        "decode": {"part_rows": 64, **one},
        "encode": one,
        "evaluate": {"extractor": "values", "n": 60, "k": 3, "models": ["train"], **one},
        "sample": one,
        "tracking": {"enabled": False},
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """120 rows of four columns on different scales, in two clusters with a label; one row is NaN."""
    rng = np.random.default_rng(0)
    label = np.arange(120) % 3 == 0
    x = (rng.normal(size=(120, 4)) + 4 * label[:, None]) * [1, 100, 0.01, 5] + [0, 50, 0, -3]
    x = x.astype(np.float32)
    x[17, 2] = np.nan
    columns: dict[str, Any] = {name: x[:, k] for k, name in enumerate("abcd")}
    file = tmp_path_factory.mktemp("table") / "x.parquet"
    pq.write_table(pa.table({**columns, "kind": np.where(label, "rare", "often")}), file)
    return file, x


def test_a_run_of_a_table(table: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, x = table
    settings = tree(tmp_path / "run", file, attributes="columns", attribute_names=["kind"])
    assert run_command(build_config(settings, []), "run") == 0
    run, stages = load_run(tmp_path / "run"), manifest(settings)
    assert "finetune" not in stages
    assert stages["prepare"]["quarantine_reasons"] == {"c is NaN": 1}
    z = np.stack(run.latents["z"].to_numpy())
    keys = [int(k.partition("#")[2]) for k in run.latents["key"].to_pylist()]
    training = [k for k, split in zip(keys, run.latents["split"].to_pylist(), strict=True) if split == "train"]
    mean, spread = x[training].astype(np.float64).mean(0), x[training].astype(np.float64).std(0)
    np.testing.assert_allclose(z, (x[keys] - mean) / spread, atol=1e-5)
    made = run.augmented
    assert len(made) == stages["select"]["rows_out"] == 360
    i, j = (np.array([int(k.partition("#")[2]) for k in made[c].to_pylist()]) for c in ("parent_i", "parent_j"))
    alpha = made["alpha"].to_numpy()[:, None]
    by_hand = (1 - alpha) * x[i] + alpha * x[j]  # an affine map keeps lines
    np.testing.assert_allclose(
        np.array([[*row.values()] for row in made["row"].to_pylist()]), by_hand, rtol=1e-4, atol=1e-4
    )
    assert made["row"].type.field(0).name == "a"
    page = (tmp_path / "run/report/index.html").read_text()
    assert "A beside the training rows" in page
    assert "Pairwise correlations differ by" in page
    assert "training images" not in page
    assert "sharpness" not in capsys.readouterr().out
    before = digests(settings)
    assert run_command(build_config(settings, []), "run") == 0
    assert digests(settings) == before


def test_lists_are_latents_as_they_are(table: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    x = np.delete(table[1], 17, axis=0)
    np.save(tmp_path / "x.npy", x)
    settings = tree(tmp_path / "run", tmp_path / "x.npy")
    settings["evaluate"] = {"extractor": None}
    assert run_command(build_config(settings, []), "run") == 0
    run = load_run(tmp_path / "run")
    rows = [int(k.partition("#")[2]) for k in run.latents["key"].to_pylist()]
    np.testing.assert_array_equal(np.stack(run.latents["z"].to_numpy()), x[rows])
    np.testing.assert_array_equal(np.stack(run.augmented["row"].to_numpy()), np.stack(run.augmented["z"].to_numpy()))


def test_the_config_that_comes_with_it() -> None:
    from ldsaug_ray.config import load_config

    config = load_config(CONFIG)
    assert (config.domain, config.data.source, config.vae.kind) == ("vectors", "sklearn:wine", "identity")


def test_a_table_trains_a_vae_and_goes_on(table: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Killed after 40 of 80 steps it ends with the same bits; it reconstructs better than the mean does."""
    steps = {"batch_size": 16, "checkpoint_every": 40, "learning_rate": 0.01, "workers": {"count": 1}}
    whole = tree(tmp_path / "whole", table[0])
    whole |= {"vae": {"kind": "mlp", "latent_dim": 3, "width": 32}, "train": {"steps": 80, **steps}}
    whole |= {"finetune": {"steps": 10, **steps}, "evaluate": {"extractor": None}}
    whole["train"]["objective"] = {"beta": 0.01, "reconstruction": "l2", "kl_warmup_steps": 20}
    assert run_command(build_config(whole, []), "run") == 0
    stages = manifest(whole)  # what was done is kept
    assert 0 < stages["train"]["final"]["held_out_reconstruction"] < 0.5  # of the mean it is 1: units of the spread
    assert stages["finetune"]["augmented_images"] == stages["decode"]["rows_out"]
    half = {**whole, "run_dir": str(tmp_path / "half")}
    taken = 0

    def stop(trainer: Trainer, *given: Any) -> dict[str, float]:
        nonlocal taken
        taken += 1
        if taken == 60:
            raise KeyboardInterrupt
        return step(trainer, *given)

    step = Trainer.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run_command(build_config(half, []), "train")
    assert run_command(build_config(half, []), "train") == 0
    assert manifest(half)["train"]["resumed_from_step"] == 40
    assert digests(half)["train"] == digests(whole)["train"]


def test_categories_are_words_in_a(tmp_path: Path) -> None:
    """The colour follows from a number: the VAE learns it, and so A's colours do; a run that goes on has them too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32) + np.where(np.arange(200)[:, None] % 2, 2, -2)
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": x[:, 0], "colour": np.where(x[:, 0] > 0, "red", "white"), "b": x[:, 1]}), file)
    steps = {"batch_size": 32, "checkpoint_every": 100, "learning_rate": 0.01, "workers": {"count": 1}}
    settings = tree(tmp_path / "run", file, categories=["colour"])
    settings |= {"vae": {"kind": "mlp", "latent_dim": 2, "width": 32}, "train": {"steps": 200, **steps}}
    settings |= {"finetune": {"steps": 10, **steps}, "evaluate": {"extractor": None}}
    settings["train"]["objective"] = {"beta": 0.01, "reconstruction": "l2"}
    assert run_command(build_config(settings, []), "run") == 0
    run = load_run(tmp_path / "run")
    made = run.augmented["row"].to_pylist()
    assert [*made[0]] == ["a", "b", "colour"]
    sure = [row for row in made if abs(row["a"]) > 0.5]
    assert {row["colour"] for row in sure} == {"red", "white"}
    assert np.mean([(row["colour"] == "red") == (row["a"] > 0) for row in sure]) > 0.95
    assert "colour = red" in (tmp_path / "run/report/index.html").read_text()
    assert load_vae(tmp_path / "run/train/vae.safetensors").given["categories"] == {"colour": ["red", "white"]}


@pytest.mark.filterwarnings(r"ignore:`torch\.jit")
def test_networks_of_the_users_as_the_codec(table: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Principal components as TorchScript files: latents and A are scikit-learn's."""
    x = np.delete(table[1], 17, axis=0)
    np.save(tmp_path / "x.npy", x)
    pca = PCA(2).fit(x)
    back = torch.nn.Linear(2, 4)
    back.weight.data, back.bias.data = (torch.tensor(v, dtype=torch.float32) for v in (pca.components_.T, pca.mean_))
    there = torch.nn.Linear(4, 2)
    there.weight.data = torch.tensor(pca.components_, dtype=torch.float32)
    there.bias.data = torch.tensor(-pca.components_ @ pca.mean_, dtype=torch.float32)
    files = {"encoder": there, "decoder": back}
    for name, net in files.items():
        torch.jit.script(net).save(str(tmp_path / f"{name}.pt"))
    settings = tree(tmp_path / "run", tmp_path / "x.npy")
    settings["vae"] = {"kind": "torchscript_rows", **{name: str(tmp_path / f"{name}.pt") for name in files}}
    settings |= {"finetune": {"steps": 2, "workers": {"count": 1}}}
    perform(build_config(settings, []), ["prepare", "train", "encode", "score", "select", "decode", "finetune"])
    run = load_run(tmp_path / "run")
    rows = [int(k.partition("#")[2]) for k in run.latents["key"].to_pylist()]
    np.testing.assert_allclose(np.stack(run.latents["z"].to_numpy()), pca.transform(x[rows]), rtol=1e-4, atol=1e-3)
    z = np.stack(run.augmented["z"].to_numpy())
    made = np.stack(run.augmented["row"].to_numpy())
    np.testing.assert_allclose(made, pca.inverse_transform(z), rtol=1e-4, atol=1e-3)
    assert manifest(settings)["finetune"]["augmented_images"] == len(made)
