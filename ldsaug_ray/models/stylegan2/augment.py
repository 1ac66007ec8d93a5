"""What the discriminator's images go through, so that it cannot learn a small training set by heart.

DiffAugment: Zhao et al. 2020 (arXiv:2006.10738), section 4; the ranges are those of the authors' code. Real and decoded
images get the same kinds of changes, and gradients pass through, once and twice. Each is applied to each image with a
probability, which can follow how far the discriminator overfits: ADA, Karras et al. 2020 (arXiv:2006.06676), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TRANSLATION = 0.125  # of the side
CUTOUT = 0.5
ADA_EVERY = 4  # steps between changes of the probability, as in the paper


def augment(
    images: Tensor, kinds: Sequence[str], probability: Tensor | float, generator: torch.Generator | None
) -> Tensor:
    """Change each image at random: float32[B, 3, R, R] -> the same shape, in float32 whatever autocast says.

    Args:
        images: in −1..1.
        kinds: of color, translation, cutout; each is drawn apart for each image.
        probability: 0..1, that a kind is applied; a tensor on the images' device may be given.
        generator: the only source of randomness, on the images' device.
    """

    def uniform() -> Tensor:
        return torch.rand(len(images), generator=generator, device=images.device)

    with torch.autocast(images.device.type, enabled=False):
        x = images.contiguous()
        for kind in kinds:  # every kind takes the same draws with any probability
            applied = uniform() < probability
            if kind == "color":
                changed = _color(x, uniform() - 0.5, uniform() * 2.0, uniform() + 0.5)
                x = torch.where(applied[:, None, None, None], changed, x)
            elif kind == "translation":
                x = _translate(x, applied, uniform(), uniform())
            elif kind == "cutout":
                x = _cut_out(x, applied, uniform(), uniform())
            else:
                raise ValueError(f"unknown augmentation {kind!r}: color, translation or cutout")
        return x


def next_probability(probability: Tensor, mean_sign: Tensor, target: float, images: Tensor | int, total: int) -> Tensor:
    """ADA's step: p ± images / total by the sign of r_t − target, within 0..1.

    Args:
        probability: p, a scalar.
        mean_sign: r_t = E[sign D(real)], equation 1.
        target: of r_t; the paper's is 0.6.
        images: seen since the last change.
        total: images in which p can go from 0 to 1; the paper's is 500,000.
    """
    return (probability + torch.sign(mean_sign - target) * (images / total)).clamp(0.0, 1.0)


def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add [B] `brightness`, then scale the distances from grey by `saturation`, from the image's mean by `contrast`."""
    x = x + brightness[:, None, None, None]
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation[:, None, None, None] + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * contrast[:, None, None, None] + mean


def _translate(x: Tensor, applied: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Shift by whole pixels, up to an eighth of the side each way; what comes in is 0, mid-grey.

    Two products with 0/1 matrices: exact, and unlike indexing deterministic in the gradient on GPUs.
    """
    side = x.shape[-1]
    reach = int(side * TRANSLATION + 0.5)
    down, right = (torch.where(applied, (t * (2 * reach + 1)).floor() - reach, 0.0) for t in (u, v))
    grid = torch.arange(side, device=x.device)
    rows, columns = ((grid[:, None] - grid[None, :] == s[:, None, None]).to(x.dtype) for s in (down, right))
    return torch.einsum("bij,bcjk,blk->bcil", rows, x, columns)


def _cut_out(x: Tensor, applied: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Blank a square of half the side whose centre is anywhere in the image."""
    side = x.shape[-1]
    size = int(side * CUTOUT + 0.5)
    grid = torch.arange(side, device=x.device)

    def inside(t: Tensor) -> Tensor:
        start = (t * (side + 1 - size % 2)).floor()[:, None] - size // 2
        return (grid >= start) & (grid < start + size)

    blank = inside(u)[:, :, None] & inside(v)[:, None, :] & applied[:, None, None]
    return x * (~blank)[:, None].to(x.dtype)
