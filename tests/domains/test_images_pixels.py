"""What numbers in a file mean: every layout that Pillow opens, against values computed here from the stored samples."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from ldsaug_ray.domains.images import UnusableImage, decode_image

SIDE = 16


def decode(payload: bytes) -> np.ndarray:
    return decode_image(payload, resolution=SIDE)


def reason(payload: bytes) -> str:
    with pytest.raises(UnusableImage) as caught:
        decode(payload)
    return str(caught.value)


# --- files written by hand


def packed(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """uint[H, W, n] with `bits` a sample: whole bytes in byte order, others from the highest bit on, rows padded."""
    rows = samples.reshape(len(samples), -1)
    if bits % 8 == 0:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    each = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(each.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff(data: bytes, tags: dict[int, int | tuple[int, ...]], order: str = "<") -> bytes:
    """One strip, uncompressed; `tags` replaces the usual ones, None leaves one out."""
    usual = {256: SIDE, 257: SIDE, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIDE, 279: len(data)}
    entries, after = b"", b""
    wanted = {tag: v for tag, v in sorted({**usual, **tags}.items()) if v is not None}
    end = 8 + len(data) + 2 + 12 * len(wanted) + 4
    for tag, value in wanted.items():
        several = value if isinstance(value, tuple) else (value,)
        long = tag in (273, 279)
        stored = struct.pack(f"{order}{len(several)}{'I' if long else 'H'}", *several)
        if len(stored) > 4:
            stored, after = struct.pack(f"{order}I", end + len(after)), after + stored
        entries += struct.pack(f"{order}HHI", tag, 4 if long else 3, len(several)) + stored.ljust(4, b"\0")
    begin = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data)) + data
    return begin + struct.pack(f"{order}H", len(wanted)) + entries + b"\0\0\0\0" + after


def bmp(rows: bytes, bits: int, *, masks: tuple[int, ...] = (), palette: bytes = b"", header: int = 40) -> bytes:
    """Bottom up; `rows` as they are stored; header 40, or 124 with the masks in it."""
    start = 14 + header + len(palette)
    info = struct.pack(
        "<IiiHHIIiiII", header, SIDE, SIDE, 1, bits, 3 if masks else 0, len(rows), 0, 0, len(palette) // 4, 0
    )
    info += struct.pack(f"<{len(masks)}I", *masks)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info.ljust(header, b"\0") + palette + rows


def png(data: bytes, depth: int, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Rows without filters; `chunks` stand before the pixels."""
    row = len(data) // SIDE
    lines = b"".join(b"\0" + data[i * row : (i + 1) * row] for i in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, color, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in body)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def samples(bits: int, n: int = 1) -> np.ndarray:
    """int64[SIDE, SIDE, n] over the whole range, black and white among them."""
    values = np.random.default_rng(bits).integers(0, 1 << bits, (SIDE, SIDE, n))
    values[0, 0], values[0, 1] = 0, (1 << bits) - 1
    return values


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.reshape(SIDE, SIDE, 1), 3, axis=2)


def eight(values: np.ndarray, bits: int) -> np.ndarray:
    """Scaled to 0 to 255, rounded."""
    return np.floor(values * 255 / ((1 << bits) - 1) + 0.5).astype(int)


# --- TIFF: every entry of Pillow's table


def expected_of_tiff(photo: int, bits: tuple[int, ...], extra: tuple[int, ...], stored: np.ndarray) -> np.ndarray:
    v = eight(stored, bits[0]).astype(float)
    alpha = v[..., len(bits) - len(extra)] if extra and extra[0] in (1, 2, 999) else None
    if photo == 2 and len(bits) == 4 and not extra:
        alpha = v[..., 3]
    if photo == 3:  # the palette below
        v = np.stack([stored[..., 0], 255 - stored[..., 0], stored[..., 0] // 2], -1).astype(float)
    elif photo == 5:
        v = (255 - v[..., :3]) * (255 - v[..., 3:4]) / 255
    elif photo == 6 and len(bits) == 3:
        y, cb, cr = v[..., 0], v[..., 1] - 128, v[..., 2] - 128
        v = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 255)
    elif photo == 2:
        v = v[..., :3]
    else:
        v = np.repeat(255 - v[..., :1] if photo == 0 else v[..., :1], 3, axis=2)
    if alpha is not None:
        opaque = v if extra[:1] == (1,) else v * alpha[..., None] / 255
        v = opaque + 255 - alpha[..., None]
    return v


@pytest.mark.parametrize("key", [k for k in TiffImagePlugin.OPEN_INFO if k[1] != 8], ids=str)
def test_every_tiff_layout(key):
    prefix, photo, form, fill, bits, extra = key
    order = "<" if prefix == b"II" else ">"
    stored = samples(bits[0], len(bits))
    if extra and extra[0] == 1:  # premultiplied: no sample above its alpha
        n = len(bits) - len(extra)
        stored[..., n] = stored[..., n].clip(1 << bits[0] - 1)
        stored[..., :n] = np.minimum(stored[..., :n], stored[..., n : n + 1])
    data = packed(stored, bits[0], order)
    if fill == 2:
        data = bytes(int(f"{b:08b}"[::-1], 2) for b in data)
    tags = {
        258: bits,
        262: photo,
        266: fill,
        277: len(bits),
        339: form * len(bits),
        530: (1, 1) if photo == 6 else None,
    }
    tags[338] = extra or None
    if photo == 3:
        levels = np.arange(1 << bits[0])
        tags[320] = tuple(int(c) * 257 for c in np.concatenate([levels, 255 - levels, levels // 2]))
    payload = tiff(data, tags, order)
    if fill == 2 and ((photo == 3 and bits < (8,)) or (photo, bits) == (0, (8,))):
        assert "TIFF" in reason(payload)  # Pillow refuses the one and misreads the other
        return
    if form != (1,) or bits[0] == 32:
        assert "no agreed white" in reason(payload)
        return
    expected = expected_of_tiff(photo, bits, extra, stored)
    tolerance = 0 if len(bits) == 1 else 3  # conversions of several channels round on the way
    assert np.abs(decode(payload) - expected).max() <= tolerance


def test_12_bits():
    """The value of the report: 3,750 of 4,095 is 234, and not 15."""
    values = np.full((SIDE, SIDE, 1), 3750)
    assert (decode(tiff(packed(values, 12), {258: 12})) == 234).all()


def test_16_bits_with_white_as_zero():
    """60,000 of 65,535 is 233 of grey; with white as zero it is 22."""
    values = np.full((SIDE, SIDE, 1), 60000)
    assert (decode(tiff(packed(values, 16, "<"), {258: 16, 262: 0})) == 22).all()
    assert (decode(tiff(packed(values, 16, "<"), {258: 16, 262: 1})) == 233).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_16_bits_with_white_as_zero(encode, compression):
    values = samples(16).astype(np.uint16)[..., 0]
    payload = bytearray(encode(Image.fromarray(values), "TIFF", compression=compression))
    where = payload.index(struct.pack("<HHII", 262, 3, 1, 1))
    payload[where + 8] = 0
    np.testing.assert_array_equal(decode(bytes(payload)), grey(eight(65535 - values.astype(int), 16)))


@pytest.mark.parametrize("bits", [10, 14])
def test_depths_that_pillow_does_not_know_are_named(bits):
    assert "unreadable TIFF: unknown pixel mode" in reason(tiff(packed(samples(bits), bits), {258: bits}))


def test_what_a_tiff_does_not_say():
    data = packed(samples(8), 8)
    assert "photometric interpretation" in reason(tiff(data, {262: None}))
    assert "thumbnail" in reason(tiff(data, {254: 1}))
    assert "separate planes" in reason(tiff(packed(samples(16, 3), 16), {258: (16,) * 3, 262: 2, 277: 3, 284: 2}))
    half = data + data[: len(data) // 2]  # one pair of colours for two by two pixels
    assert "subsampled" in reason(tiff(half + data, {258: (8, 8, 8), 262: 6, 277: 3, 279: len(half)}))
    np.testing.assert_array_equal(decode(tiff(data, {277: None})), grey(samples(8)))


def test_palette_of_8_bits_where_16_are_asked_for():
    stored, levels = samples(8), np.arange(256)
    tags = {262: 3, 320: tuple(np.concatenate([levels, 255 - levels, levels // 2]).tolist())}
    expected = expected_of_tiff(3, (8,), (), stored)
    np.testing.assert_array_equal(decode(tiff(packed(stored, 8), tags)), expected)


def test_planes_of_8_bits():
    stored = samples(8, 3)
    planes = b"".join(packed(stored[..., i], 8) for i in range(3))
    at, size = tuple(8 + i * SIDE * SIDE for i in range(3)), (SIDE * SIDE,) * 3
    tags = {258: (8, 8, 8), 262: 2, 277: 3, 284: 2, 273: at, 279: size}
    np.testing.assert_array_equal(decode(tiff(planes, tags)), stored)


def test_fourth_channel_of_zeros():
    """Padding where the file does not call it alpha; invisible where it does."""
    stored = samples(8, 4)
    stored[..., 3] = 0
    tags = {258: (8,) * 4, 262: 2, 277: 4}
    np.testing.assert_array_equal(decode(tiff(packed(stored, 8), tags)), stored[..., :3])
    assert (decode(tiff(packed(stored, 8), {**tags, 338: 2})) == 255).all()


def test_cielab(encode):
    for level, expected in ((255, 255), (0, 0)):
        stored = np.zeros((SIDE, SIDE, 3), int)
        stored[..., 0] = level
        assert (
            np.abs(decode(tiff(packed(stored, 8), {258: (8,) * 3, 262: 8, 277: 3})).astype(int) - expected).max() <= 1
        )


# --- BMP


def test_32_bit_bmp_whose_alpha_is_all_zero():
    bgra = samples(8, 4)
    bgra[..., 3] = 0
    rgb = bgra[::-1, :, 2::-1]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    np.testing.assert_array_equal(decode(bmp(packed(bgra, 8), 32, masks=masks, header=124)), rgb)
    np.testing.assert_array_equal(decode(bmp(packed(bgra, 8), 32)), rgb)
    bgra[..., 3] = 255
    bgra[:8, :, 3] = 0  # some of it is filled in: then it is alpha
    result = decode(bmp(packed(bgra, 8), 32, masks=masks, header=124))
    np.testing.assert_array_equal(result[:8], rgb[:8])
    assert (result[8:] == 255).all()


@pytest.mark.parametrize(("masks", "depths"), [((0xF800, 0x7E0, 0x1F), (5, 6, 5)), ((0x7C00, 0x3E0, 0x1F), (5, 5, 5))])
def test_16_bit_bmp(masks, depths):
    parts = [samples(d)[..., 0] for d in depths]
    words = parts[0] << depths[1] + depths[2] | parts[1] << depths[2] | parts[2]
    expected = np.stack([eight(p, d) for p, d in zip(parts, depths, strict=True)], -1)[::-1]
    result = decode(bmp(packed(words, 16, "<"), 16, masks=(*masks, 0), header=124)).astype(int)
    assert np.abs(result - expected).max() <= 1
    assert "unreadable BMP" in reason(bmp(packed(words, 16, "<"), 16, masks=(0xF00, 0xF0, 0xF, 0xF000), header=124))


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("kind", ["colours", "grey", "black and white", "white and black"])
def test_bmp_palettes(bits, kind):
    n = {"colours": 1 << bits, "grey": 1 << bits}.get(kind, 2)
    levels = np.arange(n)
    colors = {
        "colours": np.stack([levels, 255 - levels, levels * 7 % 256], -1),
        "grey": np.repeat(levels[:, None], 3, 1),
        "black and white": np.repeat(levels[:, None] * 255, 3, 1),
        "white and black": np.repeat(255 - levels[:, None] * 255, 3, 1),
    }[kind]
    stored = samples(bits)[..., 0] % n
    palette = b"".join(bytes([b, g, r, 0]) for r, g, b in colors.tolist())
    rows = b"".join(r.ljust((len(r) + 3) // 4 * 4, b"\0") for r in (packed(row[None], bits) for row in stored))
    np.testing.assert_array_equal(decode(bmp(rows, bits, palette=palette)), colors[stored][::-1])


# --- PNG


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png(depth, clear):
    stored = samples(depth)
    level = int(stored[3, 3, 0])
    expected = eight(stored, depth)
    if clear:
        expected = np.where(stored == level, 255, expected)
    transparent = [(b"tRNS", struct.pack(">H", level))] if clear else []
    np.testing.assert_array_equal(decode(png(packed(stored, depth), depth, 0, *transparent)), grey(expected))


def test_4_bit_grey_png_with_a_transparent_level():
    """The value of the report: level 3 of 15 would be 51; as it is transparent it is white."""
    stored = np.full((SIDE, SIDE, 1), 3)
    payload = png(packed(stored, 4), 4, 0, (b"tRNS", b"\0\3"))
    assert (decode(payload) == 255).all()
    assert (decode(png(packed(stored, 4), 4, 0, (b"tRNS", b"\0\7"))) == 51).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("level", [0, 1])
def test_of_a_transparent_level_the_lower_bits_count(depth, level):
    stored = np.zeros((SIDE, SIDE, 1), int)
    payload = png(packed(stored, depth), depth, 0, (b"tRNS", bytes([255, level])))
    assert (decode(payload) == (0 if level else 255)).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_rgb_png_with_a_transparent_colour(depth):
    stored = samples(depth, 3)
    stored[5, 5] = stored[3, 3] = (7 * 257 if depth == 16 else 7, 8, 9)
    if depth == 16:
        stored[5, 5, 2] += 1  # alike in the upper bytes alone: another colour
    expected = stored >> depth - 8
    expected[(stored == stored[3, 3]).all(-1)] = 255
    payload = png(packed(stored, depth), depth, 2, (b"tRNS", struct.pack(">3H", *stored[3, 3].tolist())))
    np.testing.assert_array_equal(decode(payload), expected)
    assert (decode(payload)[3, 3] == 255).all()
    assert (decode(payload)[5, 5] == 255).all() == (depth == 8)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_png_with_alphas(depth):
    n = 1 << depth
    stored = samples(depth)[..., 0]
    colors = np.random.default_rng(1).integers(0, 256, (n, 3))
    alphas = np.full(n, 255)
    alphas[:2] = 0, 128
    expected = colors[stored] * alphas[stored][..., None] / 255 + 255 - alphas[stored][..., None]
    chunks = (b"PLTE", colors.astype(np.uint8).tobytes()), (b"tRNS", bytes([0, 128]))
    assert np.abs(decode(png(packed(stored, depth), depth, 3, *chunks)) - expected).max() <= 1


@pytest.mark.parametrize(("color", "n"), [(4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_with_alpha(color, n, depth):
    stored = samples(depth, n)
    v = stored / ((1 << depth) - 1) * 255
    expected = v[..., :-1] * v[..., -1:] / 255 + 255 - v[..., -1:]
    assert np.abs(decode(png(packed(stored, depth), depth, color)) - expected).max() <= 2


BLOB = np.random.default_rng(0).integers(0, 256, 2 << 20, np.uint8).tobytes()


@pytest.mark.parametrize(
    "extra",
    [
        (b"tEXt", b"Comment\0" + BLOB),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (2 << 20))),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * (2 << 20))),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * (80 << 20))),
        (b"iCCP", b"profile\0\0" + zlib.compress(BLOB)),
        (b"iCCP", b"profile\0\7" + BLOB[:100]),
        (b"cHRM", b"short"),
        (b"eXIf", b"nonsense"),
        (b"acTL", b"bad"),
        (b"prVt", BLOB),
    ],
    ids=lambda e: f"{e[0].decode()}-{len(e[1])}",
)
def test_what_says_nothing_of_the_pixels_does_no_harm(extra):
    stored = samples(8, 3)
    for payload in (png(packed(stored, 8), 8, 2, extra), png(packed(stored, 8), 8, 2)[:-12] + chunk(*extra)):
        np.testing.assert_array_equal(decode(payload), stored)
    broken = bytearray(png(packed(stored, 8), 8, 2, extra))
    broken[33 + 8 + len(extra[1])] ^= 255  # its checksum
    np.testing.assert_array_equal(decode(bytes(broken)), stored)


@pytest.mark.parametrize("size", [0, 3 << 20])
@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("raw_profile", [False, True])
def test_the_orientation_in_a_long_text_still_counts(size, packs, raw_profile):
    stored = samples(8, 3)
    if raw_profile:
        exif = Image.Exif()
        exif[0x0112] = 3
        keyword, text = b"Raw profile type exif", b"\nexif\n%8d\n" % 0 + exif.tobytes().hex().encode() + b"00" * size
        data = keyword + b"\0\0" + zlib.compress(text) if packs else keyword + b"\0" + text
        extra = (b"zTXt" if packs else b"tEXt", data)
    else:
        text = b"<x " + b" " * size + b'tiff:Orientation="3">'
        data = b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(text) if packs else b"\0\0\0\0" + text)
        extra = (b"iTXt", data)
    np.testing.assert_array_equal(decode(png(packed(stored, 8), 8, 2, extra)), stored[::-1, ::-1])


def test_many_texts_that_are_long_together():
    texts = [(b"zTXt", b"%d\0\0" % i + zlib.compress(b"x" * (1 << 20))) for i in range(65)]
    np.testing.assert_array_equal(decode(png(packed(samples(8), 8), 8, 0, *texts)), grey(samples(8)))


def test_pillows_limits_stay():
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    decode(png(packed(samples(8), 8), 8, 0, (b"iCCP", b"profile\0\0" + zlib.compress(BLOB))))
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(io.BytesIO(png(packed(samples(8), 8), 8, 0, (b"iCCP", b"profile\0\0" + zlib.compress(BLOB)))))


# --- others


def test_jpeg_whose_list_of_frames_is_bad(encode):
    x = encode(np.full((SIDE, SIDE, 3), 90, np.uint8), "JPEG")
    segment = b"MPF\0MM\0*\0\0\0\x08\0\1" + struct.pack(">HHI4s", 0xB001, 4, 1, b"\0\0\0\2") + b"\0\0\0\0"
    payload = x[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + x[2:]
    np.testing.assert_allclose(decode(payload), 90, atol=2)


def test_pointers_in_place_of_images():
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    assert reason(text) == "a Git LFS pointer and not the data: run `git lfs pull` in the clone that it is from"
    assert "git annex get" in reason(b"/annex/objects/SHA256E-s12--4d7a.jpg\n")
