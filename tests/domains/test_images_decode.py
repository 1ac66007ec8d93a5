"""decode_image: every kind of pixel, and a reason for everything that is no image."""

from __future__ import annotations

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ldsaug_ray.domains.images import UnusableImage, decode_image


def decode(payload: bytes, **options) -> np.ndarray:
    result = decode_image(payload, **({"resolution": 16} | options))
    side = options.get("resolution", 16)
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8
    return result


def reason(payload: bytes, **options) -> str:
    with pytest.raises(UnusableImage) as caught:
        decode(payload, **options)
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_same_size_is_untouched(encode, gradient):
    x = gradient(16, 16)
    for kind, options in [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]:
        np.testing.assert_array_equal(decode(encode(x, kind, **options)), x)


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 41), (33, 32)])
def test_centre_crop_and_lanczos_as_pillow_does_it(encode, gradient, width, height):
    x = gradient(width, height)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    expected = Image.fromarray(x).crop((left, top, left + side, top + side)).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decode(encode(x)), np.asarray(expected))


def test_crop_none_changes_the_aspect(encode, gradient):
    x = gradient(40, 20)
    expected = Image.fromarray(x).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decode(encode(x), crop="none"), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation_is_undone_once(encode, gradient, orientation, kind):
    upright = Image.fromarray(gradient(16, 16))
    stored = {
        1: lambda im: im,
        2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda im: im.rotate(180),
        4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda im: im.transpose(Image.Transpose.TRANSPOSE),
        6: lambda im: im.transpose(Image.Transpose.ROTATE_90),
        7: lambda im: im.transpose(Image.Transpose.TRANSVERSE),
        8: lambda im: im.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    error = np.abs(decode(encode(stored, kind, exif=exif, **options)).astype(int) - np.asarray(upright))
    assert error.max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P", "CMYK", "YCbCr"])
def test_modes(encode, mode):
    kind = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    grey = Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((8, 8))).astype(np.uint8)).convert("RGB")
    error = np.abs(decode(encode(grey.convert(mode), kind)).astype(int) - np.asarray(grey))
    assert error.max() <= 1


def test_cmyk_jpeg(encode):
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    np.testing.assert_allclose(decode(encode(red, "JPEG", quality=100))[8, 8], (200, 30, 40), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(encode, kind):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    result = decode(encode(values, kind))
    np.testing.assert_array_equal(result[..., 0], np.arange(256).reshape(16, 16))
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_big_endian_16_bit_tiff():
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    data = values.astype(">u2").tobytes()
    short = {256: 16, 257: 16, 258: 16, 259: 1, 262: 1, 277: 1, 278: 16}
    entries = [struct.pack(">HHIHH", tag, 3, 1, v, 0) for tag, v in short.items()]
    entries += [struct.pack(">HHII", 273, 4, 1, 8), struct.pack(">HHII", 279, 4, 1, len(data))]
    directory = struct.pack(">H", len(entries)) + b"".join(sorted(entries)) + struct.pack(">I", 0)
    payload = b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + directory
    np.testing.assert_array_equal(decode(payload)[..., 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(encode, dtype):
    assert "no agreed white" in reason(encode(np.ones((16, 16), dtype), "TIFF"))


def test_transparency_is_laid_on_white(encode):
    x = np.zeros((16, 16, 4), np.uint8)
    x[:, 8:, 3] = 255
    result = decode(encode(x))
    assert result[:, :8].min() == 255
    assert result[:, 8:].max() == 0
    half = decode(encode(np.full((16, 16, 4), (0, 0, 0, 128), np.uint8)))
    np.testing.assert_allclose(half, 127, atol=1)


def test_palette_and_colour_key_transparency(encode):
    x = np.zeros((16, 16), np.uint8)
    x[:, 8:] = 1
    palette = Image.fromarray(x).copy()
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert tuple(decode(encode(palette))[0, 0]) == (10, 20, 30)
    for transparency in (0, b"\x00\xff"):
        result = decode(encode(palette, transparency=transparency))
        assert tuple(result[0, 0]) == (255, 255, 255)
        assert tuple(result[0, 15]) == (200, 100, 50)
    assert tuple(decode(encode(x, transparency=0))[0, 0]) == (255, 255, 255)
    assert tuple(decode(encode(x.astype(np.uint16) * 257, transparency=257))[0, 15]) == (255, 255, 255)


def test_animation_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        payload = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        np.testing.assert_allclose(decode(payload)[8, 8], (255, 0, 0), atol=6)


def test_reasons(encode):
    assert reason(b"") == "empty file"
    assert reason(b"hello") == "not an image (begins with b'hello')"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n").startswith("not an image")  # no Ghostscript for a stranger's file
    assert reason(encode(None, "JPEG")[:500]) == "truncated JPEG"
    assert reason(encode(None, "PNG")[:80]) == "truncated PNG"
    assert "PNG" in reason(b"\x89PNG\r\n\x1a\n")
    small = reason(encode(), resolution=32)
    assert small == "smaller than the resolution: 40 x 30 px, not 32; data.upscale=true accepts it"
    assert reason(png_header(30000, 30000)) == (
        "decompression bomb: 30000 x 30000 px, more than data.max_pixels = 64000000"
    )
    assert "more than data.max_pixels = 1199" in reason(encode(), max_pixels=1199)


def test_limits_are_the_settings_and_not_pillows(encode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a tenth of this image: Pillow itself would refuse it
    decode(encode(), max_pixels=1200)
    assert decode(encode(), resolution=32, upscale=True).shape == (32, 32, 3)


def test_reason_pickles():
    error = pickle.loads(pickle.dumps(UnusableImage("truncated JPEG")))
    assert type(error) is UnusableImage
    assert str(error) == "truncated JPEG"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_never_raise_anything_else(encode, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    sound = np.frombuffer(encode(None, kind, **({} if kind in ("BMP", "GIF") else {"exif": exif})), np.uint8)
    rng = np.random.default_rng(0)
    reasons = set()
    for _ in range(150):
        damaged = sound[: rng.integers(1, len(sound) + 1)].copy() if rng.random() < 0.3 else sound.copy()
        for position in rng.integers(0, min(len(damaged), rng.choice([64, len(damaged)])), rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        try:
            decode(damaged.tobytes(), upscale=True, max_pixels=1_000_000)
        except UnusableImage as e:
            reasons.add(str(e))
    assert reasons
    assert all(reason and "\n" not in reason for reason in reasons)


def test_result_is_the_callers_own(encode):
    result = decode(encode())
    result[:] = 0
    assert result.flags.c_contiguous


def test_pillow_is_left_as_it_was(encode):
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode(encode())
    reason(encode(None, "JPEG")[:500])
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    Image.open(io.BytesIO(encode())).load()


def test_real_faces(real_data):
    for file in sorted((real_data / "faces256").glob("*.jpg"))[:8]:
        with Image.open(file) as image:
            expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(decode(file.read_bytes(), resolution=64), expected)
