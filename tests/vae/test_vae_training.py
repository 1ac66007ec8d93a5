"""The training step: it learns, resumes bit for bit, and stops before a bad step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from vae_helpers import TINY, blobs

from ldsaug_ray.config import Objective, Optimisation
from ldsaug_ray.errors import InputError
from ldsaug_ray.vae import VAE, DivergedError, Elbo, Trainer, build_vae, posterior_means, step_generator, weights_digest
from ldsaug_ray.vae.losses import Terms

SETTINGS = Optimisation(
    steps=1,
    learning_rate=0.01,
    adam_betas=(0.9, 0.99),
    gradient_clip=1.0,
    objective=Objective(beta=0.05, kl_warmup_steps=4),
)


def _trainer(seed: int = 0, **kwargs: object) -> Trainer:
    return Trainer(build_vae(TINY, 16, seed=1), SETTINGS, seed, "cpu", **kwargs)  # type: ignore[arg-type]


def test_overfits_eight_images() -> None:
    trainer, images = _trainer(), blobs(8)
    first = trainer.train_step(images)
    assert first.keys() == {"loss", "reconstruction", "kl", "beta", "gradient_norm"}
    for _ in range(119):
        last = trainer.train_step(images)
    assert trainer.step == 120
    assert last["reconstruction"] < first["reconstruction"] / 4
    assert posterior_means(trainer.model, images, 8).std(0).max() > 0.1


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_every_parameter_gets_a_gradient(mapping_layers: int) -> None:
    vae = build_vae(TINY.model_copy(update={"mapping_layers": mapping_layers}), 16, seed=0)
    Trainer(vae, SETTINGS.model_copy(update={"objective": Objective()}), 0, "cpu").train_step(blobs(4))
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_resume_equals_an_undisturbed_run_bit_for_bit(tmp_path: Path) -> None:
    batches = [blobs(4, seed=s) for s in range(6)]
    straight = _trainer()
    for batch in batches:
        straight.train_step(batch)
    first = _trainer()
    for batch in batches[:3]:
        first.train_step(batch)
    first.save(tmp_path)
    torch.rand(5)  # no global random state takes part
    second = Trainer(build_vae(TINY, 16, seed=99), SETTINGS, 0, "cpu")
    second.restore(tmp_path)
    assert second.step == 3
    for batch in batches[3:]:
        second.train_step(torch.tensor(batch))
    assert weights_digest(second.model) == weights_digest(straight.model)


def test_saving_before_the_first_step(tmp_path: Path) -> None:
    fresh = _trainer()
    fresh.save(tmp_path)
    used = _trainer()
    used.train_step(blobs(4))
    used.restore(tmp_path)
    assert used.step == 0
    used.train_step(blobs(4, seed=1))
    fresh.train_step(blobs(4, seed=1))
    assert weights_digest(used.model) == weights_digest(fresh.model)


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no saved training state"):
        _trainer().restore(tmp_path)
    trainer = _trainer(seed=5)
    trainer.train_step(blobs(2))
    trainer.save(tmp_path)
    with pytest.raises(InputError, match="seed is 5, expected 0"):
        _trainer(seed=0).restore(tmp_path)
    wider = build_vae(TINY.model_copy(update={"channel_max": 32}), 16, seed=0)
    with pytest.raises(InputError, match=r"vae\.channel_max is 16, expected 32"):
        Trainer(wider, SETTINGS, 5, "cpu").restore(tmp_path)
    file = tmp_path / "trainer.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    before = weights_digest(trainer.model)
    with pytest.raises(InputError, match="truncated"):
        trainer.restore(tmp_path)
    assert weights_digest(trainer.model) == before


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


class _NanAtStep2:
    """The plain objective, with a term that becomes NaN but whose gradient through sign() would stay finite."""

    def __call__(
        self, module: nn.Module, images: Tensor, step: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Terms]:
        total, terms = Elbo(SETTINGS.objective)(module, images, step, generator)
        if step == 2:
            total = total + torch.nan
            terms = {**terms, "reconstruction": total.detach()}
        return total, terms


def test_a_bad_loss_stops_before_the_step() -> None:
    trainer = _trainer(objective=_NanAtStep2())
    trainer.train_step(blobs(4))
    trainer.train_step(blobs(4))
    before = weights_digest(trainer.model)
    with pytest.raises(DivergedError, match=r"step 2: reconstruction = nan, gradient_norm = nan.*lower learning_rate"):
        trainer.train_step(blobs(4))
    assert trainer.step == 2
    assert weights_digest(trainer.model) == before


def test_wrong_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"uint8\[B, 16, 16, 3\], got float32\[2, 16, 16, 3\]"):
        _trainer().train_step(blobs(2).astype(np.float32))
    with pytest.raises(InputError, match=r"got uint8\[0, 16, 16, 3\]"):
        _trainer().train_step(blobs(0))


def test_flips_only_when_asked() -> None:
    seen: list[Tensor] = []

    class Spy(Elbo):
        def __call__(
            self, module: nn.Module, images: Tensor, step: int, generator: torch.Generator | None
        ) -> tuple[Tensor, Terms]:
            seen.append(images)
            return super().__call__(module, images, step, generator)

    batch = blobs(64)
    for flip in (True, False):
        settings = SETTINGS.model_copy(update={"horizontal_flip": flip})
        Trainer(build_vae(TINY, 16, 0), settings, 0, "cpu", objective=Spy(settings.objective)).train_step(batch)
    flipped, plain = seen
    changed = [not torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert 16 < sum(changed) < 48
    assert all(torch.equal(a, b.flip(2)) for a, b, c in zip(flipped, plain, changed, strict=True) if c)


@pytest.fixture
def one_worker(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_worker")
def test_wrapped_for_several_workers_it_takes_the_same_steps(tmp_path: Path) -> None:
    plain = _trainer()
    wrapped = Trainer(DistributedDataParallel(build_vae(TINY, 16, seed=1)), SETTINGS, 0, "cpu")
    for seed in range(3):
        a, b = plain.train_step(blobs(4, seed=seed)), wrapped.train_step(blobs(4, seed=seed))
        assert a == pytest.approx(b, rel=1e-5)
    assert isinstance(wrapped.model, VAE)
    wrapped.save(tmp_path)
    again = _trainer()
    again.restore(tmp_path)
    assert weights_digest(again.model) == weights_digest(wrapped.module)
