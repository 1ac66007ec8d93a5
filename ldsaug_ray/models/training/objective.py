"""The model's half of a training step: one pass through encoder and decoder, and the terms of its loss.

All latents of a step (of training images, of samples from N(0, I) or the prior that is judged instead, of A) are
decoded in one batch. With weights v of the images (`Batch`), w of A's latents, and the settings' weights in words:

    loss = reconstruction_weight · Σ v e + beta / values · KL + perceptual · Σ v p
         + cycle · Σ w ‖μ(decode(z_A)) − z_A‖² / d + adversarial · Σ f softplus(−D(fake))

    f    = reconstructions / shares · v   of a reconstruction
         = samples / shares / B           of a sample, as from N(0, I)                shares = reconstructions + samples
         = uses.adversarial · w           of an image decoded from A: beside the others, with no pixel target

The discriminator sees the same fakes with f / (1 + uses.adversarial · Σ w), so that fakes weigh as much as real images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldsaug_ray.config import Objective, Uses
from ldsaug_ray.models.autoencoder import Autoencoder
from ldsaug_ray.models.stylegan2.adversarial import mixed_styles
from ldsaug_ray.models.stylegan2.decoder import Decoder
from ldsaug_ray.models.training.batch import Batch
from ldsaug_ray.models.training.losses import free_bits, kl_standard_normal, reconstruction_error, warmed_up

Terms = dict[str, Tensor]


class Fakes(NamedTuple):
    """Pictures that the discriminator judges, and the weights of their terms."""

    images: Tensor  # float32[F, 3, R, R]
    weights: Tensor  # float32[F], f
    total: Tensor | float  # their sum, in the mean over workers


class Pass(NamedTuple):
    """What one pass through the model gives."""

    total: Tensor  # the loss without its adversarial part, a scalar with gradient
    terms: Terms  # scalars without gradient
    mu: Tensor  # float32[B, d], of the training images, without gradient
    fakes: Fakes | None


class ModelLoss:
    """The loss of a model, apart from what the discriminator has to say.

    Args:
        uses: what A is used for.
        perceptual: a distance between images, float32[B], or none.
    """

    def __init__(
        self, model: Autoencoder, settings: Objective, uses: Uses | None, perceptual: nn.Module | None, bfloat16: bool
    ) -> None:
        self.model = model
        self.settings = settings
        self.uses = uses or Uses(pixels=0)
        self.perceptual = perceptual
        self.bfloat16 = bfloat16

    def __call__(self, batch: Batch, step: int, generator: torch.Generator, judged: bool) -> Pass:
        """Encode, draw z, decode, and compare.

        Args:
            step: steps taken before this one.
            judged: whether there will be an adversarial term, so that fakes are needed.
        """
        settings, images = self.settings, batch.images
        mu, logvar = self._encode(images)
        z = mu
        if logvar is not None:
            eps = torch.randn(mu.shape, generator=generator, device=mu.device)
            z = torch.addcmul(mu, torch.exp(0.5 * logvar), eps)
        judges_a = judged and self.uses.adversarial > 0
        z_a = batch.z if judges_a or self.uses.cycle else None
        draws = batch.real if judged and settings.adversarial.samples else 0
        pictures, samples, of_a = self._decode(z, draws, batch.judged, z_a, generator)

        error = batch.weights @ reconstruction_error(pictures, images, settings.reconstruction)
        total = settings.reconstruction_weight * error
        terms = {"reconstruction": error}
        if logvar is not None:
            kl = kl_standard_normal(mu, logvar)
            beta = warmed_up(settings.beta, step, settings.kl_warmup_steps)
            total = total + beta / images[0].numel() * free_bits(kl, batch.weights, settings.free_bits)
            terms |= {"kl": batch.weights @ kl.sum(1), "beta": torch.full_like(error, beta)}
        if self.perceptual is not None and step % settings.perceptual.every == 0:
            distance = batch.weights @ self.perceptual(pictures, images)
            total = total + settings.perceptual.weight * settings.perceptual.every * distance
            terms["perceptual"] = distance
        if self.uses.cycle:
            cycle = total.new_zeros(())  # every worker has the term, also one that got nothing of A
            if z_a is not None and batch.z_weights is not None:
                gap = (self._encode(of_a)[0] - z_a).square().mean(1)
                cycle = batch.z_weights @ gap
            total = total + self.uses.cycle * cycle
            terms["cycle"] = cycle
        terms = {name: term.detach() for name, term in terms.items()}
        fakes = self._fakes(batch, pictures, samples, of_a if judges_a else of_a[:0]) if judged else None
        return Pass(total, terms, mu.detach()[: batch.real], fakes)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            mu, logvar = self.model.encode(images)
        return mu.float(), None if logvar is None else logvar.float()

    def _decode(
        self, z: Tensor, draws: int, judged: Tensor | None, z_a: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures of z, of `draws` latents (`judged`, else from N(0, I)), and of A's latents."""
        mixing = self.settings.adversarial.style_mixing if draws else 0.0
        parts, other = [z], None
        if draws:
            drawn = torch.randn(draws, z.shape[1], generator=generator, device=z.device) if judged is None else judged
            parts.append(drawn)
            if mixing and judged is None:
                other = torch.randn(draws, z.shape[1], generator=generator, device=z.device)
            elif mixing:
                other = drawn.roll(1, 0)  # each with the one before: as independent as they are
        if z_a is not None:
            parts.append(z_a)
        latents = torch.cat(parts) if len(parts) > 1 else z
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bfloat16):
            if other is None:
                pictures = self.model.decode(latents, "random", generator)
            else:
                pictures = self._mix(latents, slice(len(z), len(z) + draws), other, mixing, generator)
        pictures = pictures.float()
        return pictures[: len(z)], pictures[len(z) : len(z) + draws], pictures[len(z) + draws :]

    def _mix(
        self, latents: Tensor, rows: slice, other: Tensor, probability: float, generator: torch.Generator
    ) -> Tensor:
        """Decode with styles of `other` in the later layers of some of `rows`."""
        decoder = self.model.decoder
        assert isinstance(decoder, Decoder)  # the trainer has checked: no other has styles
        w = decoder.mapping(torch.cat([latents, other]) + self.model.centre)
        first, second = w[: len(latents)], w[len(latents) :]
        styles = first[:, None].expand(-1, decoder.styles, -1)
        mixed = mixed_styles(first[rows], second, decoder.styles, probability, generator)
        styles = torch.cat([styles[: rows.start], mixed, styles[rows.stop :]])
        return decoder.synthesis(styles, decoder.patterns(len(latents), "random", generator))

    def _fakes(self, batch: Batch, pictures: Tensor, samples: Tensor, of_a: Tensor) -> Fakes:
        settings = self.settings.adversarial
        shares = settings.reconstructions + settings.samples
        each = settings.samples / shares / batch.real
        images, weights = [samples], [torch.full((len(samples),), each, device=samples.device)]
        if settings.reconstructions:
            images.append(pictures)
            weights.append(settings.reconstructions / shares * batch.weights)
        if len(of_a) and batch.z_weights is not None:
            images.append(of_a)
            weights.append(self.uses.adversarial * batch.z_weights)
        return Fakes(torch.cat(images), torch.cat(weights), 1.0 + self.uses.adversarial * batch.z_share)
