"""The training step: it learns, resumes bit for bit, and stops before a bad step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from vae_helpers import EVERYTHING, SETTINGS, TINY, blobs, part_of_a

from ldsaug_ray.config import Adversarial, Objective, Optimisation, Uses
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models import (
    VAE,
    DivergedError,
    Trainer,
    build_discriminator,
    build_vae,
    kl_standard_normal,
    posterior_means,
    step_generator,
    to_float,
    weights_digest,
)
from ldsaug_ray.models.training import ema as averages
from ldsaug_ray.models.training import state

ALL_USES = Uses(pixels=0.5, adversarial=0.7, cycle=0.3)


def _trainer(seed: int = 0, settings: Optimisation = SETTINGS, **kwargs: Any) -> Trainer:
    return Trainer(build_vae(TINY, 16, seed=1), settings, seed, "cpu", **kwargs)


def _with(settings: Optimisation, **changes: Any) -> Optimisation:
    return Optimisation.model_validate({**settings.model_dump(), **changes})


def _adversarial(**changes: Any) -> Optimisation:
    return _with(SETTINGS, objective={"beta": 0.05, "adversarial": {"weight": 0.1, **changes}})


def _tensors(trainer: Trainer, folder: Path) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    state.save(trainer, folder)
    return load_file(folder / "trainer.safetensors")


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_overfits_eight_images() -> None:
    trainer, images = _trainer(), blobs(8)
    first = trainer.train_step(images)
    assert first.keys() == {"loss", "reconstruction", "kl", "beta", "gradient_norm"}
    for _ in range(119):
        last = trainer.train_step(images)
    assert (trainer.step, trainer.images) == (120, 960)
    assert last["reconstruction"] < first["reconstruction"] / 4
    assert posterior_means(trainer.model, images, 8).std(0).max() > 0.1


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_every_parameter_moves(mapping_layers: int) -> None:
    vae = build_vae(TINY.model_copy(update={"mapping_layers": mapping_layers}), 16, seed=0)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    d = build_discriminator(TINY, 16, Adversarial(), seed=0)
    d_before = {name: p.detach().clone() for name, p in d.named_parameters()}
    Trainer(vae, _adversarial(), 0, "cpu", discriminator=d).train_step(blobs(4))
    assert [n for n, p in vae.named_parameters() if torch.equal(p, before[n])] == []
    assert [n for n, p in d.named_parameters() if torch.equal(p, d_before[n])] == []


@pytest.mark.parametrize(("step", "beta"), [(0, 0.0), (5, 0.25), (10, 0.5), (99, 0.5)])
def test_loss_is_reconstruction_plus_warmed_up_kl_per_pixel_value(step: int, beta: float) -> None:
    settings = _with(
        SETTINGS,
        horizontal_flip=False,
        objective={"reconstruction": "l2", "reconstruction_weight": 3.0, "beta": 0.5, "kl_warmup_steps": 10},
    )
    trainer, images = _trainer(settings=settings), blobs(4)
    trainer.step = step
    x = to_float(torch.tensor(images))
    with torch.no_grad():
        out = trainer.model(x, step_generator(0, step, 0))
    terms = trainer.train_step(images)
    error, kl = (out.reconstruction - x).square().mean(), kl_standard_normal(out.mu, out.logvar).sum(1).mean()
    assert terms["reconstruction"] == pytest.approx(error.item())
    assert terms["kl"] == pytest.approx(kl.item())
    assert terms["beta"] == beta
    assert terms["loss"] == pytest.approx((3 * error + beta * kl / 768).item())


def test_the_centre_follows_the_latents_unless_it_is_fixed() -> None:
    settings = _with(SETTINGS, learning_rate=1e-9, horizontal_flip=False, ema_half_life=0)
    moving = _trainer(settings=settings)
    start = posterior_means(moving.model, blobs(8), 8).mean(0)
    for _ in range(20):
        moving.train_step(blobs(8))
    np.testing.assert_allclose(
        posterior_means(moving.model, blobs(8), 8).mean(0), start * 0.95**20, rtol=1e-3, atol=1e-5
    )
    for kwargs in ({"fixed_centre": True}, {"uses": Uses()}, {"freeze": "encoder"}, {"freeze": "decoder"}):
        fixed = _trainer(settings=settings, **kwargs)
        fixed.train_step(blobs(8))
        assert fixed.model.centre.abs().max() == 0


def test_resume_equals_an_undisturbed_run_bit_for_bit(tmp_path: Path) -> None:
    """The whole objective, with every regulariser, in the middle of their cycles."""
    batches = [blobs(4, seed=s) for s in range(8)]
    straight = _trainer(settings=EVERYTHING, uses=ALL_USES)
    for k, batch in enumerate(batches):
        last = straight.train_step(batch, part_of_a(k))
    first = _trainer(settings=EVERYTHING, uses=ALL_USES)
    for k, batch in enumerate(batches[:3]):
        first.train_step(batch, part_of_a(k))
    state.save(first, tmp_path)
    torch.rand(5)  # no global random state takes part
    second = Trainer(build_vae(TINY, 16, seed=99), EVERYTHING, 0, "cpu", uses=ALL_USES)
    state.restore(second, tmp_path)
    assert (second.step, second.images) == (3, 12)
    for k, batch in enumerate(batches[3:], 3):
        again = second.train_step(torch.tensor(batch), part_of_a(k))
    assert again == last
    a, b = _tensors(straight, tmp_path / "a"), _tensors(second, tmp_path / "b")
    assert _equal(a, b)
    kinds = {name.split(".")[0] for name in a}
    assert kinds == {"model", "averaged", "discriminator", "adam", "counter"}
    assert (tmp_path / "a/trainer.safetensors").read_bytes() == (tmp_path / "b/trainer.safetensors").read_bytes()


def test_saving_before_the_first_step(tmp_path: Path) -> None:
    fresh = _trainer(settings=_adversarial())
    state.save(fresh, tmp_path)
    used = _trainer(settings=_adversarial())
    used.train_step(blobs(4))
    state.restore(used, tmp_path)
    assert (used.step, used.images) == (0, 0)
    used.train_step(blobs(4, seed=1))
    fresh.train_step(blobs(4, seed=1))
    assert _equal(_tensors(used, tmp_path / "a"), _tensors(fresh, tmp_path / "b"))


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no saved training state"):
        state.restore(_trainer(), tmp_path)
    trainer = _trainer(seed=5, settings=_adversarial())
    trainer.train_step(blobs(2))
    state.save(trainer, tmp_path)
    with pytest.raises(InputError, match="seed is 5, expected 0"):
        state.restore(_trainer(settings=_adversarial()), tmp_path)
    wider = build_vae(TINY.model_copy(update={"channel_max": 32}), 16, seed=0)
    with pytest.raises(InputError, match=r"vae\.channel_max is 16, expected 32"):
        state.restore(Trainer(wider, _adversarial(), 5, "cpu"), tmp_path)
    with pytest.raises(InputError, match=r"discriminator.* expected None"):
        state.restore(_trainer(seed=5), tmp_path)
    with pytest.raises(InputError, match="averaged is True, expected False"):
        state.restore(_trainer(seed=5, settings=_with(_adversarial(), ema_half_life=0)), tmp_path)
    with pytest.raises(InputError, match="freeze is none, expected encoder"):
        state.restore(_trainer(seed=5, settings=_adversarial(), freeze="encoder"), tmp_path)
    file = tmp_path / "trainer.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    before = _tensors(trainer, tmp_path / "before")
    with pytest.raises(InputError, match="truncated"):
        state.restore(trainer, tmp_path)
    assert _equal(_tensors(trainer, tmp_path / "after"), before)
    plain = _trainer(seed=5)
    state.save(plain, tmp_path)
    with pytest.raises(InputError, match="discriminator is None"):
        state.restore(trainer, tmp_path)


def test_randomness_is_a_function_of_seed_step_and_rank() -> None:
    def draw(*key: int) -> float:
        return torch.rand((), generator=step_generator(*key)).item()

    assert draw(0, 1, 2) == draw(0, 1, 2)
    keys = [(s, t, r) for s in range(4) for t in range(12) for r in range(4)]
    assert len({draw(*key) for key in keys}) == len(keys)
    digests = {
        weights_digest(t.model) for t in (_trainer(), _trainer(rank=1), _trainer(seed=1)) if t.train_step(blobs(4))
    }
    assert len(digests) == 3


def test_the_same_seed_gives_the_same_weights_twice(tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        trainer = _trainer(settings=EVERYTHING, uses=ALL_USES)
        for k in range(4):
            trainer.train_step(blobs(4, seed=k), part_of_a(k))
        runs.append(_tensors(trainer, tmp_path / name))
    assert _equal(*runs)


@pytest.mark.parametrize("part", ["model", "discriminator"])
def test_a_bad_number_stops_before_the_step(tmp_path: Path, part: str) -> None:
    trainer = _trainer(settings=EVERYTHING)
    trainer.train_step(blobs(4))
    trainer.train_step(blobs(4))
    broken = trainer.model.encoder.mu.bias if part == "model" else trainer.discriminator.logit.bias  # type: ignore[union-attr]
    with torch.no_grad():
        kept = broken.clone()
        broken[0] = torch.nan
    before = _live_bytes(trainer)
    expected = "reconstruction = nan" if part == "model" else "discriminator = nan"
    with pytest.raises(DivergedError, match=rf"step 2: .*{expected}.*lower learning_rate"):
        trainer.train_step(blobs(4))
    assert trainer.step == 2
    assert _live_bytes(trainer) == before
    with torch.no_grad():
        broken.copy_(kept)
    after = trainer.train_step(blobs(4))  # and it goes on as if nothing had been
    other = _trainer(settings=EVERYTHING)
    for _ in range(3):
        expected_terms = other.train_step(blobs(4))
    assert after == expected_terms


def _live_bytes(trainer: Trainer) -> dict[str, bytes]:
    """Every tensor of the state, NaN and all."""
    tensors = {}
    for name, module in (("m", trainer.model), ("a", trainer.averaged), ("d", trainer.discriminator)):
        tensors |= {f"{name}.{key}": t for key, t in module.state_dict().items()}  # type: ignore[union-attr]
    for name, optimizer in (("m", trainer.optimizer), ("d", trainer.discriminator_optimizer)):
        for k, found in enumerate(optimizer.state.values()):
            tensors |= {f"adam.{name}.{k}.{moment}": t for moment, t in found.items()}
    tensors |= {"p": trainer.adversary.probability, "s": trainer.adversary.signs, "l": trainer.path_mean}
    return {key: t.detach().numpy().tobytes() for key, t in tensors.items()}


def test_wrong_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"uint8\[B, 16, 16, 3\], got float32\[2, 16, 16, 3\]"):
        _trainer().train_step(blobs(2).astype(np.float32))
    with pytest.raises(InputError, match=r"got uint8\[0, 16, 16, 3\]"):
        _trainer().train_step(blobs(0))


def test_the_average_is_that_of_the_weights_with_a_half_life_in_images() -> None:
    trainer = _trainer(settings=_with(SETTINGS, ema_half_life=20))
    expected = None
    for k in range(120):
        trainer.train_step(blobs(4, seed=k % 7))
        now = trainer.model.encoder.mu.weight.detach().double()
        life = min(20, 0.05 * 4 * k)
        kept = 0.5 ** (4 / life) if life else 0.0
        expected = now if expected is None else kept * expected + (1 - kept) * now
    torch.testing.assert_close(trainer.averaged.encoder.mu.weight.double(), expected, rtol=1e-4, atol=1e-5)
    assert not trainer.averaged.training
    assert not torch.equal(trainer.averaged.centre, trainer.model.centre)
    assert _trainer(settings=_with(SETTINGS, ema_half_life=0)).averaged.training, "the live model itself"
    assert averages.decay(100, 10**9, 100) == 0.5


def test_flips_half_of_the_images_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    encode = VAE.encode
    monkeypatch.setattr(VAE, "encode", lambda self, x: (seen.append(x), encode(self, x))[1])
    batch = blobs(64)
    for flip in (True, False):
        _trainer(settings=_with(SETTINGS, horizontal_flip=flip)).train_step(batch)
    flipped, plain = seen
    assert torch.equal(plain, to_float(torch.tensor(batch)))
    changed = [not torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert 16 < sum(changed) < 48
    assert all(torch.equal(a, b.flip(2)) for a, b, c in zip(flipped, plain, changed, strict=True) if c)


def test_gradients_are_clipped_together() -> None:
    free, clipped = (_trainer(settings=_with(SETTINGS, gradient_clip=c, adam_betas=[0.5, 0.9])) for c in (None, 1e-3))
    norm = free.train_step(blobs(4))["gradient_norm"]
    assert clipped.train_step(blobs(4))["gradient_norm"] == pytest.approx(norm), "the norm before clipping is logged"

    def moments(t: Trainer) -> Tensor:
        return torch.cat([s["exp_avg"].flatten() for s in t.optimizer.state.values()])

    assert moments(free).norm().item() == pytest.approx(0.5 * norm, rel=1e-4)
    torch.testing.assert_close(moments(clipped), moments(free) * (1e-3 / norm), rtol=1e-3, atol=1e-9)


def test_lazy_regularisation_corrects_adam() -> None:
    trainer = _trainer(settings=_adversarial(path_length=2.0, path_length_every=4, learning_rate=0.02))
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], *group["betas"]) == pytest.approx((0.01 * 0.8, 0.9**0.8, 0.99**0.8))
    group = trainer.discriminator_optimizer.param_groups[0]
    assert (group["lr"], *group["betas"]) == pytest.approx((0.02 * 16 / 17, 0.9 ** (16 / 17), 0.99 ** (16 / 17)))
    trainer.train_step(blobs(4))
    steps = {int(s["step"]) for s in trainer.optimizer.state.values()}
    assert steps == {1, 2}, "the encoder takes no part in path lengths"


def test_terms_of_the_adversarial_objective() -> None:
    trainer = _trainer(settings=_adversarial(start_step=2, r1_every=2, path_length=2.0))
    plain = {"loss", "reconstruction", "kl", "beta", "gradient_norm"}
    judged = {
        "adversarial",
        "discriminator",
        "real_logit",
        "fake_logit",
        "real_sign",
        "augment_probability",
        "discriminator_gradient_norm",
    }
    keys = [set(trainer.train_step(blobs(4))) for _ in range(6)]
    paths = {"path_length", "mean_path", "path_length_gradient_norm"}
    lazy = {"r1", "r1_gradient_norm"}
    assert keys == [plain, plain, plain | judged | lazy, plain | judged, plain | judged | lazy | paths, plain | judged]


def test_bfloat16_stays_near_float32() -> None:
    settings = _adversarial(path_length=2.0)
    a, b = (_trainer(settings=_with(settings, precision=p)) for p in ("float32", "bfloat16"))
    first, second = a.train_step(blobs(8)), b.train_step(blobs(8))
    assert {p.dtype for p in b.model.parameters()} == {torch.float32}
    for name in ("loss", "reconstruction", "kl", "adversarial", "discriminator", "gradient_norm", "path_length"):
        assert second[name] == pytest.approx(first[name], rel=0.05), name
    assert second["reconstruction"] != first["reconstruction"]
    assert second["r1"] == pytest.approx(first["r1"], rel=1e-6), "R1 is taken in float32"
    assert second["path_length"] == pytest.approx(first["path_length"], rel=1e-6)


def test_impossible_wishes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"uses\.adversarial: there is no discriminator"):
        _trainer(uses=Uses(adversarial=1.0))
    with pytest.raises(ConfigError, match="path_length: nothing to regularise with freeze: decoder"):
        _trainer(settings=_adversarial(path_length=2.0), freeze="decoder")
    with pytest.raises(ConfigError, match="'all' is not one of"):
        _trainer(freeze="all")
    vae = build_vae(TINY, 16, 0)
    vae.encoder.requires_grad_(False)
    with pytest.raises(ConfigError, match="no weights to train"):
        Trainer(vae, SETTINGS, 0, "cpu", freeze="decoder")
    vae.decoder = torch.nn.Identity()  # type: ignore[assignment]
    for name in ("style_mixing", "path_length"):
        with pytest.raises(ConfigError, match=rf"{name}: only the StyleGAN2 decoder"):
            Trainer(vae, _adversarial(**{name: 0.5}), 0, "cpu")


def test_weight_decay_is_decoupled() -> None:
    settings = Optimisation(steps=1, learning_rate=0.01, weight_decay=0.5, objective=Objective())
    a, b = _trainer(settings=settings), _trainer(settings=_with(settings, weight_decay=0.0))
    before = a.model.decoder.const.detach().clone()
    a.train_step(blobs(4))
    b.train_step(blobs(4))
    torch.testing.assert_close(a.model.decoder.const, b.model.decoder.const - 0.01 * 0.5 * before)
