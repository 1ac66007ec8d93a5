"""Public functions take a path as text, as a Path, or as a location."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, Vae, load_config
from ldsaug_ray.domains.images import read_attribute_file
from ldsaug_ray.errors import StorageError
from ldsaug_ray.lds import Approximation, LatentIndex, latents_fingerprint, load_index, save_index
from ldsaug_ray.models import build_vae, load_vae, read_latent_dim, save_vae
from ldsaug_ray.run.directory import RunDir

KINDS = pytest.mark.parametrize("kind", [str, lambda path: path, Location.of], ids=["text", "Path", "location"])


@KINDS
def test_models(kind, tmp_path):
    settings = Vae(latent_dim=3, channel_base=64, channel_max=4, mapping_layers=1)
    vae, file = build_vae(settings, 16, seed=0), kind(tmp_path / "vae.safetensors")
    save_vae(file, vae, {"step": 7})
    assert read_latent_dim(file) == 3
    again = load_vae(file).state_dict()
    assert all(torch.equal(x, again[name]) for name, x in vae.state_dict().items())


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "Path"])
def test_indices_and_settings(kind, tmp_path):
    z, settings = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), Approximation()
    save_index(kind(tmp_path / "index"), LatentIndex.build(z, settings), latents_fingerprint(z))
    assert load_index(kind(tmp_path / "index"), z, settings, latents_fingerprint(z))[1] == "the saved index matches"

    (tmp_path / "config.yaml").write_text("run_dir: out\ndata: {source: pictures}\n")
    assert load_config(kind(tmp_path / "config.yaml")).run_dir == "out"
    config = Config(run_dir=kind(tmp_path), data={"source": kind(tmp_path)})
    assert (config.run_dir, config.data.source) == (str(tmp_path), str(tmp_path))


@KINDS
def test_tables_and_runs(kind, tmp_path):
    (tmp_path / "list.txt").write_text("1\nSmiling\na.png -1\n")
    assert read_attribute_file(kind(tmp_path / "list.txt")).names == ("Smiling",)
    assert RunDir(kind(tmp_path)).root.path == str(tmp_path)


@pytest.mark.parametrize("odd", [3, None, b"/tmp"])
def test_what_is_no_path_is_told(odd):
    with pytest.raises(StorageError, match="text or a Path; found"):
        load_vae(odd)
