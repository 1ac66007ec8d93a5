"""What every stage asks of a model, of whatever domain: batches to latents, latents to batches; and a step's loss.

A batch is a NumPy array with one row an item; `to_tensor` makes of it what the network takes, `to_batch` a batch of
what it gives. So nobody else knows what lies between.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.config import CommonVae, Objective
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.training.losses import free_bits, kl_standard_normal, warmed_up

Array = NDArray[Any]


class Codec(nn.Module):
    """Encoder and decoder between items and latents of one dimension.

    Attributes:
        unit: what a batch is of, for messages.
        settings: section `vae`.
        given: what it was made for beside them, as `CodecKind.given` has it.
        files: of the user's, that a checkpoint keeps.
        latent_dim: d.
        encoder, decoder: sub-modules that hold all weights, so that either can be frozen.
    """

    unit: str = "items"
    settings: CommonVae
    given: Mapping[str, Any]
    files: Mapping[str, bytes] = {}
    latent_dim: int
    encoder: nn.Module
    decoder: nn.Module

    def blank(self, n: int) -> Array:
        """A batch of n rows whose values are arbitrary: the dtype and shape of all."""
        raise NotImplementedError

    def to_tensor(self, batch: Array) -> Tensor:
        """What `encode` takes, on the CPU."""
        return torch.tensor(batch)  # copied: arrays are often read-only, which torch.from_numpy warns of

    def to_batch(self, output: Any) -> Array:
        """A batch of what `decode` gives."""
        batch: Array = output.cpu().numpy()
        return batch

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """(μ, log σ²) of q(z|x), both float32[B, d]; no log σ² where the encoder is deterministic."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Any:
        """Of float32[B, d], by z alone."""
        raise NotImplementedError

    def error(self, output: Any, items: Tensor, objective: Objective) -> Tensor:
        """float32[B]: what decoding misses of each item, in the mean over its values."""
        raise NotImplementedError

    def likelihood(self, z: Tensor) -> Tensor:
        """How good what it decodes of float32[B, d] is by its own score, float32[B], the best with the most: log p(x|z)
        of codecs that know it; else −‖encode(decode(z)) − z‖² / d, of items as they are stored."""
        stored = self.to_tensor(self.to_batch(self.decode(z))).to(z.device)
        return -(self.encode(stored)[0] - z).square().mean(1)

    def step_loss(
        self, items: Tensor, weights: Tensor, objective: Objective, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of a training step, scalars: `loss`, the weighted sum, with gradient; the others for the curve.

        Args:
            items: of `to_tensor`, on the model's device.
            weights: float32[B], 1 in the sum over all workers.
            objective: `beta` weighs KL per value, `kl_warmup_steps` and `free_bits` as for images.
            step: steps taken before this one.
            generator: of all randomness.
        """
        mu, logvar = self.encode(items)
        z = mu
        if logvar is not None:
            eps = torch.randn(mu.shape, generator=generator, device=mu.device)
            z = torch.addcmul(mu, torch.exp(0.5 * logvar), eps)
        error = weights @ self.error(self.decode(z), items, objective)
        terms = {"reconstruction": error.detach()}
        total = objective.reconstruction_weight * error
        if logvar is not None:
            kl = kl_standard_normal(mu, logvar)
            beta = warmed_up(objective.beta, step, objective.kl_warmup_steps)
            total = total + beta / items[0].numel() * free_bits(kl, weights, objective.free_bits)
            terms |= {"kl": (weights @ kl.sum(1)).detach(), "beta": torch.full_like(error.detach(), beta)}
        return {"loss": total, **terms}

    @torch.inference_mode()
    def held_out_error(self, batch: Array, objective: Objective) -> float:
        """Mean `error` of a batch decoded from its posterior means."""
        self.eval()
        items = self.to_tensor(batch).to(self.device)
        return float(self.error(self.decode(self.encode(items)[0]), items, objective).mean())

    def check(self, batch: Array) -> None:
        """Raise InputError for a batch of another dtype or shape than this model takes."""
        wanted = self.blank(0)
        if batch.dtype != wanted.dtype or batch.shape[1:] != wanted.shape[1:]:
            sides = "".join(f", {n}" for n in wanted.shape[1:])
            raise InputError(
                f"{self.unit} must be {wanted.dtype}[N{sides}] for this VAE, got {batch.dtype}{list(batch.shape)}"
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU where there are none (a frozen TorchScript network has constants)."""
        weight = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if weight is None else weight.device

    def structure(self) -> str:
        """What the result depends on beside the weights' names, shapes and values; for digests."""
        return ""
