"""Adversarial training as in StyleGAN2: losses of both sides, R1, path length regularisation, style mixing.

The loss is the non-saturating logistic one (Goodfellow et al. 2014, arXiv:1406.2661, section 3). Regularisers are lazy
(Karras et al. 2020, arXiv:1912.04958, appendix B): evaluated every few steps with their weight multiplied, in steps of
Adam of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ldsaug_ray.config import Adversarial
from ldsaug_ray.models.stylegan2.decoder import Decoder

PATH_DECAY = 0.01  # of the running mean of path lengths
R1_HEURISTIC = 0.0002


def loss_if_real(logits: Tensor) -> Tensor:
    """−log D(x) per image, of logits: the decoder's loss on what it made, the discriminator's on real images."""
    return F.softplus(-logits)


def loss_if_fake(logits: Tensor) -> Tensor:
    """−log(1 − D(x)) per image, of logits: the discriminator's loss on what the decoder made."""
    return F.softplus(logits)


def r1_gamma(settings: Adversarial, resolution: int, batch_size: int) -> float:
    """γ of R1; auto: 0.0002 · side² / batch, the heuristic of StyleGAN2-ADA's code (batch over all workers)."""
    gamma = settings.r1_gamma
    return R1_HEURISTIC * resolution**2 / batch_size if isinstance(gamma, str) else gamma


def r1_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖² per image, differentiable: Mescheder et al. 2018 (arXiv:1801.04406), equation 9, without γ/2.

    Args:
        discriminate: images to logits. What augments them is part of it, as in StyleGAN2-ADA's code: the gradient is
            with regard to the real image.
        images: real, float32[B, 3, R, R].
    """
    x = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminate(x).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def path_lengths(decoder: Decoder, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """‖Jᵀy‖ per latent, differentiable, y white noise: Karras et al. 2020 (arXiv:1912.04958), section 3.2.

    As in the authors' code y is scaled by 1/√(H·W), and the squared lengths are averaged over the layers' styles.

    Args:
        decoder: its synthesis is called itself, not a compiled form, which could not be differentiated twice.
        z: what its mapping takes, float32[B, d].
        generator: source of y and of the layers' noise.
    """
    w = decoder.mapping(z)[:, None].repeat(1, decoder.styles, 1)
    if not w.requires_grad:  # without mapping layers w is z
        w.requires_grad_()
    images = Decoder.synthesis(decoder, w, decoder.patterns(len(z), "random", generator))
    y = torch.randn(images.shape, generator=generator, device=images.device) / images.shape[-1]
    (gradient,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def mixed_styles(
    w: Tensor, other: Tensor, styles: int, probability: float, generator: torch.Generator | None
) -> Tensor:
    """Style mixing (Karras et al. 2019, arXiv:1812.04948, section 3.1): float32[B, styles, d].

    Args:
        w: of the first layers, float32[B, d].
        other: of those from a random one on, in the images drawn with `probability`.
        styles: how many the synthesis takes.
        probability: 0..1.
        generator: source of both draws.
    """
    chosen, where = (torch.rand(len(w), generator=generator, device=w.device) for _ in range(2))
    first = torch.where(chosen < probability, 1 + (where * (styles - 1)).floor(), float(styles))
    late = torch.arange(styles, device=w.device)[None, :] >= first[:, None]
    return torch.where(late[:, :, None], other[:, None], w[:, None])
