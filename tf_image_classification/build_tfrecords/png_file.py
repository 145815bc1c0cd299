"""A PNG's chunks: which of them decide its pixels, and whether they are whole (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tf_image_classification.build_tfrecords import rejection
from tf_image_classification.build_tfrecords.rejection import RejectedImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PIXELS, _TRANSPARENCY, _EXIF, _TEXT = b"IDAT", b"tRNS", b"eXIf", b"iTXt"
_HEADER = struct.Struct(">II5B")
_COMPRESSED = frozenset({b"zTXt", b"iCCP"})  # keyword, 0, method, and the compressed text or profile
_XMP = b"XML:com.adobe.xmp\0\0"  # keyword, and the flag of text that is not compressed
# In bytes, of a chunk: the limit of Pillow (PngImagePlugin.MAX_TEXT_CHUNK); libpng's is 8 million bytes.
_LARGEST_METADATA = 2**20


# Of the seven passes of an interlaced picture: first column and row, and steps to the next ones (section 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples per pixel
_BLOCK = 2**16


class Chunks(NamedTuple):
    """A PNG, reduced to what decides how it looks.

    Attributes:
        kept: header, palette, transparency, pixels and orientation; no other metadata.
        coded: what the chunks of pixels hold: parts of one zlib stream.
        is_orderly: whether other decoders read the whole file as well: no metadata with a wrong CRC or above 1 MiB.
        width, height: pixels.
        depth: bits per sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        methods: of compression, filtering and interlacing.
    """

    kept: list[memoryview]
    coded: list[memoryview]
    is_orderly: bool
    width: int
    height: int
    depth: int
    colour_type: int
    methods: tuple[int, int, int]

    @property
    def pixels(self) -> bytes:
        """A PNG of what is kept."""
        return b"".join((SIGNATURE, *self.kept))

    @property
    def is_bare(self) -> bool:
        """Whether the header and the 8-bit rows of a grey or RGB picture are all that decides its look."""
        return (
            self.is_orderly
            and self.depth == 8
            and self.colour_type in (0, 2)
            and self.methods == (0, 0, 0)
            and len(self.kept) == len(self.coded) + 2
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of all rows, each with its filter type; 0 where the header's values make no picture."""
        bits = self.depth * _SAMPLES.get(self.colour_type, 0)
        if self.methods[2] != 1:
            return self.height * (1 + (self.width * bits + 7) // 8) if bits else 0
        total = 0
        for left, top, across, down in _PASSES if bits else ():
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * bits + 7) // 8)
        return total


def read(data: bytes) -> Chunks:
    """Checks the chunks that decide the pixels. Damage to others does no harm.

    Raises:
        RejectedImage: the file ends early, or a chunk of pixels has a wrong CRC.
    """
    kept, coded, names, is_orderly = [], [], [], True
    for name, body, chunk, is_whole in _chunks(data):
        is_critical = name in _CRITICAL or name == _TRANSPARENCY
        if (is_critical and not is_whole) or (not is_critical and name[:1].isupper()):
            raise RejectedImage(rejection.CORRUPT)
        is_orderly = is_orderly and is_whole and (is_critical or _is_small(name, bytes(body)))
        if is_critical or (is_whole and (name == _EXIF or (name == _TEXT and bytes(body[: len(_XMP)]) == _XMP))):
            kept.append(chunk)
        if name == _PIXELS:
            coded.append(body)
        names.append(name)
    if names[0] != b"IHDR" or len(kept[0]) != 25:
        raise RejectedImage(rejection.CORRUPT)
    first = names.index(_PIXELS) if coded else 0
    is_orderly = is_orderly and bool(coded) and names[first : first + len(coded)] == [_PIXELS] * len(coded)
    width, height, depth, colour_type, *methods = _HEADER.unpack_from(kept[0], 8)
    return Chunks(kept, coded, is_orderly, width, height, depth, colour_type, tuple(methods))


def has_rows(chunks: Chunks) -> bool:
    """Whether the stream of the pixels does not end before the last row: Pillow takes the missing ones for black,
    TensorFlow rejects the picture.

    It is true as well of a stream that cannot be read, which decoders notice.
    """
    inflater, missing = zlib.decompressobj(), chunks.row_bytes
    parts = (coded[begin : begin + _BLOCK] for coded in chunks.coded for begin in range(0, len(coded), _BLOCK))
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while rest and missing > 0 and not inflater.eof:
                missing -= len(inflater.decompress(rest, _BLOCK))
                rest = inflater.unconsumed_tail
        while missing > 0 and (rows := inflater.decompress(b"", _BLOCK)):  # of input that is read
            missing -= len(rows)
    except zlib.error:
        return True
    return missing <= 0 or not inflater.eof


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


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview, bool]]:
    """Name, body, whole chunk, and whether its CRC is right, up to the end chunk."""
    position, view = len(SIGNATURE), memoryview(data)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from(">I", data, end - 4)
        yield name, view[position + 8 : end - 4], view[position:end], crc == zlib.crc32(view[position + 4 : end - 4])
        if name == b"IEND":
            return
        if not name.isalpha():
            raise RejectedImage(rejection.CORRUPT)
        position = end
    raise RejectedImage(rejection.TRUNCATED)
