"""TAEF2, a real pretrained autoencoder, on real faces: reconstruction as good as its own files give."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from adapters_helpers import files
from PIL import Image

from ldsaug_ray.config import Vae
from ldsaug_ray.models import decode_images, open_pretrained, posterior_means


@pytest.fixture
def taef2(shared: Path) -> Vae:
    folder = shared / "models" / "taef2"
    if not folder.is_dir():
        pytest.skip(f"no pretrained weights: {folder} is absent")
    return files(folder / "taef2_encoder.pt", folder / "taef2_decoder.pt")


def _reconstructed(settings: Vae, images: np.ndarray, batch: int) -> np.ndarray:
    model = open_pretrained(settings, images.shape[1])
    side = images.shape[1] // 8
    assert model.latent_dim == 32 * side * side
    return decode_images(model, posterior_means(model, images, batch), batch)


def test_faces_at_64_px(taef2: Vae, shared: Path) -> None:
    """Mean squared error of 64 faces 0.0017 in 0..1 (README of the weights), and as the files themselves give it."""
    table = pq.ParquetFile(shared / "data" / "celeba-10k" / "part-00000.parquet").read_row_group(0, columns=["image"])
    faces = []
    for row in table["image"][:64].to_pylist():
        image = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        top = (image.height - image.width) // 2
        square = image.crop((0, top, image.width, top + image.width))
        faces.append(np.asarray(square.resize((64, 64), Image.Resampling.LANCZOS)))
    images = np.stack(faces)
    got = _reconstructed(taef2, images, 16)
    error = np.square((got.astype(float) - images) / 255).mean()
    assert error == pytest.approx(0.0017, abs=2e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder, decoder = (torch.jit.load(str(f), map_location="cpu").eval() for f in (taef2.encoder, taef2.decoder))
    with torch.no_grad():
        x = torch.from_numpy(images[:16]).permute(0, 3, 1, 2) / 255
        own = decoder(encoder(x)).clamp(0, 1)
    want = (own * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(got[:16] - want).max() <= 1  # where a value lies at a half, rounding decides


def test_faces_at_256_px(taef2: Vae, shared: Path) -> None:
    """32,768 dimensions. PSNR 35.9 dB on average over 32 faces, 27.9 at worst, by the README of the weights."""
    paths = sorted((shared / "data" / "faces256").glob("*.jpg"))[::500]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    got = _reconstructed(taef2, images, 2)
    psnr = -10 * np.log10(np.square((got.astype(float) - images) / 255).mean((1, 2, 3)))
    assert 33 < psnr.mean() < 40
    assert psnr.min() > 27
