"""A user's encoder and decoder of rows: what the files compute, kept in the checkpoint; refused if they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_helpers import script
from torch import Tensor, nn

from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains.vectors.settings import VectorsData
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models import CODECS, decode_batch, encode_batch, load_vae, save_vae

KIND = CODECS.get("torchscript_rows")
GIVEN = {"mean": [1.0, 50.0, 0.0], "spread": [2.0, 10.0, 0.5], "listed": False}
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit")


class Pair(nn.Module):
    """Rows to the pair of mean and log variance."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2] / 2, x[:, 1:] - 1


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + torch.randn_like(x[:, :2])


def settings(folder: Path, encoder: nn.Module, decoder: nn.Module) -> Any:
    parts = {"encoder": encoder, "decoder": decoder}
    files = {name: str(script(module, folder / f"{name}.pt")) for name, module in parts.items()}
    return KIND.settings(kind="torchscript_rows", **files)


def test_latents_and_rows_are_the_files_and_stay_in_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(3, 2), nn.Linear(2, 3)
    model = KIND.take(settings(tmp_path, encoder, decoder), GIVEN)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    z = encode_batch(model, x, 4)
    weight, bias = (p.detach().numpy() for p in encoder.parameters())
    np.testing.assert_allclose(z, x @ weight.T + bias, atol=1e-6)
    weight, bias = (p.detach().numpy() for p in decoder.parameters())
    np.testing.assert_allclose(decode_batch(model, z, 4), z @ weight.T + bias, atol=1e-6)
    save_vae(tmp_path / "vae.safetensors", model)
    for name in ("encoder.pt", "decoder.pt"):
        (tmp_path / name).unlink()
    again = load_vae(tmp_path / "vae.safetensors")
    np.testing.assert_array_equal(encode_batch(again, x, 4), z)
    assert (again.unit, again.latent_dim) == ("rows", 2)


def test_mean_and_log_variance(tmp_path: Path) -> None:
    model = KIND.take(settings(tmp_path, Pair(), nn.Linear(2, 3)), GIVEN)
    mu, logvar = model.encode(torch.tensor([[2.0, 4.0, 6.0]]))
    assert (mu.tolist(), logvar.tolist()) == ([[1.0, 2.0]], [[3.0, 5.0]])


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (nn.Linear(4, 2), nn.Linear(2, 3), r"encoder.pt: the encoder fails on float32\[2, 3\]"),
        (nn.Linear(3, 2), nn.Linear(2, 4), r"the decoder, given latents \[2, 2\], gives \[2, 4\]; expected \[2, 3\]"),
        (Random(), nn.Linear(2, 3), "the encoder gives something else each time for the same input"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), nn.Linear(2, 3), "given 2 rows of 3 values, gives"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, encoder: nn.Module, decoder: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KIND.take(settings(tmp_path, encoder, decoder), GIVEN)


def test_files_that_are_missing_and_categories(tmp_path: Path) -> None:
    given = settings(tmp_path, nn.Linear(3, 2), nn.Linear(2, 3))
    (tmp_path / "decoder.pt").unlink()
    with pytest.raises(InputError, match=r"vae.decoder: there is no file .*decoder.pt"):
        KIND.take(given, GIVEN)
    with pytest.raises(ConfigError, match=r"only vae.kind: mlp decodes to one"):
        KIND.check(VectorsData(source="x.csv", categories=["colour"]))
    tree = {"run_dir": str(tmp_path), "domain": "vectors", "data": {"source": "x.csv"}}
    with pytest.raises(ConfigError, match=r"vae.decoder"):
        build_config({**tree, "vae": {"kind": "torchscript_rows", "encoder": "a.pt"}}, [])
