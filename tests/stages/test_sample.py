"""`ldsaug sample` on the tiny run: every prior and format, resumed and refused, and the same images whoever draws."""

from __future__ import annotations

import io
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file
from stages_helpers import Tree, interrupt, merge, start

from ldsaug_ray.cli import main
from ldsaug_ray.commands.sample import sample_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import InputError, MissingStageError, StorageError
from ldsaug_ray.lds import interpolate, lds_weights
from ldsaug_ray.models import decode_images, load_vae, posterior_means
from ldsaug_ray.models.priors import Mixture, Normal, kernel_density, resampled_rows
from ldsaug_ray.run.directory import RunDir


def table(folder: Path) -> pa.Table:
    return pads.dataset(folder / "images", format="parquet").to_table().sort_by("key")


def vectors(rows: pa.Table) -> np.ndarray:
    return np.array(rows["z"].to_pylist(), np.float32)


def entry(folder: Path) -> Tree:
    return json.loads((folder / "manifest.json").read_text())["stages"]["sample"]


def draw(settings: Tree, out: Path, n: int = 40, **sample: object) -> Tree:
    given = {"n": n, "out": str(out), "part_rows": 16, "batch_size": 8, **sample}
    assert sample_command(Config.model_validate(merge(settings, {"sample": given}))) == 0
    return entry(out)


def test_from_the_command_line(copied, save, tmp_path, capsys):
    out, config = tmp_path / "drawn", str(save(copied))
    assert main(["sample", config, "--n", "40", "sample.part_rows=16", "--out", str(out), "--dry-run"]) == 0
    assert "40 images" in capsys.readouterr().out
    assert not out.exists()
    assert main(["sample", "--out", str(out), config, "sample.part_rows=16", "--n=40"]) == 0
    assert "drew 40 images from the fine-tuned VAE, latents from N(0, I); seed 0" in capsys.readouterr().out
    found = entry(out)
    assert [found[f"rows_{k}"] for k in ("in", "out", "dropped", "quarantined")] == [40, 40, 0, 0]
    rows = table(out)
    assert rows["key"].to_pylist() == [f"s{n:09d}" for n in range(40)]
    z = Normal(6).sample(0, 40, 0)
    np.testing.assert_array_equal(vectors(rows), z)
    vae = load_vae(Location.of(copied["run_dir"]) / "finetune/vae.safetensors")
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(x["bytes"]))) for x in rows["image"].to_pylist()])
    expected = decode_images(vae, z, 64).astype(int)
    assert np.abs(pictures.astype(int) - expected).max() <= 1  # another batch may round another way
    assert b'"_type": "Image"' in pq.read_schema(next((out / "images").glob("*.parquet"))).metadata[b"huggingface"]

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    assert main(["sample", config, "--n", "40", "--out", str(out), "sample.part_rows=16"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert main(["sample", config, "--n", "41", "--out", str(out), "sample.part_rows=16"]) == 1
    assert "holds images of another request" in capsys.readouterr().err
    assert main(["sample", config, "--n", "8", "--out", str(out), "--overwrite"]) == 0
    assert len(table(out)) == 8


def test_formats_workers_and_models(copied, tmp_path):
    parquet = draw(copied, tmp_path / "a")
    png = draw(copied, tmp_path / "b", format="png", workers={"count": 1})
    assert png["digest"] == parquet["digest"]
    files = sorted((tmp_path / "b/images").glob("*.png"))
    assert [f.name for f in files] == [f"s{n:09d}.png" for n in range(40)]
    stored = [x["bytes"] for x in table(tmp_path / "a")["image"].to_pylist()]
    assert [f.read_bytes() for f in files] == stored
    more = draw(copied, tmp_path / "c", n=50)
    assert more["rows_out"] == 50
    assert table(tmp_path / "c").slice(0, 32).equals(table(tmp_path / "a").slice(0, 32))
    baseline = draw(copied, tmp_path / "d", model="train", seed=5)
    assert (baseline["model"], baseline["seed"]) == ("train", 5)
    np.testing.assert_array_equal(vectors(table(tmp_path / "d")), Normal(6).sample(0, 40, 5))
    assert main_default(copied) == Path(copied["run_dir"]) / "samples"


def main_default(settings: Tree) -> Path:
    assert sample_command(Config.model_validate(merge(settings, {"sample": {"n": 3}}))) == 0
    return next(Path(settings["run_dir"]).glob("samples"))


def test_densities_of_the_baselines_latents(copied, tmp_path):
    latents = pads.dataset(Path(copied["run_dir"]) / "latents").to_table()
    latents = vectors(latents.filter(pads.field("split") == "train").sort_by("key"))
    found = draw(copied, tmp_path / "kde", prior="kde", model="train", sigma=0.25)
    assert (found["latents"], found["augmented"], found["sigma"]) == (44, 0, 0.25)
    np.testing.assert_array_equal(vectors(table(tmp_path / "kde")), kernel_density(latents, 0.25).sample(0, 40, 0))
    assert draw(copied, tmp_path / "loo", prior="kde", model="train")["sigma"] > 0
    found = draw(copied, tmp_path / "mix", prior="mixture", model="train", components=3)
    assert (found["components"], found["covariance"], found["converged"]) == (3, "full", True)
    drawn = Mixture(**load_file(tmp_path / "mix/_progress/sample/prior.safetensors"), converged=True).sample(0, 40, 0)
    np.testing.assert_array_equal(vectors(table(tmp_path / "mix")), drawn)
    distances = np.linalg.norm(drawn[:, None] - latents[None], axis=2).min(1)
    spread = np.linalg.norm(latents - latents.mean(0), axis=1).max()
    assert (distances < 2 * spread).all()


def test_the_fine_tuned_model_draws_from_its_own_latents_and_a(copied, tmp_path):
    settings = merge(copied, {"select": {"top_count": 30}})
    from ldsaug_ray.commands.run import run_command

    for stage in ("select", "decode", "finetune"):
        if stage == "finetune":
            settings = merge(settings, {"finetune": {"steps": 3, "uses": {"prior": True}, "lds_weight": 0.5}})
        assert run_command(Config.model_validate(settings), stage) == 0
    root = Path(settings["run_dir"])
    found = draw(settings, tmp_path / "out", prior="kde", sigma=0.0)
    assert (found["model"], found["latents"], found["augmented"]) == ("finetune", 44, 30)

    images = pads.dataset(root / "images").to_table().filter(pads.field("split") == "train").sort_by("key")
    pixels = np.array([np.frombuffer(x, np.uint8) for x in images["image"].to_pylist()]).reshape(-1, 16, 16, 3)
    tuned = load_vae(Location.of(root / "finetune/vae.safetensors"))
    z = posterior_means(tuned, pixels, 8)
    keys = images["key"].to_pylist()
    a = pads.dataset(root / "augmented").to_table().sort_by("candidate")
    i, j = ([keys.index(k) for k in a[side].to_pylist()] for side in ("parent_i", "parent_j"))
    line = interpolate(z, i, j, a["alpha"].to_numpy())
    line = line[resampled_rows(lds_weights(a["log_lds"].to_numpy(), 0.5), 0)]
    expected = kernel_density(np.concatenate([z, line]), 0.0).sample(0, 40, 0)
    np.testing.assert_allclose(vectors(table(tmp_path / "out")), expected, rtol=0, atol=1e-5)

    stamps = {p: p.stat().st_mtime_ns for p in (root / "finetune/latents").glob("*")}
    assert stamps
    without = draw(settings, tmp_path / "without", prior="kde", sigma=0.1, with_augmented=False)
    assert without["augmented"] == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    again = merge(settings, {"finetune": {"steps": 4}})
    with pytest.raises(MissingStageError, match=r"stage finetune is out of date"):
        draw(again, tmp_path / "other")
    assert draw(again, tmp_path / "other", model="train")["model"] == "train"
    assert run_command(Config.model_validate(again), "finetune") == 0
    assert not (root / "finetune/latents").exists()


@pytest.mark.cluster
def test_a_killed_command_goes_on(copied, save, tmp_path):
    sample = {"n": 400, "part_rows": 10, "prior": "mixture", "components": 2, "model": "train"}
    calm = draw(copied, tmp_path / "calm", **sample, batch_size=10)
    settings = merge(copied, {"ray": {"num_cpus": 1, "object_store_gb": 0.2}, "sample": {**sample, "batch_size": 10}})
    config, out = save(settings), tmp_path / "killed"
    options = ("--out", str(out))

    def units() -> int:
        return len(list((out / "_progress/sample").glob("*.unit.json")))

    interrupt(start("sample", config, *options, cwd=tmp_path), lambda: units() >= 3, signal.SIGKILL)
    assert "sample" not in json.loads((out / "manifest.json").read_text())["stages"]
    process = start("sample", config, *options, cwd=tmp_path)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert entry(out)["rows_resumed"] >= 30
    assert entry(out)["digest"] == calm["digest"]
    assert table(out).equals(table(tmp_path / "calm"))


def test_what_cannot_be_drawn(copied, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StorageError, match=r"sample.out .*file: is a file"):
        draw(copied, file)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("x")
    with pytest.raises(StorageError, match=r"thesis\.txt"):
        draw(copied, strange)
    root = Path(copied["run_dir"])
    for inside in (root, root / "augmented", root / "finetune" / "x"):
        with pytest.raises((InputError, StorageError), match=r"sample\.out"):
            draw(copied, inside)
    with pytest.raises(InputError, match=r"data\.source"):
        draw(copied, Path(copied["data"]["source"]) / "x")
    with pytest.raises(MissingStageError, match="stage train is not complete"):
        draw(merge(copied, {"run_dir": str(tmp_path / "empty")}), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=r"sample\.components = 45 is more than the 44 latents"):
        draw(copied, tmp_path / "many", prior="mixture", components=45, model="train")
    half = merge(copied, {"run_dir": str(tmp_path / "half")})
    shutil.copytree(root, half["run_dir"])
    run = RunDir(Location.of(half["run_dir"]))
    run.reset("finetune")
    with pytest.raises(MissingStageError, match="stage finetune is not complete"):
        draw(half, tmp_path / "no", model="finetune")
    assert draw(half, tmp_path / "auto", n=3)["model"] == "train"
    run.reset("encode")
    with pytest.raises(MissingStageError, match="stage encode is not complete"):
        draw(half, tmp_path / "no", prior="kde")
