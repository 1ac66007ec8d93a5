"""Weights and settings in one file: round trip, and a clear message for every way it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from vae_helpers import TINY, blobs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models import VAE, build_vae, load_vae, posterior_means, save_vae, weights_digest
from ldsaug_ray.models.checkpoint import pack

HEADER = {
    "format": "ldsaug_ray.vae",
    "version": 1,
    "vae": TINY.model_dump(mode="json"),
    "resolution": 16,
    "extra": {},
}


@pytest.fixture
def file(tmp_path: Path, tiny: VAE) -> Location:
    location = Location.of(tmp_path / "vae.safetensors")
    save_vae(location, tiny, {"step": 7})
    return location


def _tensors(location: Location) -> dict[str, Tensor]:
    return load_safetensors(location.read_bytes())


def test_round_trip(file: Location, tiny: VAE) -> None:
    loaded = load_vae(file, "cpu", expect=(TINY, {"resolution": 16}))
    assert weights_digest(loaded) == weights_digest(tiny)
    assert (loaded.settings, loaded.resolution, loaded.training) == (TINY, 16, False)
    with safe_open(file.path, "pt") as stored:
        assert json.loads(stored.metadata()["ldsaug"])["extra"] == {"step": 7}
    assert (posterior_means(loaded, blobs(3), 3) == posterior_means(tiny, blobs(3), 3)).all()
    assert [f.name for f in Path(file.path).parent.iterdir()] == ["vae.safetensors"], "no temporary file stays"


def test_digest_sees_names_shapes_types_and_values(tiny: VAE) -> None:
    first = weights_digest(tiny)
    assert len(first) == 64
    with torch.no_grad():
        tiny.decoder.const[0, 0, 0, 0].add_(1e-6)
    second = weights_digest(tiny)
    assert second != first
    assert weights_digest(tiny.to(torch.bfloat16)) != second


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.safetensors: there is no such checkpoint"):
        load_vae(Location.of(tmp_path / "nothing.safetensors"))


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_file(file: Location, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated"):
        load_vae(file)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a pickled checkpoint, perhaps", b"\x02" + b"\0" * 7 + b"[]", b"{}" * 50]
)
def test_not_safetensors(file: Location, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file"):
        load_vae(file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ldsaug": "{"}, {"ldsaug": "[]"}, {"ldsaug": "{}"}])
def test_metadata_of_others(file: Location, metadata: dict[str, str] | None) -> None:
    file.write_bytes(save_safetensors(_tensors(file), metadata=metadata))
    with pytest.raises(InputError, match="without the settings that ldsaug_ray keeps"):
        load_vae(file)


def test_another_version(file: Location) -> None:
    file.write_bytes(pack(_tensors(file), {**HEADER, "version": 2}))
    with pytest.raises(InputError, match=r"ldsaug_ray\.vae version 2; this is for ldsaug_ray\.vae 1"):
        load_vae(file)


@pytest.mark.parametrize(
    "change", [{"vae": {"latent_dim": -1}}, {"vae": None}, {"resolution": 17}, {"resolution": None}]
)
def test_header_that_describes_no_vae(file: Location, change: dict[str, object]) -> None:
    file.write_bytes(pack(_tensors(file), {**HEADER, **change}))
    with pytest.raises(InputError, match="header does not describe a VAE"):
        load_vae(file)


def test_another_architecture_than_expected(file: Location) -> None:
    other = Vae(**{**TINY.model_dump(), "latent_dim": 9})
    with pytest.raises(InputError, match=r"vae\.latent_dim is 8, expected 9; resolution is 16, expected 32$"):
        load_vae(file, expect=(other, {"resolution": 32}))


def test_tensors_that_do_not_fit(file: Location) -> None:
    tensors = _tensors(file)
    without = {name: t for name, t in tensors.items() if name != "decoder.const"}
    cases = [
        (without, r"tensor decoder\.const missing"),
        ({}, r"tensors centre, decoder\.blocks.* and \d+ more missing"),
        ({**tensors, "extra": torch.zeros(1)}, "tensor extra unexpected"),
        ({**tensors, "decoder.const": torch.zeros(2)}, r"const is float32\[2\], expected float32\[1, 16, 4, 4\]"),
        ({**tensors, "decoder.const": tensors["decoder.const"].half()}, r"const is float16.*expected float32"),
        (
            {**tensors, "decoder.const": tensors["decoder.const"] * torch.nan},
            r"decoder\.const with values that are not",
        ),
    ]
    for changed, message in cases:
        file.write_bytes(pack(changed, HEADER))
        with pytest.raises(InputError, match=message):
            load_vae(file)


def test_a_diverged_model_is_not_written(file: Location, tiny: VAE) -> None:
    before = file.read_bytes()
    with torch.no_grad():
        tiny.centre.fill_(torch.inf)
    with pytest.raises(InputError, match="not written: tensor centre"):
        save_vae(file, tiny)
    assert file.read_bytes() == before


def test_header_is_plain_json_in_the_file(file: Location) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ldsaug"])
    assert header == {**HEADER, "extra": {"step": 7}}


def test_same_weights_same_bytes(tmp_path: Path) -> None:
    files = [Location.of(tmp_path / name) for name in "ab"]
    for file in files:
        save_vae(file, build_vae(TINY, 16, seed=0))
    assert files[0].read_bytes() == files[1].read_bytes()
