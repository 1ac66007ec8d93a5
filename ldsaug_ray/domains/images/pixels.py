"""An opened image as 8-bit grey or RGB on white, by what its file says of depth, polarity and transparency.

Pillow hands some numbers on as they are stored: 12 bits as if they were 16, white as zero, transparent levels of fewer
bits, an alpha channel that nobody filled. Where the file does not say what a number means, the image is refused.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import BmpImagePlugin, Image, ImagePalette, PngImagePlugin, TiffImagePlugin

from ldsaug_ray.domains.base import Unusable

_SUBFILE, _BITS, _PHOTOMETRIC, _FILL_ORDER, _PLANAR, _FORMAT = 254, 258, 262, 266, 284, 339
_STRIP_BYTES, _TILE_BYTES, _SUBSAMPLING, _COLOR_MAP, _EXTRA = 279, 325, 530, 320, 338
_WHITE_IS_ZERO, _YCBCR = 0, 6
_GREY, _RGB = 0, 2  # PNG's colour types


class UnusableImage(Unusable):
    """The image cannot become a training array; the text says why, in a few words."""


def to_rgb(image: Image.Image, payload: bytes) -> np.ndarray:
    """uint8[H, W] of a grey image, else uint8[H, W, 3]; not yet turned upright.

    Args:
        image: opened, not yet loaded; what it was opened from decides, not its mode alone.
        payload: the bytes that it was opened from.

    Raises:
        UnusableImage: what the numbers mean cannot be known.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image.tag_v2, image.info.get("compression"))
    elif isinstance(image, BmpImagePlugin.BmpImageFile):
        _mend_bmp(image, payload)
    image.load()
    if image.mode in ("I", "F"):
        raise UnusableImage(f"{_depth(image)} pixels have no agreed white; store it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return _deep_grey(image)
    if isinstance(image, PngImagePlugin.PngImageFile) and image.mode in ("1", "L", "RGB"):
        return _png(image, payload)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("P", "PA"):
        colors = image.tag_v2[_COLOR_MAP]
        if max(colors) < 256:  # written with 8 bits where 16 are asked for, as libtiff too recognises
            image.putpalette(np.reshape(colors, (3, -1)).T.astype(np.uint8).tobytes())
    if image.mode == "RGBA" and _alpha_is_unused(image):
        image = image.convert("RGB")
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    if image.mode == "1":
        image = image.convert("L")
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def _deep_grey(image: Image.Image) -> np.ndarray:
    """More than 8 bits of grey, scaled by the depth that the file says."""
    values = np.asarray(image).astype(np.uint32)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = (1 << tags.get(_BITS, (16,))[0]) - 1
    see_through = image.info.get("transparency")
    clear = values == see_through if isinstance(see_through, int) else None
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    if clear is not None:
        grey[clear] = 255
    return grey


def _png(image: PngImagePlugin.PngImageFile, payload: bytes) -> np.ndarray:
    """Grey of at most 8 bits, or RGB, perhaps with one level or colour that is transparent."""
    header = payload.index(b"IHDR") + 12
    depth, color = payload[header], payload[header + 1]
    see_through: Any = image.info.get("transparency")
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if see_through is None:
        return pixels
    white = (1 << depth) - 1
    if color == _GREY:
        if depth == 1:  # Pillow has made it 0 or 255 by all 16 bits, of which the lowest counts
            see_through = payload[payload.rindex(b"tRNS", 0, payload.index(b"IDAT")) + 5]
        level = see_through & white
        clear = pixels == level * 255 // white
    else:
        clear = (pixels == [level >> 8 if depth == 16 else level & white for level in see_through]).all(-1)
        if depth == 16 and clear.any():
            clear &= (_low_bytes(payload) == [level & 255 for level in see_through]).all(-1)
    pixels = pixels.copy()
    pixels[clear] = 255
    return pixels


def _low_bytes(payload: bytes) -> np.ndarray:
    """The lower byte of each sample of a 16-bit RGB PNG; Pillow gives the upper one."""
    image = PngImagePlugin.PngImageFile(io.BytesIO(payload))
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    return np.asarray(image)


def _alpha_is_unused(image: Image.Image) -> bool:
    """A fourth channel of zeros in a BMP, or in a TIFF that does not call it alpha, is padding."""
    padding = isinstance(image, BmpImagePlugin.BmpImageFile) or (
        isinstance(image, TiffImagePlugin.TiffImageFile) and not image.tag_v2.get(_EXTRA)
    )
    return padding and image.getchannel("A").getextrema() == (0, 0)


def _mend_bmp(image: BmpImagePlugin.BmpImageFile, payload: bytes) -> None:
    """Pillow takes a palette of greys for a sign that the pixels have as many bits as such a palette needs."""
    bits = int.from_bytes(payload[24:26] if payload[14] == 12 else payload[28:30], "little")
    if (image.mode, bits) in (("1", 4), ("1", 8), ("L", 4)):
        levels = [0, 255] if image.mode == "1" else range(16)
        image._mode = "P"
        image.palette = ImagePalette.raw("RGB", bytes(level for grey in levels for level in (grey, grey, grey)))
        raw = "P;4" if bits == 4 else "P"
        image.tile = [tile._replace(args=(raw, *tile.args[1:])) for tile in image.tile]  # type: ignore[index]


def _check_tiff(tags: Any, compression: str | None) -> None:
    if tags.get(_SUBFILE, 0) & 5:
        raise UnusableImage("the first page of this TIFF is a thumbnail or a mask, as it says; store the image first")
    bits, form = tags.get(_BITS, (1,)), tags.get(_FORMAT, (1,))
    if _PHOTOMETRIC not in tags and compression != "tiff_jpeg":
        raise UnusableImage("TIFF without a photometric interpretation: whether 0 is black or white is not known")
    if 2 in form and max(bits) <= 8:
        raise UnusableImage("signed 8-bit pixels have no agreed white; store it unsigned")
    if (
        tags.get(_FILL_ORDER) == 2
        and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        and max(bits) == 8
        and compression == "raw"
    ):
        raise UnusableImage("uncompressed TIFF with reversed bits and white as 0, which Pillow misreads; store it anew")
    if tags.get(_PLANAR, 1) == 2 and len(bits) > 1 and max(bits) > 8:
        raise UnusableImage(
            f"TIFF with {max(bits)} bits in separate planes, which Pillow misreads; store it interleaved"
        )
    if tags.get(_PHOTOMETRIC) == _YCBCR and compression == "raw" and len(bits) == 3:
        stored = sum(tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES, (0,))))
        if tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1) and stored < 3 * tags[256] * tags[257]:
            raise UnusableImage("uncompressed TIFF with subsampled colours, which Pillow misreads; compress it by JPEG")


def _depth(image: Image.Image) -> str:
    """ "16-bit signed integer", as the file says it."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    kind = {2: "signed integer", 3: "float"}.get(tags.get(_FORMAT, (1,))[0], "integer")
    return f"{tags.get(_BITS, (32,))[0]}-bit {kind}"
