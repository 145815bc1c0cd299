"""Makes image files that Pillow does not write: raw chunks, tags and segments."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

_FORMATS = {1: "B", 3: "H", 4: "I"}
_STRIP_OFFSETS = 273


def tiff(
    width: int,
    height: int,
    pixels: bytes,
    *,
    bits: int = 8,
    samples: int = 1,
    photometric: int = 1,
    planes: int = 1,
    sample_format: int = 1,
    order: str = "<",
    more: Sequence[tuple[int, int, list[int]]] = (),
) -> bytes:
    """An uncompressed TIFF; `more` are tags in addition, or instead of its own: number, type, values."""
    size = len(pixels) // (samples if planes == 2 else 1)
    strips = [pixels[begin : begin + size] for begin in range(0, len(pixels), size)]
    own = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (_STRIP_OFFSETS, 4, [0] * len(strips)),
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [planes]),
        (339, 3, [sample_format] * samples),
    ]
    replaced = {number for number, _, _ in more}
    tags = sorted([tag for tag in own if tag[0] not in replaced] + list(more))
    beginning = 8 + 2 + 12 * len(tags) + 4
    position = beginning + sum(length for _, kind, values in tags if (length := _length(kind, values)) > 4)
    entries, outside = b"", b""
    for number, kind, values in tags:
        if number == _STRIP_OFFSETS:
            values = [position + index * size for index in range(len(strips))]
        value = struct.pack(order + _FORMATS[kind] * len(values), *values)
        entries += struct.pack(order + "HHI", number, kind, len(values))
        if len(value) > 4:
            entries += struct.pack(order + "I", beginning + len(outside))
            outside += value
        else:
            entries += value.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    return header + entries + bytes(4) + outside + pixels


def _length(kind: int, values: list[int]) -> int:
    return struct.calcsize("<" + _FORMATS[kind] * len(values))


def png_chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def png_with(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def without_segment(jpeg: bytes, marker: bytes) -> bytes:
    """A JPEG without its first segment of this marker."""
    begin = jpeg.index(marker)
    return jpeg[:begin] + jpeg[begin + 2 + struct.unpack_from(">H", jpeg, begin + 2)[0] :]


def lossless_jpeg(width: int, height: int) -> bytes:
    """A JPEG (SOF3) of plain grey 128: each difference to its prediction is 0, coded as one bit 0."""
    segments = (
        b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0),
        b"\xff\xc4" + struct.pack(">HB", 20, 0) + bytes([1]) + bytes(15) + b"\0",
        b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0),
    )
    return b"\xff\xd8" + b"".join(segments) + bytes(width * height // 8) + b"\xff\xd9"


def coded_begin(jpeg: bytes) -> int:
    """Where a JPEG's first scan begins, behind its header."""
    begin = jpeg.index(b"\xff\xda")
    return begin + 2 + struct.unpack_from(">H", jpeg, begin + 2)[0]
