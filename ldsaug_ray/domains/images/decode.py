"""From a file's bytes to a training array: checked, turned upright, made RGB, cropped to a square, resized.

Everything that can be wrong with an image ends as `UnusableImage` with a reason a person can act on. The size is
checked in the header, before pixels are decoded. No setting of Pillow is changed.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ldsaug_ray.common.pointers import POINTER_BYTES, pointer
from ldsaug_ray.domains.images.pixels import UnusableImage, to_rgb
from ldsaug_ray.domains.images.png_chunks import SIGNATURE, only_pixels

# Pillow knows more formats, and runs programs for some of them. Importing a plugin registers it.
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, BmpImagePlugin, TiffImagePlugin, GifImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_WARNINGS = threading.Lock()  # Python's warning filters are per process; Ray works with processes, so nobody waits


def decode_image(
    payload: bytes,
    *,
    resolution: int,
    crop: Literal["center", "none"] = "center",
    upscale: bool = False,
    max_pixels: int = 64_000_000,
) -> np.ndarray:
    """Decode one image to uint8[resolution, resolution, 3], RGB, height first, as `decode_pixels` reads it.

    Args:
        payload: the file's bytes: JPEG, PNG, WebP, BMP, TIFF or GIF.
        resolution: side of the result, px.
        crop: "center" takes the largest central square; "none" keeps all and changes the aspect.
        upscale: accept an image whose smaller side is below `resolution`.
        max_pixels: more than these (width x height by the header) is a decompression bomb.

    Raises:
        UnusableImage: why this image cannot be used.
    """
    return fitted(decode_pixels(payload, least=1 if upscale else resolution, max_pixels=max_pixels), resolution, crop)


def decode_pixels(payload: bytes, *, least: int = 1, max_pixels: int = 64_000_000) -> np.ndarray:
    """Decode one image at its own size: uint8[H, W] of a grey image, else uint8[H, W, 3], RGB.

    EXIF orientation is applied; transparency is laid on white; grey of 12 or 16 bits is scaled, not clipped; of an
    animation the first frame counts; colour profiles are ignored.

    Args:
        payload, max_pixels: as for `decode_image`.
        least: what the smaller side must have, px.

    Raises:
        UnusableImage: why this image cannot be used.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is either checked here or harmless to the pixels
        payload = only_pixels(payload) if payload.startswith(SIGNATURE) else payload
        image = _open(payload)
        width, height = image.size
        if width < 1 or height < 1:
            raise UnusableImage(f"no pixels: {width} x {height} px")
        if width * height > max_pixels:
            raise UnusableImage(f"decompression bomb: {width} x {height} px, more than data.max_pixels = {max_pixels}")
        if min(width, height) < least:
            raise UnusableImage(
                f"smaller than the resolution: {width} x {height} px, not {least}; data.upscale=true accepts it"
            )
        return _decode(image, payload)


def fitted(pixels: np.ndarray, resolution: int, crop: Literal["center", "none"] = "center") -> np.ndarray:
    """Pixels uint8[H, W] or [H, W, 3] as uint8[resolution, resolution, 3]. Resizing is Lanczos, antialiased."""
    if crop == "center":
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if pixels.shape[:2] != (resolution, resolution):
        small = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(small.resize((resolution, resolution), Image.Resampling.LANCZOS))
    return in_colour(pixels)


def in_colour(pixels: np.ndarray) -> np.ndarray:
    """uint8[H, W] or [H, W, 3] as a copy uint8[H, W, 3]."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.array(pixels, dtype=np.uint8, order="C")


def _open(payload: bytes) -> ImageFile.ImageFile:
    """The image with its header read and no pixel decoded.

    Not `Image.open`: that one checks the size by Pillow's global limit, which the user of max_pixels cannot move.
    WebP's canvas is allocated here already, but zeroed lazily by the system.
    """
    if not payload:
        raise UnusableImage("empty file")
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if name == "JPEG":  # not Pillow's own choice, which looks for further frames and fails where their list is bad
            factory = JpegImagePlugin.JpegImageFile
        accepted = accept is not None and accept(payload[:16])
        if not accepted:
            continue
        if isinstance(accepted, str):  # Pillow was built without this format
            raise UnusableImage(f"this Pillow reads no {name}: {accepted}")
        try:
            image = factory(io.BytesIO(payload), "")
        except Image.DecompressionBombError as e:  # a GIF frame larger than the GIF
            raise UnusableImage(f"decompression bomb: {e}") from e
        except MemoryError:
            raise
        except Exception as e:  # on damaged bytes Pillow's parsers raise nearly anything
            raise UnusableImage(_damage(name, e)) from e
        return image
    raise UnusableImage(pointer(payload[:POINTER_BYTES]) or f"not an image (begins with {payload[:12]!r})")


def _decode(image: ImageFile.ImageFile, payload: bytes) -> np.ndarray:
    """uint8[H, W] of a grey image or uint8[H, W, 3], upright."""
    name = image.format or "image"
    try:
        pixels = to_rgb(image, payload)
    except (MemoryError, UnusableImage):
        raise
    except Image.DecompressionBombError as e:
        raise UnusableImage(f"decompression bomb: {e}") from e
    except Exception as e:  # as above
        raise UnusableImage(_damage(name, e)) from e
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels, and they are fine
        turn = None
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _damage(name: str, error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, KeyError):  # its text is only the key
        text = f"lacks {text}"
    if "truncated" in text.lower() or "unexpected end" in text.lower() or isinstance(error, EOFError):
        return f"truncated {name}"
    unknown = any(word in text.lower() for word in ("unknown pixel", "unknown raw", "unsupported", "not supported"))
    return f"{'unreadable' if unknown else 'damaged'} {name}: {text}"
