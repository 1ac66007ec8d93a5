"""Encode, Score and Decode: what the stages compute, of a batch; and on a Dataset."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from ldsaug_ray import Decode, Encode, Score, load_run
from ldsaug_ray.common.columns import matrix
from ldsaug_ray.domains.images import image_array
from ldsaug_ray.errors import InputError, StorageError
from ldsaug_ray.models import decode_images, load_vae


@pytest.fixture
def images(finished):
    """Prepared training images of a run, and the file of its model."""
    from pathlib import Path

    import pyarrow.parquet as pq

    run = Path(finished.settings["run_dir"])
    table = pq.read_table(run / "images" / "train-000000.parquet")
    return table, run / "train" / "vae.safetensors"


def test_encode_is_the_stage(finished, images):
    table, file = images
    latents = load_run(finished.settings["run_dir"]).latents
    z = dict(zip(latents["key"].to_pylist(), matrix(latents["z"]), strict=True))
    for model in (file, str(file), load_vae(file)):
        batch = Encode(model, batch_size=8, device="cpu")({"key": table["key"], "image": image_array(table)})
        assert set(batch) == {"key", "image", "z"}
        want = np.stack([z[key] for key in table["key"].to_pylist()])
        assert batch["z"].tobytes() == want.tobytes()


def test_decode_gives_the_images(images):
    z = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    want = decode_images(load_vae(images[1]), z, 64)
    assert np.array_equal(Decode(images[1])({"z": z.astype(np.float64)})["image"], want)
    rows = np.empty(5, object)
    rows[:] = list(z)  # as Ray gives lists
    assert np.array_equal(Decode(images[1], out="picture")({"z": rows})["picture"], want)


def test_score_is_the_mean_of_kernels(tmp_path):
    rng = np.random.default_rng(0)
    latents, z = rng.normal(size=(40, 3)), rng.normal(size=(7, 3))
    np.save(tmp_path / "latents.npy", latents)
    sigma = 0.2 * np.linalg.norm(latents, axis=1).mean()
    want = logsumexp(-((z[:, None] - latents[None]) ** 2).sum(-1) / (2 * sigma**2), axis=1) - np.log(40)
    for given in (latents, tmp_path / "latents.npy", str(tmp_path / "latents.npy")):
        np.testing.assert_allclose(Score(given)({"z": z})["log_lds"], want, atol=1e-4)


def test_bad_input_is_told(images, tmp_path):
    file = images[1]
    with pytest.raises(InputError, match="no column 'image'; its columns are z"):
        Encode(file)({"z": np.zeros((1, 6))})
    with pytest.raises(InputError, match=r"uint8\[N, 16, 16, 3\] for this VAE, got float64"):
        Encode(file)({"image": np.zeros((1, 16, 16, 3))})
    with pytest.raises(InputError, match=r"float32\[N, 6\] for this VAE, got float32\[1, 5\]"):
        Decode(file)({"z": np.zeros((1, 5))})
    with pytest.raises(InputError, match="column z hold NaN"):
        Decode(file)({"z": np.full((1, 6), np.nan)})
    rows = np.empty(2, object)
    rows[:] = [np.zeros(6), np.zeros(5)]
    with pytest.raises(InputError, match=r"column z has rows of different shapes \(\(5,\), \(6,\)"):
        Decode(file)({"z": rows})
    with pytest.raises(InputError, match="no such checkpoint file"):
        Decode(tmp_path / "none")({"z": np.zeros((1, 6))})
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        Encode(file, batch_size=0)
    with pytest.raises(InputError, match="device = 'none' cannot be used"):
        Encode(file, device="none")({"image": np.zeros((1, 16, 16, 3), np.uint8)})
    with pytest.raises(InputError, match=r"points .*6.*3|3.*6"):
        Score(np.eye(3), 1.0)({"z": np.zeros((1, 6))})
    (tmp_path / "odd.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"odd.npy is no \.npy file"):
        Score(tmp_path / "odd.npy")
    with pytest.raises(StorageError, match=r"none\.npy"):
        Score(tmp_path / "none.npy")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_on_a_dataset(images):
    import ray.data

    table, file = images
    pictures = image_array(table)[:12]
    data = ray.data.from_items([{"image": image} for image in pictures], override_num_blocks=2)
    latents = np.random.default_rng(0).normal(size=(30, 6))
    actor = {"batch_size": 6, "concurrency": 1, "num_cpus": 0.25}  # two of them, and a task, share two CPUs
    out = data.map_batches(Encode, fn_constructor_args=(str(file),), **actor).map_batches(Score(latents, 2.0))
    out = out.map_batches(Decode, fn_constructor_args=(str(file),), fn_constructor_kwargs={"out": "again"}, **actor)
    got = out.take_batch(12)
    z = Encode(file)({"image": got["image"]})["z"]
    np.testing.assert_allclose(got["z"], z, atol=1e-5)
    np.testing.assert_allclose(got["log_lds"], Score(latents, 2.0)({"z": z})["log_lds"], atol=1e-4)
    assert got["again"].shape == pictures.shape
