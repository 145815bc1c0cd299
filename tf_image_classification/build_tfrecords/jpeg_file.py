"""Whether a JPEG is whole, and how it is coded (ITU-T T.81).

libjpeg makes up what a damaged file lacks and only warns, which Pillow and TensorFlow hide. Here a warning rejects the
image, except those about oddities that change no pixel. libjpeg-turbo is called through simplejpeg for that.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from tf_image_classification import image_limits
from tf_image_classification.build_tfrecords import rejection, signature
from tf_image_classification.build_tfrecords.rejection import RejectedImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not a coded 0xff, a restart marker, or filling
_MARKER, _END_MARKER = 0xFF, b"\xff\xd9"  # of a marker, the first byte
_END, _SCAN, _QUANTIZATION, _HUFFMAN, _RESTART_INTERVAL, _COMMENT, _JFIF = 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE, 0xE0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL, _LOSSLESS = frozenset({0xC0, 0xC1}), 0xC3
_ARITHMETIC, _HIERARCHICAL = frozenset({0xC9, 0xCA, 0xCB}), frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_AC = 0x10  # class of a Huffman table, above its number
_METADATA = frozenset({*range(0xE0, 0xF0), _COMMENT})
# Frames and tables, scans, tables, number of lines, application data, comments
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xDE), *_METADATA})
# Segments and their least lengths
_PLAIN_SEGMENTS = {_QUANTIZATION: 2, _HUFFMAN: 2, _RESTART_INTERVAL: 4, _COMMENT: 2, _JFIF: 16}
_FRAME_HEADER = struct.Struct(">BHHB")  # bits, height, width, channels
_WHOLE_SPECTRUM = bytes((0, 63, 0))  # end of a sequential scan's header: the only values that it may have
_HOLE = bytes(16)
_SCALED_DOWN = 8  # libjpeg's coarsest: it still decodes every row's Huffman codes, and skips most of the remaining work
# The beginnings of libjpeg's warnings about coded data (jerror.h)
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Invalid SOS parameters", "Inconsistent progression")
# Behind the last scan: padding is harmless; anything else may be coded blocks, which damage moved out of their places.
_SURPLUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_NUMBERS = re.compile(r" (0x[0-9a-f]+|\d+)|(?<=RST)\d")


class Coding(NamedTuple):
    """What a JPEG's frame header says.

    Attributes:
        lossless: coded by prediction (SOF3), which TensorFlow does not decode.
        arithmetic: arithmetic-coded, which few decoders read.
        pixels: scaled down, uint8 (height, width, 1 or 3), with all blocks decoded; None where libjpeg-turbo warned of
            something harmless, or does not decode this coding (its TurboJPEG interface lacks rare chroma samplings).
    """

    lossless: bool
    arithmetic: bool
    pixels: npt.NDArray[np.uint8] | None = None

    @property
    def is_common(self) -> bool:
        """Whether every decoder reads it."""
        return not (self.lossless or self.arithmetic)


class _Segment(NamedTuple):
    """A segment with the two bytes of its marker; that of the end marker has no others."""

    code: int
    begin: int
    end: int


class Plain(NamedTuple):
    """A JPEG whose headers leave nothing to interpret: 8 bits, grey or three colours, one sequential scan, without
    Exif, ICC profile or other metadata.

    Attributes:
        width, height: pixels.
        channels: 1 or 3.
        segments: up to the scan's header.
    """

    width: int
    height: int
    channels: int
    segments: list[_Segment]


def plain(data: bytes) -> Plain | None:
    """What a plain JPEG's headers say; None for any other file, which `check` is for.

    It takes 7 microseconds; Pillow takes some 15 to open such a file and look for Exif, and `check` 40 to look for
    further headers.
    """
    position, frame = 2, None
    segments: list[_Segment] = []
    while len(start := data[position : position + 4]) == 4 and start[0] == _MARKER:
        code, length = start[1], int.from_bytes(start[2:])
        segment = _Segment(code, position, position + 2 + length)
        segments.append(segment)
        position = segment.end
        content = data[segment.begin + 4 : position]
        if code == _SCAN:
            return Plain(*frame, segments) if frame and content[:1] == bytes(frame[2:]) else None
        if code in _SEQUENTIAL and frame is None:
            frame = _plain_frame(content)
            if frame is None:
                return None
        elif length < _PLAIN_SEGMENTS.get(code, length + 1) or (code == _QUANTIZATION and _holds_zero(content)):
            return None
    return None


def _plain_frame(content: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels of a frame header."""
    if len(content) < _FRAME_HEADER.size:
        return None
    bits, height, width, channels = _FRAME_HEADER.unpack_from(content)
    is_plain = bits == 8 and channels in (1, 3) and len(content) == _FRAME_HEADER.size + 3 * channels
    return (width, height, channels) if is_plain else None


def whole_pixels(data: bytes, header: Plain) -> npt.NDArray[np.uint8] | None:
    """The pixels of a plain JPEG that is whole, scaled down as those of Coding; None: only `check` can tell.

    libjpeg warns of any marker within the scan, and follows those behind it up to the end marker.
    """
    if not data.endswith(_END_MARKER) or _has_hole(data, header.segments, len(data) - 2, header.channels):
        return None
    pixels, _ = _decoded(data, header.channels)
    return pixels


def check(data: bytes) -> Coding:
    """Checks that a JPEG's segments follow each other up to the end marker, and that its scans hold all blocks.

    Raises:
        RejectedImage: blocks are missing or damaged, or the coding is one that nothing here reads.
    """
    segments, end = _segments(data)
    _check_scans(data, segments)
    frame = next((segment for segment in segments if segment.code in _FRAMES), None)
    if frame is None or frame.end - frame.begin < 10:
        raise RejectedImage(rejection.CORRUPT)
    steps = [data[segment.begin + 4 : segment.end] for segment in segments if segment.code == _QUANTIZATION]
    if any(map(_holds_zero, steps)):
        raise RejectedImage(rejection.CORRUPT)
    if frame.code in _SEQUENTIAL and _has_hole(data, segments, end, channels=data[frame.begin + 9]):
        raise RejectedImage(rejection.HOLE_IN_JPEG)
    if frame.code in _HIERARCHICAL:
        raise RejectedImage(rejection.HIERARCHICAL_JPEG)
    lossless, arithmetic = frame.code == _LOSSLESS, frame.code in _ARITHMETIC
    if data[frame.begin + 4] != 8:
        raise RejectedImage(rejection.LOSSLESS_JPEG if lossless else rejection.DEEP_JPEG)
    if lossless:  # neither scaling nor conversion to grey is defined for it
        return Coding(lossless, arithmetic)
    channels = data[frame.begin + 9]
    pixels, warning = _decoded(data, channels)
    if warning:
        # libjpeg reports its first warning only: one about metadata would hide one about pixels.
        pixels, warning = _decoded(_bare(data, segments, frame), channels)
    if warning.startswith(_DAMAGE) and not _is_padding(warning, data, end):
        raise RejectedImage(_NUMBERS.sub("", warning[0].lower() + warning[1:]))
    return Coding(lossless, arithmetic, None if channels == 4 else pixels)


def _check_scans(data: bytes, segments: list[_Segment]) -> None:
    """Checks that decoding takes the time of a picture: each scan goes over all of it, whatever its bytes."""
    scans = sum(segment.code == _SCAN for segment in segments)
    sides = [struct.unpack_from(">HH", data, segment.begin + 5) for segment in segments if segment.code in _FRAMES]
    pixels = max((height * width for height, width in sides), default=0)
    if scans > image_limits.MAX_JPEG_SCANS or scans * pixels > image_limits.MAX_SCANNED_PIXELS:
        raise RejectedImage(rejection.TOO_MANY_SCANS)


def _holds_zero(tables: bytes) -> bool:
    """Whether a quantization table has a step of zero, which no encoder writes (B.2.4.1)."""
    position = 0
    while position < len(tables):
        width = 2 if tables[position] >> 4 else 1
        steps = tables[position + 1 : position + 1 + 64 * width]
        if 0 in (steps if width == 1 else map(max, steps[::2], steps[1::2])):
            return True
        position += 1 + 64 * width
    return False


def _has_hole(data: bytes, segments: list[_Segment], end: int, channels: int) -> bool:
    """Whether zeros lie where coded blocks should be, which decode to blocks and raise no warning.

    The code of zero bits is the first symbol of a Huffman table (C.2). Unless it ends a block, as where most of the
    picture is flat, a row of zeros stands for tens of coefficients that are all -1: no picture has those.
    """
    scans = [number for number, segment in enumerate(segments) if segment.code == _SCAN]
    scan = segments[scans[0]] if len(scans) == 1 else None
    if scan is None or scan.end - scan.begin < 7 or data[scan.begin + 4] != channels:
        return False  # one scan per colour: flat colours are rows of zeros
    first_symbols: dict[int, int] = {}  # table -> its first symbol
    for segment in segments:
        if segment.code == _HUFFMAN:
            first_symbols |= _first_symbols(data[segment.begin + 4 : segment.end])
    size = first_symbols.get(_AC | data[scan.begin + 6] & 0xF, 0) & 0xF
    if not size:
        return False
    while end > scan.end and not data[end - 1]:
        end -= 1
    return data.find(_HOLE, scan.end, end) >= 0


def _first_symbols(tables: bytes) -> dict[int, int]:
    """Class and number of each Huffman table in a segment -> the symbol whose code is all zero bits (B.2.4.2)."""
    found, position = {}, 0
    while position + 17 < len(tables):
        found[tables[position]] = tables[position + 17]
        position += 17 + sum(tables[position + 1 : position + 17])
    return found


def _is_padding(warning: str, data: bytes, end: int) -> bool:
    """Whether libjpeg warns only of bytes of one value between the last scan's blocks and the end marker."""
    surplus = _SURPLUS.fullmatch(warning)
    return surplus is not None and len(set(data[end - int(surplus[1]) : end])) == 1


def _segments(data: bytes) -> tuple[list[_Segment], int]:
    """The segments up to the end marker, in their order, and where it begins (annex B).

    A decoder stops at a marker that damage put between the coded rows and makes up the rest.
    """
    segments: list[_Segment] = []
    position = 2
    while marker := _NEXT_MARKER.search(data, position):
        code = data[marker.end() - 1]
        if code == _END:
            return segments, marker.start()
        if code not in _SEGMENTS:
            raise RejectedImage(rejection.CORRUPT)
        (length,) = struct.unpack_from(">H", data, marker.end())
        position = marker.end() + length
        segments.append(_Segment(code, marker.start(), position))
    raise RejectedImage(rejection.TRUNCATED)


def _decoded(data: bytes, channels: int) -> tuple[npt.NDArray[np.uint8] | None, str]:
    """The pixels, scaled down but with all blocks decoded; or libjpeg's first warning or error meanwhile."""
    import simplejpeg  # with NumPy, which --help need not wait for

    side = signature.MIN_DECODED_SIDE
    colours = {1: "GRAY", 4: "CMYK"}.get(channels, "RGB")
    try:
        return simplejpeg.decode_jpeg(data, colours, min_height=side, min_width=side, min_factor=_SCALED_DOWN), ""
    except ValueError as error:
        return None, str(error)


def _bare(data: bytes, segments: list[_Segment], frame: _Segment) -> bytes:
    """The JPEG without metadata, without bytes between its headers, and with a sequential scan's only parameters."""
    parts = [b"\xff\xd8"]
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        if segment.code in _METADATA:
            continue
        header = data[segment.begin : segment.end]
        if segment.code != _SCAN:
            parts.append(header)
            continue
        if frame.code in _SEQUENTIAL:
            header = header[:-3] + _WHOLE_SPECTRUM
        parts += [header, data[segment.end : following.begin if following else None]]
    return b"".join(parts)
