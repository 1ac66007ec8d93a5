"""Made-up images in every shape that sources meet. The real faces are read from their own folder, never copied."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldsaug_ray.config import Data

Encode = Callable[..., bytes]


def _gradient(width: int, height: int, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256, 128 + 0 * x]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


@pytest.fixture
def gradient() -> Callable[..., np.ndarray]:
    """gradient(width, height, channels=3) -> uint8[height, width, channels]."""
    return _gradient


@pytest.fixture
def encode() -> Encode:
    """encode(array or image or None, format="PNG", **options) -> bytes; None: a 40 x 30 gradient."""

    def run(image: np.ndarray | Image.Image | None = None, kind: str = "PNG", **options: object) -> bytes:
        if image is None:
            image = _gradient(40, 30)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        with io.BytesIO() as buffer:
            image.save(buffer, kind, **options)
            return buffer.getvalue()

    return run


@pytest.fixture
def image_folder(tmp_path: Path, encode: Encode) -> Path:
    """Ten sound images, one below the folder, with text, a hidden file and an upper-case extension among them."""
    folder = tmp_path / "faces"
    (folder / "more").mkdir(parents=True)
    for i in range(8):
        (folder / f"{i}.png").write_bytes(encode(np.full((20, 20, 3), 10 * i, np.uint8)))
    (folder / "8.JPG").write_bytes(encode(None, "JPEG"))
    (folder / "more" / "9.webp").write_bytes(encode(None, "WEBP"))
    (folder / "readme.txt").write_text("not listed")
    (folder / "._0.png").write_bytes(b"macOS leaves these")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real faces and labels; skips where there is none."""
    shared = Path(os.environ.get("LDSAUG_SHARED") or Path(__file__).parents[2] / ".." / "shared").resolve()
    if not (shared / "data").is_dir():
        pytest.skip(f"no real data: {shared / 'data'} is not there; set LDSAUG_SHARED to the shared folder")
    return shared / "data"


@pytest.fixture
def make_data() -> Callable[..., Data]:
    """make_data(source, **settings) -> Data at 16 px."""
    return lambda source, **settings: Data(source=str(source), **({"resolution": 16} | settings))
