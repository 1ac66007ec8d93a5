"""A pretrained autoencoder in a run: one file that needs the user's files no more, and says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters_helpers import Down, Up, directory, export, files, script, tiny_kl
from safetensors.torch import load as load_safetensors
from torch import Tensor
from vae_helpers import TINY, blobs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Optimisation, Uses, Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models import (
    VAE,
    Trainer,
    decode_images,
    load_vae,
    open_pretrained,
    posterior_means,
    read_latent_dim,
    save_vae,
    weights_digest,
)
from ldsaug_ray.models.checkpoint import pack
from ldsaug_ray.models.mlflow_model import _load_pyfunc

SIDE = 16


def scripted(folder: Path) -> Vae:
    return files(script(Down(), folder / "mine.pt"), script(Up(), folder / "own.pt"))


def exported(folder: Path) -> Vae:
    encoder = export(Down(), folder / "mine.pt2", torch.zeros(2, 3, SIDE, SIDE))
    return files(encoder, script(Up(), folder / "own.pt"))


def of_diffusers(folder: Path) -> Vae:
    tiny_kl().save_pretrained(folder)
    return directory(folder)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "run" / "vae.safetensors")


@pytest.mark.parametrize("make", [scripted, exported, of_diffusers])
def test_round_trip_without_the_users_files(sources: Path, file: Location, make: Callable[[Path], Vae]) -> None:
    """Also of weights that were trained further, and again from what was loaded."""
    settings = make(sources)
    model = open_pretrained(settings, SIDE)
    untouched = weights_digest(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert weights_digest(model) != untouched
    save_vae(file, model, {"step": 3})
    shutil.rmtree(sources)
    loaded = load_vae(file, expect=(settings, {"resolution": SIDE}))
    assert weights_digest(loaded) == weights_digest(model)
    assert (loaded.latent_dim, loaded.resolution, loaded.training) == (model.latent_dim, SIDE, False)
    assert read_latent_dim(file) == model.latent_dim
    z = posterior_means(model, blobs(3), 3)
    np.testing.assert_array_equal(posterior_means(loaded, blobs(3), 3), z)
    np.testing.assert_array_equal(decode_images(loaded, z, 3), decode_images(model, z, 3))
    np.testing.assert_array_equal(_load_pyfunc(file.path).predict(z), decode_images(model, z, 3))
    again = Location.of(Path(file.path).with_name("again.safetensors"))
    save_vae(again, loaded, {"step": 3})
    assert again.read_bytes() == file.read_bytes()
    assert str(sources).encode() not in file.read_bytes(), "where the files lay is nobody's business"


def test_dimension_of_our_own(file: Location, tiny: VAE) -> None:
    save_vae(file, tiny)
    assert read_latent_dim(file) == TINY.latent_dim == tiny.latent_dim


def test_digest_sees_what_the_weights_do_not_say(sources: Path) -> None:
    settings = scripted(sources)
    digests = {
        weights_digest(open_pretrained(settings.model_copy(update={"pixel_range": r}), SIDE))
        for r in ("unit", "symmetric", "bytes")
    }
    of_diffusers(sources / "kl")
    config = sources / "kl" / "config.json"
    for factor in (0.4, 0.5):
        config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": factor}))
        digests.add(weights_digest(open_pretrained(directory(sources / "kl"), SIDE)))
    assert len(digests) == 5
    moved = sources / "moved"
    shutil.copytree(sources / "kl", moved)
    config = moved / "config.json"
    config.write_text(json.dumps({"_name_or_path": "elsewhere", **json.loads(config.read_text())}, indent=4))
    assert weights_digest(open_pretrained(directory(moved), SIDE)) in digests


def _opened(file: Location) -> tuple[dict[str, Tensor], dict[str, object]]:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return load_safetensors(data), json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ldsaug"])


def test_what_can_be_wrong_with_it(sources: Path, file: Location) -> None:
    settings = scripted(sources)
    save_vae(file, open_pretrained(settings, SIDE))
    whole, header = _opened(file)
    name = "pretrained/encoder.pt"
    flipped = whole[name].clone()
    flipped[len(flipped) // 2] ^= 1
    weight = next(n for n in whole if n.endswith("conv.weight"))
    cases = [
        ({n: t for n, t in whole.items() if n != name}, header, r"its copy of encoder\.pt is missing"),
        ({**whole, name: flipped}, header, r"its copy of encoder\.pt is damaged \(SHA-256"),
        ({**whole, name: whole[name].float()}, header, r"its copy of encoder\.pt is missing"),
        ({n: t for n, t in whole.items() if n != weight}, header, rf"tensor {weight} missing"),
        ({**whole, weight: whole[weight][:1]}, header, rf"tensor {weight} is float32\[1, .*expected float32\[4, "),
        ({**whole, weight: whole[weight] * torch.nan}, header, f"{weight} with values that are not finite"),
        (whole, {**header, "pretrained": {}}, r"its copy of encoder\.pt, decoder\.pt is missing"),
        ({**whole, "more": torch.zeros(1)}, header, "tensor more unexpected"),
        (whole, {k: v for k, v in header.items() if k != "pretrained"}, "header does not describe"),
        (whole, {**header, "resolution": 10}, r"gives \[2, 3, 8, 8\]; expected \[2, 3, 10, 10\]"),
    ]
    for tensors, other, message in cases:
        file.write_bytes(pack(tensors, other))
        with pytest.raises(InputError, match=message):
            load_vae(file)
    file.write_bytes(pack(whole, header)[:-10])
    with pytest.raises(InputError, match="truncated"):
        load_vae(file)


def test_another_kind_or_resolution_than_expected(sources: Path, file: Location, tiny: VAE) -> None:
    settings = scripted(sources)
    save_vae(file, open_pretrained(settings, SIDE))
    for expect, message in (
        ((TINY, SIDE), r"vae\.kind is torchscript, expected stylegan2"),
        ((settings, 32), "resolution is 16, expected 32"),
        ((settings.model_copy(update={"pixel_range": "bytes"}), SIDE), r"pixel_range is unit, expected bytes"),
    ):
        with pytest.raises(InputError, match=message):
            load_vae(file, expect=(expect[0], {"resolution": expect[1]}))
    moved = settings.model_copy(update={"encoder": "s3://elsewhere/e.pt"})
    assert load_vae(file, expect=(moved, {"resolution": SIDE})).latent_dim == 64
    save_vae(file, tiny)
    with pytest.raises(InputError, match=r"vae\.kind is stylegan2, expected torchscript"):
        load_vae(file, expect=(settings, {"resolution": SIDE}))


def test_a_diverged_one_is_not_written(sources: Path, file: Location) -> None:
    model = open_pretrained(scripted(sources), SIDE)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    with pytest.raises(InputError, match=r"not written: tensor encoder\.net\.conv"):
        save_vae(file, model)
    assert not file.exists()


class Tied(Down):
    """A layer that is registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = next(m for m in self.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))


def test_layers_that_share_their_weights_are_kept(sources: Path, file: Location) -> None:
    vae = open_pretrained(files(script(Tied(), sources / "tied.pt"), script(Up(), sources / "own.pt")), SIDE)
    save_vae(file, vae)
    loaded = load_vae(file)
    images = blobs(3, SIDE)
    np.testing.assert_array_equal(posterior_means(loaded, images, 3), posterior_means(vae, images, 3))


@pytest.mark.parametrize("given", [scripted, exported, of_diffusers])
def test_training_follows_with_averaged_weights(sources: Path, given: Callable[[Path], Vae]) -> None:
    vae = open_pretrained(given(sources), SIDE)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    settings = Optimisation(steps=2, batch_size=4, learning_rate=1e-2, ema_half_life=16)
    trainer = Trainer(vae, settings, 0, "cpu", uses=Uses(), fixed_centre=True)
    assert all(p.requires_grad for p in vae.parameters())
    assert not any(p.requires_grad for p in trainer.averaged.parameters())
    for k in range(2):
        assert trainer.train_step(blobs(4, SIDE, seed=k))["loss"] > 0
    now, averaged = dict(vae.named_parameters()), dict(trainer.averaged.named_parameters())
    moved = [n for n in before if not torch.equal(now[n], before[n])]
    assert len(moved) > len(before) / 2
    assert all(not torch.equal(averaged[n], before[n]) for n in moved)
