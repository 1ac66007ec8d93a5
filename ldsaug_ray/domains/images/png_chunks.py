"""PNG files without the chunks that say nothing of the pixels.

Pillow refuses sound pixels for long texts or profiles, damaged ones, or frames of an animation that we do not show.
Its limits stay as they are; what they guard is left away before it is parsed.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TURNS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")  # texts that may hold the orientation
_LONGEST_TEXT = 1 << 24  # bytes, decompressed
_PILLOWS_LIMIT = 1 << 20  # for a text that is compressed in the file


def only_pixels(payload: bytes) -> bytes:
    """The file with what its pixels, palette, transparency and orientation need; itself where that is all it has.

    Chunks that are not ancillary stay, whatever they are: a reader must know them.
    """
    pieces: list[bytes] = []
    start = at = len(SIGNATURE)
    seen_pixels = False
    while at + 12 <= len(payload):
        length, kind = int.from_bytes(payload[at : at + 4], "big"), payload[at + 4 : at + 8]
        end = at + 12 + length
        if not kind.isalpha() or (end > len(payload) and not seen_pixels):
            break
        seen_pixels |= kind == b"IDAT"
        if kind not in _PIXELS and kind[0] & 0x20:
            kept = _orientation(payload[at:end], kind)
            if kept != payload[at:end]:
                pieces += [payload[start:at], kept]
                start = end
        at = end
    return b"".join([payload[: len(SIGNATURE)], *pieces, payload[start:]]) if pieces else payload


def _orientation(chunk: bytes, kind: bytes) -> bytes:
    """An ancillary chunk in a form that Pillow reads, if it may hold the orientation; else nothing."""
    data = chunk[8:-4]
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return b""
    if kind == b"eXIf":
        return chunk
    if kind not in (b"iTXt", b"zTXt", b"tEXt") or not data.startswith(_TURNS) or len(data) > _LONGEST_TEXT:
        return b""
    keyword, _, rest = data.partition(b"\0")
    if kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1"):
        packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
        try:
            text = zlib.decompressobj().decompress(packed, _LONGEST_TEXT)
        except zlib.error:
            return b""
        if len(text) < _PILLOWS_LIMIT:
            return chunk
        if len(text) == _LONGEST_TEXT:
            return b""
        kind, data = (b"iTXt", keyword + b"\0\0\0\0\0" + text) if kind == b"iTXt" else (b"tEXt", keyword + b"\0" + text)
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return chunk
