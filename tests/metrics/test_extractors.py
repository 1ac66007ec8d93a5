from __future__ import annotations

import hashlib
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.utils import ResizeDataset
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import Weights, extractors, open_extractor
from ldsaug_ray.metrics.extractors import FeatureNetwork, checked_images, extractor_stamp
from ldsaug_ray.models.torchscript import load_torchscript


class Layers(nn.Module):
    """Stands where Inception's layers do: 2,048 numbers of an image of 299 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2048, 23, stride=23)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(dim=(2, 3))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return self.layers(x)


class Moments(nn.Module):
    """Mean and spread of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


class Faulty(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        if self.fault == "nan":
            return torch.log(means.mean(dim=1, keepdim=True) - 100)  # of dark images
        if self.fault == "shape":
            return x
        if self.fault == "pooled":
            return means.mean(dim=0, keepdim=True)
        if self.fault == "grows":
            return x.mean(dim=(1, 2))
        return x.reshape(x.size(0), 3, 16, 16).mean(dim=(2, 3))


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's own deprecation
        torch.jit.save(torch.jit.script(module), str(path))
    return path


def pictures(n: int = 5, height: int = 40, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


@pytest.fixture
def inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A network in Inception's place, small, with weights of its own and their hash; the cache is empty."""
    torch.manual_seed(0)
    path = script(Inception(), tmp_path / "inception-2015-12-05.pt")
    weights = Weights(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.as_uri())
    monkeypatch.setattr(extractors.inception, "INCEPTION", weights)
    monkeypatch.setenv("LDSAUG_CACHE", str(tmp_path / "cache"))
    return weights


def test_inception_as_clean_fid_feeds_it(inception: Weights, tmp_path: Path) -> None:
    """Features of the same files through clean-fid's own dataset, resize and wrapper."""
    images = pictures()
    files = []
    for at, image in enumerate(images):
        files.append(str(tmp_path / f"{at}.png"))
        Image.fromarray(image).save(files[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = InceptionV3W(str(tmp_path), download=False)
        dataset = ResizeDataset(files, mode="clean")
        with torch.no_grad():
            want = network(torch.stack([dataset[i] for i in range(5)])).numpy()
    extractor = open_extractor("inception", batch_size=2)
    assert (extractor.name, extractor.dimension) == ("inception", 2048)
    np.testing.assert_allclose(extractor(images), want, rtol=1e-5, atol=1e-6)
    assert extractor(images).dtype == np.float32
    named = open_extractor(f"inception:{tmp_path / inception.name}")
    assert named.fingerprint == extractor.fingerprint


def test_weights_are_fetched_once_and_verified(inception: Weights, tmp_path: Path) -> None:
    assert inception.problem() == f"not at {inception.path}"
    found = []
    threads = [threading.Thread(target=lambda: found.append(inception.ready())) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [tmp_path / "cache" / inception.name] * 4
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [inception.name]  # no partial files
    gone = Weights(inception.name, inception.sha256, (tmp_path / "gone").as_uri())
    assert gone.ready() == inception.path  # nothing is fetched again


def test_weights_that_cannot_be_had(inception: Weights, tmp_path: Path) -> None:
    gone = Weights(inception.name, inception.sha256, (tmp_path / "gone").as_uri())
    with pytest.raises(InputError, match=r"could not be downloaded \(.*put file.*gone at .*cache.inception") as e:
        gone.ready()
    assert str(gone.path) in str(e.value)
    other = Weights(inception.name, "0" * 64, inception.url)
    with pytest.raises(InputError, match="gave is damaged or another file"):
        other.ready()
    assert list((tmp_path / "cache").iterdir()) == []
    inception.path.write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"is damaged or another file \(SHA-256 .*delete it and run again"):
        open_extractor("inception")
    with pytest.raises(InputError, match=r"not at .*nowhere\.pt; the file is inception-2015-12-05\.pt of file"):
        open_extractor(f"inception:{tmp_path / 'nowhere.pt'}")


def test_torchscript_file(tmp_path: Path) -> None:
    path = script(Moments(), tmp_path / "moments.pt")
    extractor = open_extractor(str(path), batch_size=2)
    images = pictures()
    want = np.concatenate([images.mean((1, 2)), images.reshape(5, -1, 3).std(1, ddof=1)], axis=1)
    np.testing.assert_allclose(extractor(images), want, rtol=1e-5)
    assert extractor.dimension == 6
    assert extractor(images[:0]).shape == (0, 6)
    resized = open_extractor(str(path), resize=20)
    assert resized.fingerprint != extractor.fingerprint
    assert open_extractor(str(path), batch_size=1).fingerprint == extractor.fingerprint
    small = [
        np.stack(
            [
                np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((20, 20), Image.BICUBIC))
                for c in range(3)
            ],
            2,
        )
        for image in images
    ]
    want = np.stack([s.clip(0, 255).mean((0, 1)) for s in small])
    np.testing.assert_allclose(resized(images)[:, :3], want, rtol=1e-5)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"gives \[1, 3, 64, 64\] for 1 images; needed is \[1, C\]"),
        ("nan", r"features of 1 of 1 images are NaN or infinite"),
        ("size", r"cannot take images of 64 x 64 px: .*invalid.*needs `resize`"),
    ],
)
def test_networks_that_do_not_do_their_job(fault: str, message: str, tmp_path: Path) -> None:
    path = script(Faulty(fault), tmp_path / "faulty.pt")
    with pytest.raises(InputError, match=r"faulty\.pt: " + message):
        open_extractor(str(path))
    if fault == "size":
        assert open_extractor(str(path), resize=16)(pictures()).shape == (5, 3)


def test_faults_that_show_later(tmp_path: Path) -> None:
    grows = open_extractor(str(script(Faulty("grows"), tmp_path / "grows.pt")))
    with pytest.raises(InputError, match="32 dimensions, after 64 for other images"):
        grows(pictures())
    pooled = open_extractor(str(script(Faulty("pooled"), tmp_path / "pooled.pt")))
    with pytest.raises(InputError, match=r"gives \[1, 3\] for 5 images"):
        pooled(pictures())

    class Dark(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            means = x.mean(dim=(2, 3))
            return means / (means < 200).float()

    dark = open_extractor(str(script(Dark(), tmp_path / "dark.pt")), batch_size=2)
    images = pictures()
    images[3] = 255
    with pytest.raises(InputError, match=r"features of 1 of 2 images are NaN or infinite \(first: image 3\)"):
        dark(images)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    path = script(Moments(), tmp_path / "net.pt")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"net\.pt: damaged, or not a TorchScript file"):
        open_extractor(str(path))
    torch.save({"weights": torch.zeros(2)}, tmp_path / "pickle.pt")
    with pytest.raises(InputError, match=r"pickle\.pt: damaged, or not a TorchScript file"):
        open_extractor(str(tmp_path / "pickle.pt"))
    with pytest.raises(InputError, match=r"absent\.pt: cannot be read \(No such file"):
        open_extractor(str(tmp_path / "absent.pt"))
    with pytest.raises(ConfigError, match=r"unknown extractor 'resnet'; possible: inception, .*clip"):
        open_extractor("resnet")
    with pytest.raises(ConfigError, match="its size is fixed"):
        open_extractor("inception", resize=32)
    with pytest.raises(ConfigError, match="at least 1; found 0"):
        open_extractor(str(path), batch_size=0)


def test_images() -> None:
    with pytest.raises(InputError, match=r"images of different sizes \(32 x 32 x 3, 40 x 32 x 3\)"):
        checked_images([*pictures(1, 32), *pictures(1)])
    assert checked_images(list(pictures())).shape == (5, 40, 32, 3)
    assert checked_images([]).shape[0] == 0
    for wrong, found in (
        (pictures() / 255, "float64"),
        (pictures()[..., :1], r"\[5, 40, 32, 1\]"),
        (pictures()[0], r"\[40, 32, 3\]"),
    ):
        with pytest.raises(InputError, match=found):
            checked_images(wrong)


def test_only_the_loaders_deprecation_is_silenced(tmp_path: Path) -> None:
    """Warnings are errors here: loading passes, and the filter is gone afterwards."""
    data = script(Moments(), tmp_path / "net.pt").read_bytes()
    load_torchscript(data, "net.pt")
    with pytest.raises(FutureWarning, match="deprecated"):
        torch.jit.load(str(tmp_path / "net.pt"))


def test_transformers_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="dinov2 needs the package transformers: pip install"):
        open_extractor("dinov2")


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_transformers(kind: str, tmp_path: Path) -> None:
    """Small networks of these kinds, saved and opened again, against their own forward on pixels made by hand."""
    transformers = pytest.importorskip("transformers", reason="the extra `features` is not installed")
    torch.manual_seed(1)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 224, "patch_size": 32}
    if kind == "clip":
        config = transformers.CLIPVisionConfig(**size, intermediate_size=32, projection_dim=12)
        network = transformers.CLIPVisionModelWithProjection(config)
    else:
        network = transformers.Dinov2Model(transformers.Dinov2Config(**size))
    network.eval().save_pretrained(tmp_path / "net")
    extractor = open_extractor(f"{kind}:{tmp_path / 'net'}", batch_size=2)
    images = pictures()
    known = extractors.EXTRACTORS.get(kind)
    mean, deviation = np.array(known.mean), np.array(known.deviation)
    pixels = (extractors.resized(images, 224) / 255 - mean) / deviation
    with torch.no_grad():
        out = network(pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32))
    want = out.image_embeds if kind == "clip" else out.pooler_output
    np.testing.assert_allclose(extractor(images), want.numpy(), atol=2e-5)
    assert extractor.dimension == (12 if kind == "clip" else 16)
    with pytest.raises(InputError, match="is not a folder"):
        open_extractor(f"{kind}:{tmp_path / 'nowhere'}")
    file = tmp_path / "net" / "model.safetensors"
    tensors = load_file(file)
    save_file(dict(list(tensors.items())[1:]), file, {"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 tensors of"):
        open_extractor(f"{kind}:{tmp_path / 'net'}")
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_extractor(f"{kind}:{tmp_path / 'net'}")


def test_real_network(shared: Path) -> None:
    path = shared / "models" / "mobilenet_v1_embed.pt"
    extractor = open_extractor(str(path), batch_size=3)
    images = pictures(4, 64, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        want = torch.jit.load(str(path))(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert extractor.dimension == 1024
    np.testing.assert_allclose(extractor(images), want, rtol=1e-4, atol=1e-4)


class Quarters(FeatureNetwork):
    """Mean colours of the four quarters of an image."""

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


class Broken(Quarters):
    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        raise KeyError("weights")


def test_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, path = pictures(), f"{__name__}:Quarters"
    found = open_extractor(path, batch_size=2)
    expected = images.reshape(5, 2, 20, 2, 16, 3).astype(np.float64).mean((2, 4)).transpose(0, 3, 1, 2).reshape(5, 12)
    np.testing.assert_allclose(found(images), expected, rtol=1e-5)
    assert (found.name, found.dimension) == (path, 12)
    small = open_extractor(path, resize=8)
    assert small.fingerprint != found.fingerprint
    np.testing.assert_allclose(
        small(images).reshape(5, 3, 2, 2).mean((2, 3)), expected.reshape(5, 3, 4).mean(2), atol=2
    )

    code = Path(__file__).read_text()
    monkeypatch.syspath_prepend(tmp_path)
    stamps = set()
    for n in range(2):  # another code is another extractor
        (tmp_path / f"of_quarters{n}.py").write_text(code + "#" * n)
        stamps.add(extractor_stamp(f"of_quarters{n}:Quarters"))
    assert len(stamps) == 2
    for spec, why in {
        f"{__name__}:Broken": r"failed \(KeyError",
        f"{__name__}:None_": "has no 'None_'",
        "nowhere:Quarters": "there is no module 'nowhere'",
        f"{__name__}:Moments": "is no FeatureNetwork",
    }.items():
        with pytest.raises((ConfigError, InputError), match=rf"extractor '?{spec}.*{why}"):
            open_extractor(spec)


def test_pixels_are_means_of_64_parts():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)
    extractor = open_extractor("pixels")
    found = extractor(images)
    assert (extractor.dimension, found.dtype) == (192, np.float32)
    parts = images.reshape(3, 8, 4, 8, 2, 3).mean(axis=(2, 4)) / 255  # NHWC, 8 x 8 parts of 4 x 2 px
    np.testing.assert_allclose(found, parts.transpose(0, 3, 1, 2).reshape(3, -1), rtol=1e-5)
