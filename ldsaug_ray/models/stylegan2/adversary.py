"""The discriminator's half of a training step.

Both sides' gradients are taken at the same weights, from one pass of the discriminator over the fakes: backwards once
to the pictures (what the decoder should change) and once to its own weights. StyleGAN2 decodes new fakes for the
discriminator after the generator's step; sharing saves a pass through the decoder and one through the discriminator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ldsaug_ray.config import Adversarial
from ldsaug_ray.models.stylegan2.adversarial import loss_if_fake, loss_if_real, r1_penalty
from ldsaug_ray.models.stylegan2.augment import ADA_EVERY, augment, next_probability
from ldsaug_ray.models.stylegan2.discriminator import Discriminator
from ldsaug_ray.models.training.batch import Batch
from ldsaug_ray.models.training.objective import Fakes, Terms


class Verdict(NamedTuple):
    """What the discriminator makes of a step's images."""

    loss: Tensor  # its own, a scalar with gradient
    adversarial: Tensor  # the decoder's, a scalar without
    gradient: Tensor  # of that with regard to the fakes, float32[F, 3, R, R]
    terms: Terms


class Adversary:
    """A discriminator, what its images go through, and how often.

    Args:
        a_is_real: whether images of A that join the training images are real images to it too. Not where it also has
            to tell decode(z_A) from real ones.

    Attributes:
        probability: of each augmentation, a scalar tensor.
        signs: sum and number of the mean signs of real logits since the probability last changed.
    """

    def __init__(
        self, discriminator: Discriminator, settings: Adversarial, bfloat16: bool, a_is_real: bool = True
    ) -> None:
        self.discriminator = discriminator
        self.a_is_real = a_is_real
        self.settings = settings
        self.bfloat16 = bfloat16
        device = next(discriminator.parameters()).device
        fixed = settings.augment_probability
        self.adaptive = isinstance(fixed, str) and bool(settings.augment)
        self.probability = torch.tensor(0.0 if isinstance(fixed, str) else fixed, device=device)
        self.signs = torch.zeros(2, device=device)

    def judge(self, batch: Batch, fakes: Fakes, generator: torch.Generator) -> Verdict:
        """Losses of both sides on real images and fakes."""
        pictures = fakes.images.detach().requires_grad_()
        fake = self._logits(pictures, generator)
        adversarial = fakes.weights @ loss_if_real(fake)
        (gradient,) = torch.autograd.grad(adversarial, pictures, retain_graph=True)
        images, weights = self._reals(batch)
        real = self._logits(images, generator)
        shares = fakes.weights / fakes.total
        loss = weights @ loss_if_real(real) + shares @ loss_if_fake(fake)
        terms = {
            "adversarial": adversarial.detach(),
            "discriminator": loss.detach(),
            "real_logit": weights @ real.detach(),
            "fake_logit": shares @ fake.detach(),
            "real_sign": torch.sign(real.detach()[: batch.real]).mean(),
            "augment_probability": self.probability.clone(),
        }
        return Verdict(loss, adversarial.detach(), gradient, terms)

    def r1(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """E ‖∇D(x)‖² over the real images, in float32, differentiable."""
        images, weights = self._reals(batch)
        return weights @ r1_penalty(lambda x: self._logits(x, generator, exact=True), images)

    def _reals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Real images and their weights, whose sum is 1 in the mean over workers."""
        if self.a_is_real or batch.real == len(batch.images):
            return batch.images, batch.weights
        real = batch.images[: batch.real]
        return real, torch.full_like(batch.weights[: batch.real], 1 / batch.real)

    def follow(self, mean_sign: Tensor, images: int, step: int) -> None:
        """Note E[sign D(real)] of step number `step`, of `images` images; every fourth step the probability follows."""
        if not self.adaptive:
            return
        self.signs += torch.stack([mean_sign, torch.ones_like(mean_sign)])
        if (step + 1) % ADA_EVERY:
            return
        mean, seen = self.signs[0] / self.signs[1], self.signs[1] * images
        settings = self.settings
        self.probability.copy_(next_probability(self.probability, mean, settings.ada_target, seen, settings.ada_images))
        self.signs.zero_()

    def _logits(self, images: Tensor, generator: torch.Generator, exact: bool = False) -> Tensor:
        x = augment(images, self.settings.augment, self.probability, generator)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16 and not exact):
            return self.discriminator(x)
