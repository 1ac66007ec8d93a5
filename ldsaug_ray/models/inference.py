"""Images to posterior means and latents to images, without randomness: the bodies of the encode and decode stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ldsaug_ray.errors import DivergedError, InputError
from ldsaug_ray.models.autoencoder import Autoencoder
from ldsaug_ray.models.stylegan2.model import to_uint8


def posterior_means(vae: Autoencoder, images: np.ndarray, batch_size: int) -> np.ndarray:
    """μ of every image: uint8[N, R, R, 3] -> float32[N, d].

    Batches are consecutive rows, so equal input gives equal bits on the same machine; batched another way, the last
    float32 digits can differ.

    Raises:
        InputError: another dtype, shape or resolution.
        DivergedError: a latent is not finite.
    """
    side = vae.resolution
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise InputError(f"images must be uint8[N, {side}, {side}, 3] for this VAE, got {_describe(images)}")
    out = np.empty((len(images), vae.latent_dim), np.float32)
    with _evaluating(vae) as device:
        for rows in _batches(len(images), batch_size):
            out[rows] = vae.encode(torch.tensor(images[rows], device=device))[0].cpu().numpy()
    if not np.isfinite(out).all():
        bad = np.flatnonzero(~np.isfinite(out).all(1))
        raise DivergedError(
            f"{len(bad)} of {len(out)} latents are not finite (first: row {bad[0]}); the VAE has diverged"
        )
    return out


def decode_images(vae: Autoencoder, z: np.ndarray, batch_size: int) -> np.ndarray:
    """Decode with constant noise: float32[N, d] -> uint8[N, R, R, 3]; batches as in `posterior_means`.

    Raises:
        InputError: another dtype or shape, or a latent that is not finite.
        DivergedError: a picture is not finite.
    """
    d, side = vae.latent_dim, vae.resolution
    if z.dtype != np.float32 or z.ndim != 2 or z.shape[1] != d:
        raise InputError(f"latents must be float32[N, {d}] for this VAE, got {_describe(z)}")
    if not np.isfinite(z).all():
        raise InputError(f"latent {np.flatnonzero(~np.isfinite(z).all(1))[0]} is not finite")
    out = np.empty((len(z), side, side, 3), np.uint8)
    with _evaluating(vae) as device:
        for rows in _batches(len(z), batch_size):
            x = vae.decode(torch.tensor(z[rows], device=device), "const")
            if not torch.isfinite(x).all():  # a cast of NaN to uint8 would pass as a black pixel
                raise DivergedError(
                    f"the VAE decodes latents {rows.start} to {rows.stop - 1} to values that are not finite"
                )
            out[rows] = to_uint8(x).cpu().numpy()
    return out


def likelihoods(vae: Autoencoder, z: np.ndarray, batch_size: int) -> np.ndarray:
    """`likelihood` of what is decoded of latents float32[N, d], float64[N]; batches as in `posterior_means`."""
    out = np.empty(len(z))
    with _evaluating(vae) as device:
        for rows in _batches(len(z), batch_size):
            out[rows] = vae.likelihood(torch.tensor(z[rows], device=device)).cpu().numpy()
    if not np.isfinite(out).all():
        raise DivergedError(f"latent {np.flatnonzero(~np.isfinite(out))[0]} is decoded to what is not finite")
    return out


def _batches(n: int, size: int) -> Iterator[slice]:
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


@contextmanager
def _evaluating(vae: Autoencoder) -> Iterator[torch.device]:
    """Evaluation and inference mode, training mode restored; gives the model's device."""
    was_training = vae.training
    vae.eval()
    try:
        with torch.inference_mode():
            yield vae.device
    finally:
        vae.train(was_training)
