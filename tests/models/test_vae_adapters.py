"""Other people's autoencoders: numbers as their own code gives, trainable, clear about what does not fit."""

from __future__ import annotations

import contextlib
import json
import pickle
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_helpers import Down, Picture, Up, Vector, directory, export, files, script, tiny_kl, tiny_tiny
from torch import Tensor, nn
from vae_helpers import blobs

from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError, ResourceError, is_out_of_memory
from ldsaug_ray.models import (
    Autoencoder,
    decode_images,
    open_pretrained,
    posterior_means,
    pretrained_stamp,
    to_float,
    weights_digest,
)

SIDE = 16


@pytest.fixture
def pictures() -> Tensor:
    return to_float(torch.from_numpy(blobs(5)))


def kl(folder: Path, **changes: Any) -> tuple[Vae, Any]:
    network = tiny_kl(**changes)
    network.save_pretrained(folder)
    return directory(folder), network


def scripted(folder: Path) -> Vae:
    return files(script(Down(), folder / "e.pt"), script(Up(), folder / "d.pt"))


def exported(folder: Path) -> Vae:
    encoder = export(Down(), folder / "e.pt2", torch.zeros(2, 3, SIDE, SIDE))
    return files(encoder, export(Up(), folder / "d.pt2", torch.zeros(2, 4, 4, 4)))


def directory_of_kl(folder: Path) -> Vae:
    return kl(folder)[0]


def directory_of_tiny(folder: Path) -> Vae:
    tiny_tiny().save_pretrained(folder)
    return directory(folder)


FORMATS: dict[str, Callable[[Path], Vae]] = {
    "TorchScript": scripted,
    "torch.export": exported,
    "AutoencoderKL": directory_of_kl,
    "AutoencoderTiny": directory_of_tiny,
}
every_format = pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shift_factor": 0.3},
        {"scaling_factor": -2.0, "shift_factor": -1.0},
        {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [2.0, 0.5, 1.0, 3.0]},
        {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16},
    ],
)
def test_autoencoder_kl_as_diffusers_has_it(tmp_path: Path, pictures: Tensor, changes: dict[str, Any]) -> None:
    """Latents as the pipelines scale them, (z - shift) * scale, and a posterior that is scaled with them."""
    settings, network = kl(tmp_path, **changes)
    model = open_pretrained(settings, SIDE)
    channels = changes.get("latent_channels", 4)
    assert (model.latent_shape, model.latent_dim) == ((channels, 8, 8), channels * 64)
    mean = torch.tensor(changes.get("latents_mean", [changes.get("shift_factor", 0.0)] * channels)).view(1, -1, 1, 1)
    std = torch.tensor(changes.get("latents_std", [1.0] * channels)).view(1, -1, 1, 1)
    factor = network.config.scaling_factor
    with torch.no_grad():
        posterior = network.encode(pictures).latent_dist
        scaled = (posterior.mean - mean) * factor / std
        mu, logvar = model.encode(pictures)
        torch.testing.assert_close(mu, scaled.flatten(1), atol=1e-6, rtol=1e-6)
        assert logvar is not None
        want = (posterior.std * abs(factor) / std).flatten(1)  # a standard deviation scales as the latent does
        torch.testing.assert_close(torch.exp(0.5 * logvar), want, atol=1e-6, rtol=1e-5)
        want = network.decode(mu.view_as(scaled) / (factor / std) + mean).sample
        torch.testing.assert_close(model.decode(mu), want, atol=1e-6, rtol=1e-5)


def test_autoencoder_tiny_as_diffusers_has_it(tmp_path: Path, pictures: Tensor) -> None:
    network = tiny_tiny(scaling_factor=0.5, shift_factor=0.25)
    network.save_pretrained(tmp_path)
    model = open_pretrained(directory(tmp_path), SIDE)
    with torch.no_grad():
        z = network.encode(pictures).latents
        mu, logvar = model.encode(pictures)
        assert logvar is None
        torch.testing.assert_close(mu, ((z - 0.25) * 0.5).flatten(1), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(model.decode(mu), network.decode(z).sample, atol=1e-6, rtol=1e-5)


def test_weights_in_half_precision(tmp_path: Path, pictures: Tensor) -> None:
    network = tiny_kl().half()
    network.save_pretrained(tmp_path / "half")
    model = open_pretrained(directory(tmp_path / "half"), SIDE)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        want = network.float().encode(pictures).latent_dist.mean * 0.4
        torch.testing.assert_close(model.encode(pictures)[0], want.flatten(1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("pixel_range", "scale", "least"), [("unit", 1, 0), ("symmetric", 2, -1), ("bytes", 255, 0)])
@pytest.mark.parametrize("make", [scripted, exported], ids=["TorchScript", "torch.export"])
def test_files_get_and_give_pixels_in_their_range(
    tmp_path: Path, make: Callable[[Path], Vae], pixel_range: str, scale: float, least: float
) -> None:
    """Against the networks themselves, called in the range; and back to images."""
    torch.manual_seed(0)
    settings = make(tmp_path).model_copy(update={"pixel_range": pixel_range})
    torch.manual_seed(0)
    encoder, decoder = Down().eval(), Up().eval()
    images = blobs(5)
    model = open_pretrained(settings, SIDE)
    assert (model.latent_shape, model.latent_dim) == ((4, 4, 4), 64)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 * scale + least
        z = encoder(x)
        np.testing.assert_allclose(posterior_means(model, images, 2), z.flatten(1), rtol=1e-5, atol=1e-5 * scale)
        want = ((decoder(z) - least) / scale * 255).round().clamp(0, 255).permute(0, 2, 3, 1)
    got = decode_images(model, posterior_means(model, images, 3), 4)
    assert np.abs(got - want.numpy()).max() <= 1  # at a half of a pixel value rounding decides


def test_vectors_with_log_variance(tmp_path: Path, pictures: Tensor) -> None:
    network = Vector(SIDE)
    settings = files(script(network, tmp_path / "e.pt"), script(Picture(SIDE), tmp_path / "d.pt"), "symmetric")
    model = open_pretrained(settings, SIDE)
    assert model.latent_dim == 5
    for got, want in zip(model.encode(pictures), network(pictures.contiguous()), strict=True):
        torch.testing.assert_close(got, want)
    output = model(pictures, torch.Generator().manual_seed(0))
    assert output.logvar is not None
    eps = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(output.reconstruction, model.decode(output.mu + eps * (output.logvar / 2).exp()))


@every_format
def test_gradients_reach_every_weight_and_training_changes_them(
    tmp_path: Path, make: Callable[[Path], Vae], pictures: Tensor
) -> None:
    model = open_pretrained(make(tmp_path), SIDE)
    assert isinstance(model, Autoencoder)
    before = weights_digest(model)
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    output = model(pictures)
    loss = (output.reconstruction - pictures).square().mean() + output.mu.square().mean()
    loss.backward()
    for part in (model.encoder, model.decoder):
        gradients = [p.grad for p in part.parameters()]
        assert gradients
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients if g is not None)
    optimiser.step()
    model.eval()
    assert weights_digest(model) != before
    with torch.no_grad():
        after = model.decode(model.encode(pictures)[0])
    assert torch.isfinite(after).all()


@every_format
def test_latents_can_be_optimised_through_a_frozen_decoder(
    tmp_path: Path, make: Callable[[Path], Vae], pictures: Tensor
) -> None:
    model = open_pretrained(make(tmp_path), SIDE)
    model.decoder.requires_grad_(False)
    z = model.encode(pictures)[0].detach().requires_grad_()
    model.decode(z).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    assert all(p.grad is None for p in model.parameters())


def test_two_modes_where_the_format_has_them(tmp_path: Path, pictures: Tensor) -> None:
    """TorchScript normalises by the batch in training; an exported program has the one mode it was exported in."""
    for settings, differ in ((scripted(tmp_path), True), (exported(tmp_path), False)):
        model = open_pretrained(settings, SIDE)
        assert not model.training
        still = model.encode(pictures)[0]
        moved = model.train().encode(pictures)[0]
        assert (not torch.allclose(still, moved)) == differ


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_frozen_network_has_no_weights_to_train_but_works(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.load(script(Down(), tmp_path / "e.pt")))
    torch.jit.save(frozen, tmp_path / "frozen.pt")
    model = open_pretrained(files(tmp_path / "frozen.pt", script(Up(), tmp_path / "d.pt")), SIDE)
    assert not list(model.encoder.parameters())
    assert posterior_means(model, blobs(2), 2).shape == (2, 64)


class Wrong(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        z = torch.nn.functional.avg_pool2d(x, 4)
        if self.what == "dtype":
            return z.half()
        if self.what == "whole numbers":
            return z.int()
        if self.what == "one for all":
            return z.mean(0, keepdim=True)
        if self.what == "infinite":
            return z / 0
        if self.what == "number":
            return z.sum()
        return z


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("dtype", r"e\.pt: the encoder, given 2 images of 16 px, gives float16; expected float32"),
        ("whole numbers", r"e\.pt: .* gives int32; expected float32"),
        ("one for all", r"e\.pt: .* gives \[1, 3, 4, 4\]; expected \[2, d\] or \[2, C, h, w\]"),
        ("infinite", r"e\.pt: .* gives values that are not finite"),
        ("number", r"e\.pt: .* gives \[\]; expected \[2, d\]"),
    ],
)
def test_encoders_that_are_none(tmp_path: Path, what: str, message: str) -> None:
    settings = files(script(Wrong(what), tmp_path / "e.pt"), script(Up(), tmp_path / "d.pt"))
    with pytest.raises(InputError, match=message):
        open_pretrained(settings, SIDE)


def test_decoders_and_resolutions_that_do_not_fit(tmp_path: Path) -> None:
    encoder = script(Down(), tmp_path / "e.pt")
    cases = [
        (encoder, script(Up(2), tmp_path / "half.pt"), r"half\.pt: the decoder, given latents \[2, 4, 4, 4\], gives "),
        (encoder, script(Up(4, 1), tmp_path / "grey.pt"), r"gives \[2, 1, 16, 16\]; expected \[2, 3, 16, 16\]$"),
        (encoder, script(Picture(SIDE), tmp_path / "p.pt"), r"p\.pt: the decoder fails on float32\[2, 4, 4, 4\]"),
        (
            script(Down(5), tmp_path / "five.pt"),
            script(Up(5), tmp_path / "up.pt"),
            r"gives \[2, 3, 15, 15\]; expected \[2, 3, 16, 16\]; the encoder's stride does not divide 16 px",
        ),
        (script(Down(32), tmp_path / "big.pt"), script(Up(32), tmp_path / "u.pt"), r"big\.pt: the encoder fails on"),
    ]
    for e, d, message in cases:
        with pytest.raises(InputError, match=message):
            open_pretrained(files(e, d), SIDE)


def test_programs_for_another_resolution_or_number_of_images(tmp_path: Path) -> None:
    settings = exported(tmp_path)
    with pytest.raises(InputError, match=r"e\.pt2: the encoder fails on float32\[2, 3, 32, 32\] \(.*16"):
        open_pretrained(settings, 32)
    fixed = export(Down(), tmp_path / "one.pt2", torch.zeros(1, 3, SIDE, SIDE), any_number=False)
    with pytest.raises(InputError, match=r"one\.pt2: .* it must take any number of images"):
        open_pretrained(settings.model_copy(update={"encoder": str(fixed)}), SIDE)


@pytest.mark.parametrize("name", ["e.pt", "e.pt2"])
def test_files_that_are_no_programs(tmp_path: Path, name: str) -> None:
    decoder = script(Up(), tmp_path / "d.pt")
    cases: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b"not a program"),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save(Down().state_dict(), path),
        lambda path: torch.save(Down(), path),
        lambda path: path.write_bytes(decoder.read_bytes()[:900]),
    ]
    for case in cases:
        case(tmp_path / name)
        with pytest.raises(InputError, match=r"e\.pt2?: .*not a (TorchScript|file of torch\.export)"):
            open_pretrained(files(tmp_path / name, decoder), SIDE)
    with pytest.raises(InputError, match=r"vae\.encoder: there is no file .*nothing\.pt"):
        open_pretrained(files(tmp_path / "nothing.pt", decoder), SIDE)


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_in_an_exported_program_is_unpickled(tmp_path: Path) -> None:
    """Wherever torch.export.load would unpickle: sample inputs, weights, constants, older formats."""
    settings, trap = exported(tmp_path), tmp_path / "sprung"
    good, bad = Path(str(settings.encoder)), tmp_path / "bad.pt2"
    as_torch = tmp_path / "pickled"
    torch.save((Trap(trap),), as_torch)

    def rewritten(change: Callable[[str, bytes], bytes], *more: tuple[str, bytes]) -> None:
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))
            root = old.namelist()[0].split("/")[0]
            for name, content in more:
                new.writestr(name.replace("ROOT", root), content)

    def sample(name: str, content: bytes) -> bytes:
        return as_torch.read_bytes() if name.endswith("sample_inputs/model.pt") else content

    def marked(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return as_torch.read_bytes() if name.endswith("weight_0") else content
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()

    def opaque(name: str, content: bytes) -> bytes:
        if not name.endswith("constants_config.json"):
            return content
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
        return json.dumps({"config": {"x": entry}}).encode()

    def same(name: str, content: bytes) -> bytes:
        return content

    attacks: list[tuple[Any, ...]] = [
        (sample,),
        (marked,),
        (opaque, ("ROOT/data/constants/opaque_obj_0", pickle.dumps(Trap(trap)))),
        (same, ("ROOT/data/weights/model.pt", as_torch.read_bytes())),
        (same, ("ROOT/data/aotinductor/model/code.so", b"compiled")),
    ]
    for attack in attacks:
        rewritten(*attack)
        with pytest.raises(InputError, match=r"bad\.pt2.*(could run code|run or unpickle)"):
            open_pretrained(settings.model_copy(update={"encoder": str(bad)}), SIDE)
        assert not trap.exists()
    rewritten(same)
    assert open_pretrained(settings.model_copy(update={"encoder": str(bad)}), SIDE).latent_dim == 64
    rewritten(marked)
    with contextlib.suppress(Exception):
        torch.export.load(bad)
    assert trap.exists(), "the trap is none: this test shows nothing"


def test_directories_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = kl(tmp_path / "kl")
    good = tmp_path / "kl"
    bad = tmp_path / "bad"
    weights = "diffusion_pytorch_model.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            open_pretrained(directory(bad), SIDE)
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)

    refused(r"vae\.path: there is no directory .*bad")
    (bad / "config.json").unlink()
    refused(r"has no config\.json.*found diffusion_pytorch_model\.safetensors")
    (bad / "config.json").write_text("{")
    refused(r"config\.json: not valid JSON")
    (bad / "config.json").write_text('{"_class_name": "AsymmetricAutoencoderKL"}')
    refused("class AsymmetricAutoencoderKL is not known here; possible: AutoencoderKL, AutoencoderTiny")
    (bad / weights).unlink()
    refused(r"found no weights")
    (bad / weights).write_bytes((good / weights).read_bytes()[:-9])
    refused(rf"{weights}: truncated or damaged, or not a safetensors file")
    for name in ("config.json", weights):
        (bad / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        refused(rf"{name}: a Git LFS pointer and not the data: run `git lfs pull`")
    (bad / "config.json").write_text('{"latent_channels": 4}')
    refused(r"config\.json: not a configuration of diffusers, which has a field _class_name")
    shutil.rmtree(bad)
    shutil.copytree(good, bad / "vae")
    refused(r"a whole pipeline; give its autoencoder alone, as a rule .*bad/vae")
    for name in ("config.json", weights):
        with pytest.raises(InputError, match=rf"vae\.path: .*{name} is a file; give the folder"):
            open_pretrained(directory(good / name), SIDE)
    (bad / "model_index.json").write_text("{}")
    refused(r"a whole pipeline; give its autoencoder alone, as a rule .*bad/vae")
    config = json.loads((good / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    refused(r"does not fit config\.json: missing keys ")
    for fields, message in (
        ({"scaling_factor": 0}, r"bad/config\.json: scaling_factor .* scale latents by 0"),
        ({"scaling_factor": "abc"}, r'bad/config\.json: scaling_factor is "abc"; expected a number'),
        ({"scaling_factor": True}, r"bad/config\.json: scaling_factor is true; expected a number"),
        ({"shift_factor": [0.1]}, r"bad/config\.json: shift_factor is \[0\.1\]; expected a number"),
        ({"latents_mean": "x", "latents_std": [1, 1, 1, 1]}, r'bad/config\.json: latents_mean is "x"; .* 4 numbers'),
        ({"latents_mean": [0] * 4, "latents_std": [1] * 3}, r"bad/config\.json: latents_std is .* list of 4 numbers"),
        ({"latents_mean": "x"}, r'bad/config\.json: latents_mean is "x"; .* 4 numbers'),
        (
            {"block_out_channels": "x"},
            r'describes no AutoencoderKL \(block_out_channels is "x", expected such as \[64\]',
        ),
        ({"block_out_channels": [8, "y"]}, r'\(block_out_channels is \[8, "y"\], expected such as \[64\]\)'),
        ({"norm_num_groups": 3}, r"bad/config\.json: describes no AutoencoderKL \(.*divisible"),
        (
            {"in_channels": 4},
            rf"bad/{weights}: .*does not fit config\.json: size mismatch for encoder\.conv_in\.weight",
        ),
    ):
        (bad / "config.json").write_text(json.dumps({**config, **fields}))
        refused(message)
    monkeypatch.setattr("ldsaug_ray.models.adapters.diffusers.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"pip install 'ldsaug_ray\[diffusers\]'"):
        open_pretrained(settings, SIDE)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({"variant": "fp16"}, r"diffusion_pytorch_model\.fp16\.safetensors\. The variant fp16 is not read"),
        ({"max_shard_size": "20kB"}, r"00001-of-.*\. Weights in several files are not read"),
        ({"safe_serialization": False}, r"diffusion_pytorch_model\.bin\. A \.bin file is unpickled"),
        ({"safe_serialization": False, "variant": "fp16"}, r"diffusion_pytorch_model\.fp16\.bin\. A \.bin file"),
    ],
    ids=["variant", "shards", "bin", "variant in bin"],
)
def test_weights_that_were_saved_otherwise(tmp_path: Path, pictures: Tensor, how: dict[str, Any], found: str) -> None:
    """The plan and the run say the same, and the command that they print writes what is read."""
    folder, network = tmp_path / "it's  $HOME", tiny_kl()
    network.save_pretrained(folder, **how)
    for look in (pretrained_stamp, lambda settings: open_pretrained(settings, SIDE)):
        with pytest.raises(InputError, match=rf"vae\.path: .*has no diffusion_.*\.safetensors; found .*{found}") as e:
            look(directory(folder))
    python, dash_c, code = shlex.split(str(e.value).partition("that is: ")[2])
    assert (python, dash_c) == ("python", "-c")
    exec(compile(code, "printed", "exec"), {})
    with torch.no_grad():
        want = network.encode(pictures).latent_dist.mean * 0.4
        got = open_pretrained(directory(folder), SIDE).encode(pictures)[0]
    torch.testing.assert_close(got, want.flatten(1), atol=1e-6, rtol=1e-6)


class Listed(nn.Module):
    """The mean, or mean and log variance, in a list."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.nn.functional.avg_pool2d(x, 4)] * self.n


class Unpooled(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(z, scale_factor=4.0)


@pytest.mark.parametrize("n", [1, 2])
def test_encoders_that_give_a_list(tmp_path: Path, n: int) -> None:
    settings = files(script(Listed(n), tmp_path / "e.pt"), script(Unpooled(), tmp_path / "d.pt"))
    model, images = open_pretrained(settings, SIDE), blobs(3)
    want = images.reshape(3, 4, 4, 4, 4, 3).astype(np.float32).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(posterior_means(model, images, 2), want.reshape(3, 48), atol=1e-6)
    logvar = model.encode(torch.from_numpy(images))[1]
    assert (logvar is None) == (n == 1)


class Noisy(nn.Module):
    """Noise that is nothing where the picture is: an empty one would not show it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * (1 + 0.01 * torch.randn_like(x)))


class Dropped(nn.Module):
    """Dropout that no mode switches off, as of a network that was traced in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(torch.nn.functional.avg_pool2d(x, 4), 0.5, training=True)


def test_networks_that_draw_random_numbers(tmp_path: Path) -> None:
    encoder, decoder = script(Down(), tmp_path / "e.pt"), script(Up(), tmp_path / "d.pt")
    for e, d, message in (
        (
            script(Noisy(Down()), tmp_path / "noisy.pt"),
            decoder,
            r"noisy\.pt: the encoder gives something else each time",
        ),
        (
            script(Dropped(), tmp_path / "drop.pt"),
            script(Unpooled(), tmp_path / "u.pt"),
            r"drop\.pt: the encoder gives",
        ),
        (encoder, script(Noisy(Up()), tmp_path / "du.pt"), r"du\.pt: the decoder .*draws random numbers"),
    ):
        with pytest.raises(InputError, match=message):
            open_pretrained(files(e, d), SIDE)


class Batched(nn.Module):
    """Encoders that are not functions of one image."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> list[Tensor]:
        z = torch.nn.functional.avg_pool2d(x, 4)
        if self.what == "random variance":
            return [z, torch.randn_like(z)]
        if self.what == "centred":
            return [z - z.mean(0, keepdim=True)]
        if self.what == "normalised":
            return [torch.nn.functional.batch_norm(z, None, None, training=True)]
        if self.what == "constant":
            return [z * 0 + 0.5]
        if x.shape[0] > 2:
            raise ValueError("two at most")
        return [z]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("random variance", "the encoder gives something else each time"),
        ("centred", "the encoder gives something else where other images are in the batch"),
        ("normalised", "the encoder gives something else where other images are in the batch"),
        ("constant", "the encoder gives the same latent for different images"),
        ("small batches", r"the encoder fails on float32\[64, 3, 16, 16\] \(.*two at most"),
    ],
)
def test_encoders_that_are_no_functions_of_an_image(tmp_path: Path, what: str, message: str) -> None:
    settings = files(script(Batched(what), tmp_path / "e.pt"), script(Unpooled(), tmp_path / "d.pt"))
    with pytest.raises(InputError, match=rf"e\.pt: {message}"):
        open_pretrained(settings, SIDE)


def test_a_batch_that_is_larger_than_the_tried_one(tmp_path: Path) -> None:
    """What a program refuses later is told as what it refuses when it is tried."""

    class Bounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] > 64:
                raise ValueError("64 at most")
            return torch.nn.functional.avg_pool2d(x, 4)

    model = open_pretrained(files(script(Bounded(), tmp_path / "e.pt"), script(Unpooled(), tmp_path / "d.pt")), SIDE)
    with pytest.raises(InputError, match=r"e\.pt: the encoder fails on float32\[65, 3, 16, 16\] \(.*64 at most"):
        posterior_means(model, blobs(65), 65)


def test_a_lack_of_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_pretrained(scripted(tmp_path), SIDE)

    def exhausted(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.encoder, "forward", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        posterior_means(model, blobs(2), 2)

    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_empty([1 << 50])

    with pytest.raises(RuntimeError, match="can't allocate memory") as e:
        open_pretrained(files(script(Huge(), tmp_path / "huge.pt"), tmp_path / "d.pt"), SIDE)
    assert is_out_of_memory(e.value)


def test_sound_convolutions_at_64_px(tmp_path: Path) -> None:
    """Their latents come channels last, and another layout of the same numbers gives other last digits."""
    tiny_kl(block_out_channels=(8, 8), layers_per_block=1).save_pretrained(tmp_path)
    assert open_pretrained(directory(tmp_path), 64).latent_shape == (4, 32, 32)


@every_format
def test_a_stamp_sees_that_files_change(tmp_path: Path, make: Callable[[Path], Vae]) -> None:
    settings = make(tmp_path)
    before = pretrained_stamp(settings)
    file = Path(settings.decoder or tmp_path / "diffusion_pytorch_model.safetensors")
    assert pretrained_stamp(settings) == before
    file.write_bytes(file.read_bytes() + b"0")
    assert pretrained_stamp(settings) != before
    file.unlink()
    with pytest.raises(InputError, match=r"there is no such file|found no weights"):
        pretrained_stamp(settings)
    assert pretrained_stamp(Vae()) == ""
