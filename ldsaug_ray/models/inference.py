"""Batches to posterior means and latents to batches, without randomness: the bodies of the encode and decode stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ldsaug_ray.errors import DivergedError, InputError
from ldsaug_ray.models.codec import Array, Codec


def encode_batch(vae: Codec, batch: Array, batch_size: int) -> np.ndarray:
    """μ of every item, float32[N, d], such as of images uint8[N, R, R, 3].

    Batches are consecutive rows, so equal input gives equal bits on the same machine; batched another way, the last
    float32 digits can differ.

    Raises:
        InputError: another dtype or shape.
        DivergedError: a latent is not finite.
    """
    vae.check(batch)
    out = np.empty((len(batch), vae.latent_dim), np.float32)
    with _evaluating(vae) as device:
        for rows in _batches(len(batch), batch_size):
            out[rows] = vae.encode(vae.to_tensor(batch[rows]).to(device))[0].cpu().numpy()
    if not np.isfinite(out).all():
        bad = np.flatnonzero(~np.isfinite(out).all(1))
        raise DivergedError(
            f"{len(bad)} of {len(out)} latents are not finite (first: row {bad[0]}); the VAE has diverged"
        )
    return out


def decode_batch(vae: Codec, z: np.ndarray, batch_size: int) -> Array:
    """Items of latents float32[N, d], by them alone: with constant noise; batches as in `encode_batch`.

    Raises:
        InputError: another dtype or shape, or a latent that is not finite.
        DivergedError: what the network gives is not finite.
    """
    d = vae.latent_dim
    if z.dtype != np.float32 or z.ndim != 2 or z.shape[1] != d:
        raise InputError(f"latents must be float32[N, {d}] for this VAE, got {_describe(z)}")
    if not np.isfinite(z).all():
        raise InputError(f"latent {np.flatnonzero(~np.isfinite(z).all(1))[0]} is not finite")
    out = vae.blank(len(z))
    with _evaluating(vae) as device:
        for rows in _batches(len(z), batch_size):
            x = vae.decode(torch.tensor(z[rows], device=device))
            # a cast of NaN to uint8 would pass as a black pixel
            if isinstance(x, torch.Tensor) and not torch.isfinite(x).all():
                raise DivergedError(
                    f"the VAE decodes latents {rows.start} to {rows.stop - 1} to values that are not finite"
                )
            out[rows] = vae.to_batch(x)
    return out


def likelihoods(vae: Codec, z: np.ndarray, batch_size: int) -> np.ndarray:
    """`likelihood` of what is decoded of latents float32[N, d], float64[N]; batches as in `encode_batch`."""
    out = np.empty(len(z))
    with _evaluating(vae) as device:
        for rows in _batches(len(z), batch_size):
            out[rows] = vae.likelihood(torch.tensor(z[rows], device=device)).cpu().numpy()
    if np.isnan(out).any():
        raise DivergedError(f"latent {np.flatnonzero(np.isnan(out))[0]} is decoded to what has no likelihood")
    return out


def _batches(n: int, size: int) -> Iterator[slice]:
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


posterior_means, decode_images = encode_batch, decode_batch
"""Their names of before there were other domains."""


@contextmanager
def _evaluating(vae: Codec) -> Iterator[torch.device]:
    """Evaluation and inference mode, training mode restored; gives the model's device."""
    was_training = vae.training
    vae.eval()
    try:
        with torch.inference_mode():
            yield vae.device
    finally:
        vae.train(was_training)
