"""What a training step works on: images and latents on the device, flipped and weighed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ldsaug_ray.config import Uses
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.autoencoder import to_float
from ldsaug_ray.models.training.workers import mean_over_workers


class Augmented(NamedTuple):
    """A worker's share of A in one step; NumPy arrays or tensors."""

    images: np.ndarray | Tensor | None  # uint8[M, R, R, 3], decoded; for uses.pixels
    z: np.ndarray | Tensor | None  # float32[M, d]; for uses.adversarial and uses.cycle
    weight: np.ndarray | Tensor  # float32[M], 1 in the mean over A


class Batch(NamedTuple):
    """Images and latents with the weights of their terms in the losses.

    With n = B + pixels · Σ weight, in the mean over workers, a training image weighs 1/n and an image of A
    pixels · weight_i / n. A latent of A weighs weight_i / M, times the use's own weight.
    """

    images: Tensor  # float32[N, 3, R, R]: B training images, then those of A that join as pixels
    weights: Tensor  # float32[N]; their sum is 1 in the mean over workers
    real: int  # B
    z: Tensor | None  # float32[M, d]
    z_weights: Tensor | None  # float32[M]
    z_share: Tensor | float  # sum of z_weights, in the mean over workers
    judged: Tensor | None  # float32[B, d], latents of the samples that are judged; none: from N(0, I)


def prepare(
    images: np.ndarray | Tensor,
    augmented: Augmented | None,
    judged: np.ndarray | Tensor | None,
    *,
    uses: Uses | None,
    resolution: int,
    latent_dim: int,
    flip: bool,
    world: int,
    device: torch.device,
    generator: torch.Generator,
) -> Batch:
    """Check a step's input and bring it to the device.

    Args:
        augmented: this worker's share of A, if any.
        judged: float32[B, d] or none.
        uses: what A is used for; must be the same on all workers, since they exchange a sum.
        flip: mirror half of the images; latents of A belong to no image here, so that they are not touched.

    Raises:
        InputError: another shape or dtype, lengths that differ, or a part of A that `uses` needs and is not there.
    """
    parts = [_images(images, resolution, "a batch", device)]
    if not len(parts[0]):
        raise InputError(f"a batch must be uint8[B, {resolution}, {resolution}, 3], got uint8{list(images.shape)}")
    real = len(parts[0])
    z = weight = drawn = None
    if judged is not None:
        drawn = _floats(judged, (real, latent_dim), "latents that are judged", device)
    if augmented is not None:
        if uses is None:
            raise InputError("images of A were given to a trainer without `uses`")
        weight = _floats(augmented.weight, (len(augmented.weight),), "the weights of A", device)
        if uses.pixels:
            if augmented.images is None:
                raise InputError("uses.pixels needs the images of A")
            parts.append(_images(augmented.images, resolution, "images of A", device, len(weight)))
        if uses.adversarial or uses.cycle:
            if augmented.z is None:
                raise InputError("uses.adversarial and uses.cycle need the latents of A")
            z = _floats(augmented.z, (len(weight), latent_dim), "latents of A", device)
    x = to_float(torch.cat(parts) if len(parts) > 1 else parts[0])
    if flip:
        mirrored = torch.rand(len(x), generator=generator, device=device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    weights = torch.ones(len(x), device=device)
    if uses is None or not (uses.pixels or uses.adversarial):
        weights /= real
        z_weights = None if weight is None or z is None else weight / max(len(weight), 1)
        return Batch(x, weights, real, z, z_weights, 0.0, drawn)
    if weight is None:
        weight = torch.zeros(0, device=device)
    z_weights = weight / max(len(weight), 1)
    if uses.pixels:
        weights[real:] = uses.pixels * weight
    n, share = mean_over_workers([weights.sum(), z_weights.sum()], world)
    return Batch(x, weights / n, real, z, z_weights, share, drawn)


def _images(given: np.ndarray | Tensor, side: int, what: str, device: torch.device, count: int | None = None) -> Tensor:
    # torch.tensor copies: Ray's arrays are read-only, which torch.from_numpy warns of
    images = torch.tensor(given) if isinstance(given, np.ndarray) else given
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise InputError(f"{what} must be uint8[B, {side}, {side}, 3], got {_describe(images)}")
    if count is not None and len(images) != count:
        raise InputError(f"{what}: {len(images)}, but {count} weights")
    return images.to(device)


def _floats(given: np.ndarray | Tensor, shape: tuple[int, ...], what: str, device: torch.device) -> Tensor:
    values = torch.tensor(given) if isinstance(given, np.ndarray) else given
    if values.dtype != torch.float32 or values.shape != shape:
        raise InputError(f"{what} must be float32{list(shape)}, got {_describe(values)}")
    return values.to(device)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
