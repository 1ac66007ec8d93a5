"""What A is used for: each use against its formula, taken apart by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vae_helpers import TINY, blobs, part_of_a

from ldsaug_ray.config import Finetune, Objective, Optimisation, Uses
from ldsaug_ray.errors import InputError
from ldsaug_ray.models import VAE, Augmented, Trainer, build_vae, kl_standard_normal, to_float
from ldsaug_ray.models.stylegan2.adversarial import loss_if_fake, loss_if_real

SETTINGS = Optimisation(
    steps=1, batch_size=4, learning_rate=1e-4, horizontal_flip=False, ema_half_life=0, objective=Objective(beta=0.5)
)
JUDGED = {"weight": 0.3, "augment": [], "samples": 0.0, "r1_gamma": 0.0}


class Certain(VAE):
    """An encoder without variance, so that a step has no randomness: noise strengths start at 0."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(images)[0], None  # type: ignore[return-value]


def _model() -> VAE:
    model = Certain(TINY, 16)
    model.load_state_dict(build_vae(TINY, 16, seed=1).state_dict())
    with torch.no_grad():
        model.centre.fill_(0.3)
    return model


def _trainer(uses: Uses | None, adversarial: dict[str, Any] | None = None, model: VAE | None = None) -> Trainer:
    objective = {"beta": 0.5, "adversarial": adversarial or {}}
    settings = Optimisation.model_validate({**SETTINGS.model_dump(), "objective": objective})
    return Trainer(model or _model(), settings, 0, "cpu", uses=uses)


def _floats(images: Any) -> Tensor:
    return to_float(torch.tensor(images))


def _gradient(loss: Tensor, module: torch.nn.Module) -> Tensor:
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def _same(a: Tensor, b: Tensor) -> None:
    assert (a - b).norm() <= 1e-4 * b.norm()
    assert b.norm() > 0


def _compare(trainer: Trainer, module: torch.nn.Module, expected: Tensor, discriminator: bool = False) -> None:
    """Adam's first moment after one step with beta1 = 0 is the gradient itself."""
    optimizer = trainer.discriminator_optimizer if discriminator else trainer.optimizer
    parts = [
        optimizer.state[p]["exp_avg"].flatten() if p in optimizer.state else torch.zeros(p.numel())
        for p in module.parameters()
    ]
    # random noise of strength 0 moves the strengths' gradients alone
    keep = torch.cat([torch.full((p.numel(),), "noise_strength" not in n) for n, p in module.named_parameters()])
    _same(torch.cat(parts)[keep], expected[keep])


def test_pixels_join_the_weighted_means() -> None:
    vae, a, images = build_vae(TINY, 16, seed=1), part_of_a(0), blobs(4)
    trainer = _trainer(Uses(pixels=0.5), model=vae)
    fresh = build_vae(TINY, 16, seed=1)
    terms = trainer.train_step(images, a)
    x = torch.cat([_floats(images), _floats(a.images)])
    v = torch.cat([torch.ones(4), 0.5 * torch.tensor(a.weight)])
    v /= v.sum()
    mu, logvar = fresh.encode(x)
    kl = kl_standard_normal(mu, logvar).sum(1)
    assert terms["kl"] == pytest.approx((v @ kl).item(), rel=1e-5)
    certain = _model()
    errors = (certain.decode(certain.encode(x)[0]) - x).abs().mean((1, 2, 3))
    trainer = _trainer(Uses(pixels=0.5), model=certain)
    expected = _gradient(v @ errors, certain)
    assert trainer.train_step(images, a)["reconstruction"] == pytest.approx((v @ errors).item(), rel=1e-5)
    _compare(trainer, certain, expected)


def test_weightless_images_change_nothing() -> None:
    with_a, without = _trainer(Uses(pixels=1.0)), _trainer(Uses(pixels=1.0))
    a = part_of_a(0)._replace(weight=np.zeros(3, np.float32))
    first, second = with_a.train_step(blobs(4), a), without.train_step(blobs(4))
    assert first == pytest.approx(second, rel=1e-4)


def test_cycle_asks_for_the_latent_back_through_both_halves() -> None:
    model, a, images = _model(), part_of_a(0), blobs(4)
    z, w = torch.tensor(a.z), torch.tensor(a.weight)
    gap = (model.encode(model.decode(z))[0] - z).square().sum(1) / 8
    x = _floats(images)
    error = (model.decode(model.encode(x)[0]) - x).abs().mean()
    expected = _gradient(error + 2.0 * (w * gap).sum() / 3, model)
    trainer = _trainer(Uses(pixels=0, cycle=2.0), model=model)
    terms = trainer.train_step(images, a._replace(images=None))
    assert terms["cycle"] == pytest.approx(((w * gap).sum() / 3).item(), rel=1e-5)
    assert terms["loss"] == pytest.approx((error + 2.0 * (w * gap).sum() / 3).item(), rel=1e-5)
    _compare(trainer, model, expected)


@pytest.mark.parametrize("pixels", [0.0, 0.5])
def test_adversarial_use_on_both_sides(pixels: float) -> None:
    """Reconstructions are fakes too; A's latents have no pixel target; fakes weigh as much as real images. Images of A
    that join the training images are no real ones to a discriminator that judges A."""
    model, a, images = _model(), part_of_a(0, n=4), blobs(4)
    trainer = _trainer(Uses(pixels=pixels, adversarial=0.7), JUDGED, model)
    d = trainer.discriminator
    assert d is not None
    x, w = _floats(images), torch.tensor(a.weight)
    v, real = torch.ones(4), x
    if pixels:
        x, v = torch.cat([x, _floats(a.images)]), torch.cat([v, pixels * w])
    v = v / v.sum()
    rec, of_a = model.decode(model.encode(x)[0]), model.decode(torch.tensor(a.z))
    fakes = d(torch.cat([rec, of_a]))
    f = torch.cat([v, 0.7 * w / 4])
    adversarial = f @ loss_if_real(fakes)
    error = v @ (rec - x).abs().mean((1, 2, 3))
    judged = loss_if_real(d(real)).mean() + (f / f.sum()) @ loss_if_fake(fakes)
    expected = _gradient_twice(error + 0.3 * adversarial, judged, model, d)
    terms = trainer.train_step(images, a)
    assert terms["adversarial"] == pytest.approx(adversarial.item(), rel=1e-4)
    assert terms["discriminator"] == pytest.approx(judged.item(), rel=1e-4)
    assert terms["loss"] == pytest.approx((error + 0.3 * adversarial).item(), rel=1e-4)
    _compare(trainer, model, expected[0])
    _compare(trainer, d, expected[1], discriminator=True)


def _gradient_twice(loss: Tensor, judged: Tensor, model: torch.nn.Module, d: torch.nn.Module) -> tuple[Tensor, Tensor]:
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    first = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([g.flatten() for g in first]), _gradient(judged, d)


def test_samples_and_reconstructions_share_the_loss() -> None:
    terms = {}
    for name, shares in {"both": (1, 3), "rec": (1, 0), "samples": (0, 3)}.items():
        adversarial = {**JUDGED, "reconstructions": shares[0], "samples": shares[1]}
        trainer = _trainer(None, adversarial)
        terms[name] = trainer.train_step(blobs(4))
    for key in ("adversarial", "fake_logit"):
        mixed = 0.25 * terms["rec"][key] + 0.75 * terms["samples"][key]
        assert terms["both"][key] == pytest.approx(mixed, rel=1e-4)


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
def test_what_is_frozen_does_not_move(frozen: str) -> None:
    settings = Optimisation.model_validate(
        {**SETTINGS.model_dump(), "objective": {"adversarial": {**JUDGED, "samples": 1.0}}}
    )
    model = _model()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    uses = Uses(pixels=1.0, adversarial=1.0, cycle=1.0)
    trainer = Trainer(model, settings, 0, "cpu", freeze=frozen, uses=uses)
    for k in range(2):
        trainer.train_step(blobs(4, seed=k), part_of_a(k))
    moved = {n.split(".")[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"encoder", "decoder"} - {frozen}


def test_what_a_use_needs_is_asked_for() -> None:
    a = part_of_a(0)
    with pytest.raises(InputError, match="without `uses`"):
        _trainer(None).train_step(blobs(4), a)
    with pytest.raises(InputError, match=r"uses\.pixels needs the images"):
        _trainer(Uses()).train_step(blobs(4), a._replace(images=None))
    with pytest.raises(InputError, match=r"uses\.cycle need the latents"):
        _trainer(Uses(pixels=0, cycle=1)).train_step(blobs(4), a._replace(z=None))
    with pytest.raises(InputError, match=r"latents of A must be float32\[3, 8\], got float64\[3, 8\]"):
        _trainer(Uses(cycle=1)).train_step(blobs(4), a._replace(z=np.zeros((3, 8))))
    with pytest.raises(InputError, match="images of A: 3, but 2 weights"):
        _trainer(Uses()).train_step(blobs(4), a._replace(weight=np.ones(2, np.float32)))
    with pytest.raises(InputError, match=r"images of A must be uint8\[B, 16, 16, 3\]"):
        _trainer(Uses()).train_step(blobs(4), a._replace(images=blobs(3, 32)))


def test_nothing_of_a_in_a_step_is_possible() -> None:
    nothing = Augmented(blobs(0), np.zeros((0, 8), np.float32), np.zeros(0, np.float32))
    for part in (nothing, None):
        uses = Uses(pixels=1, adversarial=1, cycle=1)
        terms = _trainer(uses, {**JUDGED, "samples": 1.0}).train_step(blobs(4), part)
        assert terms["cycle"] == 0


def test_the_discriminator_judges_the_latents_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, given = _trainer(None, {**JUDGED, "samples": 1.0}), np.full((4, 8), 0.5, np.float32)
    decode, seen = trainer.model.decode, []
    monkeypatch.setattr(trainer.model, "decode", lambda z, *rest: seen.append(z.detach()) or decode(z, *rest))
    trainer.train_step(blobs(4), None, given)
    trainer.train_step(blobs(4), None)
    np.testing.assert_array_equal(seen[0][4:8], given)
    assert len(seen[1]) == 8
    assert not np.isclose(seen[1][4:], given).all()
    with pytest.raises(InputError, match=r"latents that are judged must be float32\[4, 8\]"):
        trainer.train_step(blobs(4), None, given[:3])


def test_what_is_judged_needs_samples_and_a_discriminator() -> None:
    with pytest.raises(ValueError, match=r"judge = kde needs a discriminator that judges samples"):
        Finetune(judge="kde")
    with pytest.raises(ValueError, match=r"kdf.*kde, lds, mixture, normal"):
        Finetune(judge="kdf")


def test_finetune_settings_want_a_judge() -> None:
    with pytest.raises(ValueError, match=r"uses\.adversarial needs a discriminator"):
        Finetune(uses=Uses(adversarial=0.1))
