"""A PNG's chunks: which of them decide its pixels, and whether they are whole (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tf_image_classification.build_tfrecords import rejection
from tf_image_classification.build_tfrecords.rejection import RejectedImage

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_TRANSPARENCY, _EXIF, _TEXT = b"tRNS", b"eXIf", b"iTXt"
_COMPRESSED = frozenset({b"zTXt", b"iCCP"})  # keyword, 0, method, and the compressed text or profile
_XMP = b"XML:com.adobe.xmp\0\0"  # keyword, and the flag of text that is not compressed
# In bytes, of a chunk: the limit of Pillow (PngImagePlugin.MAX_TEXT_CHUNK); libpng's is 8 million bytes.
_LARGEST_METADATA = 2**20


class Chunks(NamedTuple):
    """A PNG, reduced to what decides how it looks.

    Attributes:
        pixels: a PNG of header, palette, transparency, pixels and orientation; no other metadata.
        is_orderly: whether other decoders read the whole file as well: no metadata with a wrong CRC or above 1 MiB.
        depth: bits per sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
    """

    pixels: bytes
    is_orderly: bool
    depth: int
    colour_type: int


def read(data: bytes) -> Chunks:
    """Checks the chunks that decide the pixels. Damage to others does no harm.

    Raises:
        RejectedImage: the file ends early, or a chunk of pixels has a wrong CRC.
    """
    kept, names, is_orderly = [_SIGNATURE], [], True
    for name, body, chunk, is_whole in _chunks(data):
        is_critical = name in _CRITICAL or name == _TRANSPARENCY
        if (is_critical and not is_whole) or (not is_critical and name[:1].isupper()):
            raise RejectedImage(rejection.CORRUPT)
        is_orderly = is_orderly and is_whole and (is_critical or _is_small(name, body))
        if is_critical or (is_whole and (name == _EXIF or (name == _TEXT and body.startswith(_XMP)))):
            kept.append(chunk)
        names.append(name)
    if names[0] != b"IHDR" or len(kept[1]) != 25:
        raise RejectedImage(rejection.CORRUPT)
    pixels = [index for index, name in enumerate(names) if name == b"IDAT"]
    is_orderly = is_orderly and pixels == list(range(pixels[0], pixels[-1] + 1)) if pixels else False
    depth, colour_type = struct.unpack_from("BB", kept[1], 16)
    return Chunks(b"".join(kept), is_orderly, depth, colour_type)


def _is_small(name: bytes, body: bytes) -> bool:
    """Whether a chunk of metadata has at most 1 MiB, also where it is compressed."""
    rest = body.partition(b"\0")[2]  # behind the keyword
    if name == _TEXT and rest.startswith(b"\1"):  # compressed, method, language, translated keyword, text
        compressed = rest[2:].split(b"\0", 2)[-1]
    else:
        compressed = rest[1:] if name in _COMPRESSED else b""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed, _LARGEST_METADATA)
    except zlib.error:  # decoders of pixels do not mind
        return len(body) <= _LARGEST_METADATA
    return len(body) <= _LARGEST_METADATA and not inflater.unconsumed_tail


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Name, body, whole chunk, and whether its CRC is right, up to the end chunk."""
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from(">I", data, end - 4)
        body = data[position + 8 : end - 4]
        yield name, body, data[position:end], crc == zlib.crc32(data[position + 4 : end - 4])
        if name == b"IEND":
            return
        if not name.isalpha():
            raise RejectedImage(rejection.CORRUPT)
        position = end
    raise RejectedImage(rejection.TRUNCATED)
