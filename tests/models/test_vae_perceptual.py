"""Perceptual distances against NumPy on real and made-up networks, and every file that cannot be used."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from vae_helpers import SETTINGS, TINY, blobs

from ldsaug_ray.config import Optimisation, Perceptual
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models import Trainer, build_vae, load_perceptual, to_float

# TorchScript is deprecated, and what users have; saving it here warns of that
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.(script|save|load)` is :FutureWarning")


class Maps(nn.Module):
    """Feature maps that depend on the pixels' scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + 10)


class Pooled(Maps):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + 10).mean((2, 3))


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0]


class OneForAll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0, keepdim=True)


class NotFinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(-x.abs()).mean((2, 3))


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.uint8).to(torch.float32).mean((2, 3))


class Labels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).argmax(1)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Fussy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(2) != 224:
            raise RuntimeError("224 px only")
        return x.mean((2, 3))


def _save(network: nn.Module, folder: Path) -> str:
    file = folder / "network.pt"
    torch.jit.save(torch.jit.script(network.eval()), str(file))
    return str(file)


@pytest.mark.parametrize("network", [Maps, Pooled])
@pytest.mark.parametrize(("pixel_range", "low", "high"), [("bytes", 0, 255), ("unit", 0, 1), ("symmetric", -1, 1)])
def test_distance_is_that_of_unit_features(
    tmp_path: Path, network: Callable[[], Maps], pixel_range: str, low: float, high: float
) -> None:
    net = network()
    file = _save(net, tmp_path)
    distance = load_perceptual(Perceptual(network=file, pixel_range=pixel_range), 16)  # type: ignore[arg-type]
    assert distance is not None
    x, y = to_float(torch.tensor(blobs(4))), to_float(torch.tensor(blobs(4, seed=1)))
    with torch.no_grad():
        features = [net((t + 1) / 2 * (high - low) + low).double().numpy() for t in (x, y)]
    unit = [f / np.sqrt((f**2).sum(1, keepdims=True)) for f in features]
    expected = ((unit[0] - unit[1]) ** 2).sum(1)
    expected = expected.mean((1, 2)) if expected.ndim == 3 else expected
    np.testing.assert_allclose(distance(x, y).numpy(), expected, rtol=1e-3, atol=1e-6)
    assert distance(x, x).abs().max() < 1e-10


def test_gradient_reaches_the_reconstruction_alone(tmp_path: Path) -> None:
    distance = load_perceptual(Perceptual(network=_save(Maps(), tmp_path)), 16)
    assert distance is not None
    assert not distance.training
    assert not any(p.requires_grad for p in distance.parameters())
    x, y = (to_float(torch.tensor(blobs(2, seed=s))).requires_grad_() for s in (0, 1))
    distance(x, y).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert y.grad is None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Cube, r"gives \[2, 3, 16\] for 2 images; it must give features \[N, C\] or maps"),
        (OneForAll, r"gives \[1, 3, 16, 16\] for 2 images"),
        (NotFinite, "features are not finite"),
        (Rounded, "no gradient passes"),
        (Labels, "gives int64; it must give a float tensor"),
        (Pair, "gives tuple"),
        (Fussy, "cannot be used on 16 px images.*224 px only"),
    ],
)
def test_networks_that_cannot_be_used(tmp_path: Path, network: Callable[[], nn.Module], message: str) -> None:
    file = _save(network(), tmp_path)
    with pytest.raises(InputError, match=rf"network\.pt: .*{message}"):
        load_perceptual(Perceptual(network=file), 16)


@pytest.mark.parametrize("content", [b"", b"weights, or so", None])
def test_files_that_are_no_torchscript(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(2)}, buffer)
        content = buffer.getvalue()
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt: damaged, or not a TorchScript file"):
        load_perceptual(Perceptual(network=str(tmp_path / "x.pt")), 16)


def test_missing_file_and_missing_package(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt: there is no such file"):
        load_perceptual(Perceptual(network=str(tmp_path / "none.pt")), 16)
    assert load_perceptual(Perceptual(), 16) is None
    if importlib.util.find_spec("lpips") is None:
        with pytest.raises(ConfigError, match="pip install lpips"):
            load_perceptual(Perceptual(network="lpips"), 16)


def test_the_trainer_adds_it_every_few_steps(tmp_path: Path) -> None:
    perceptual = {"network": _save(Maps(), tmp_path), "weight": 0.5, "every": 2}
    objective = {"beta": 0.0, "perceptual": perceptual}
    settings = Optimisation.model_validate({**SETTINGS.model_dump(), "objective": objective})
    trainer = Trainer(build_vae(TINY, 16, 1), settings, 0, "cpu")
    terms = [trainer.train_step(blobs(4)) for _ in range(3)]
    assert ["perceptual" in t for t in terms] == [True, False, True]
    for t in terms[::2]:
        assert t["loss"] == pytest.approx(t["reconstruction"] + 0.5 * 2 * t["perceptual"], rel=1e-5)
    assert "network" not in str(list(trainer.model.state_dict()))


def test_a_real_network_on_real_faces(shared: Path) -> None:
    """MobileNet's features: a blurred face is further than the face itself, another face further still."""
    distance = load_perceptual(Perceptual(network=str(shared / "models/mobilenet_v1_embed.pt")), 32)
    assert distance is not None
    rows = pq.read_table(shared / "data/celeba-10k/part-00000.parquet", columns=["image"])["image"].slice(0, 4)
    faces = np.stack([np.asarray(Image.open(io.BytesIO(r["bytes"].as_py())).resize((32, 32))) for r in rows])
    x = to_float(torch.tensor(faces)).requires_grad_()
    blurred = nn.functional.avg_pool2d(x.detach(), 3, 1, 1)
    near, blur, other = distance(x, x), distance(x, blurred), distance(x, x.flip(0))
    assert near.abs().max() < 1e-6
    assert (blur > 1e-3).all()
    assert other.mean() > blur.mean()
    network = torch.jit.load(str(shared / "models/mobilenet_v1_embed.pt")).eval()
    with torch.no_grad():
        f = [network((t.detach() + 1) * 127.5).double() for t in (x, x.flip(0))]
    expected = 2 - 2 * nn.functional.cosine_similarity(*f)  # ‖a − b‖² of unit vectors
    np.testing.assert_allclose(other.detach(), expected, rtol=1e-3)
    (gradient,) = torch.autograd.grad(blur.sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().amax((1, 2, 3)).min() > 0
