"""Makes image files of every kind, also those that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import pytest
from PIL import Image

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


def header_of_png(width: int, height: int) -> bytes:
    """A grey PNG without pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


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


WIDTH, HEIGHT = 48, 32
QUARTERS = ((220, 30, 30), (30, 200, 40), (20, 40, 210), (230, 220, 20))


def colour(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Four quarters of plain colour: red, green; blue, yellow."""
    small = Image.new("RGB", (2, 2))
    small.putdata(QUARTERS)
    return small.resize((width, height), Image.Resampling.NEAREST)


def grey() -> Image.Image:
    return colour().convert("L")


def on_white() -> Image.Image:
    """The picture with its right half transparent, on white."""
    picture = colour()
    picture.paste("white", (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def without_green() -> Image.Image:
    picture = colour()
    picture.paste("white", (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    return picture


def black_and_white() -> Image.Image:
    return grey().point(lambda value: 255 if value > 90 else 0)


def half_transparent(mode: str) -> Image.Image:
    picture = colour().convert(mode)
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (WIDTH // 2, 0, WIDTH, HEIGHT))
    picture.putalpha(alpha)
    return picture


def deep_grey() -> Image.Image:
    return grey().convert("I").point(lambda value: value * 257).convert("I;16")


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def png_of_16_bit_colour() -> bytes:
    """Pillow does not write it."""
    rows = b"".join(
        b"\0" + b"".join(struct.pack(">H", band * 257) for x in range(WIDTH) for band in colour().getpixel((x, y)))
        for y in range(HEIGHT)
    )
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def deep_tiff(bits: int, order: str, photometric: int) -> bytes:
    """Grey of 12 bits packed, or of 16."""
    largest = 2**bits - 1
    values = [round(value * largest / 255) for value in grey().tobytes()]
    if photometric == 0:
        values = [largest - value for value in values]
    if bits == 16:
        pixels = struct.pack(f"{order}{len(values)}H", *values)
    else:
        pairs = zip(values[::2], values[1::2], strict=True)
        pixels = b"".join(((first << 12) | second).to_bytes(3, "big") for first, second in pairs)
    return tiff(WIDTH, HEIGHT, pixels, bits=bits, photometric=photometric, order=order)


def bmp_without_alpha() -> bytes:
    """32 bits with a mask of alpha, whose values are all 0: the header of version 5."""
    red, green, blue = colour().transpose(Image.Transpose.FLIP_TOP_BOTTOM).split()
    pixels = Image.merge("RGBA", (blue, green, red, Image.new("L", red.size, 0))).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + b"BGRs"
    header = header.ljust(124, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def half_closed_by_an_end_marker() -> bytes:
    whole = encode(Image.effect_noise((128, 128), 80), "JPEG")
    begin = coded_begin(whole)
    return whole[: (begin + len(whole)) // 2] + b"\xff\xd9"


def hole_of_zeros() -> bytes:
    whole = bytearray(encode(Image.effect_noise((128, 128), 80), "JPEG"))
    middle = (coded_begin(whole) + len(whole)) // 2
    whole[middle : middle + 1000] = bytes(1000)
    return bytes(whole)


def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="reading HEIC needs the extra heic")
    pillow_heif.register_heif_opener()
    return encode(colour(), "HEIF", quality=95)


def palette_with_transparency() -> bytes:
    picture = half_transparent("RGBA").quantize(16)
    return encode(picture, "PNG")


def turned_jpeg(turn: int) -> bytes:
    """Rotated by 90 degrees, with the EXIF orientation that corrects it."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return encode(colour().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95, subsampling=0)


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG with its last scan 500 times."""
    whole = jpeg(progressive=True)
    return whole[:-2] + 499 * whole[whole.rindex(b"\xff\xda") : -2] + whole[-2:]


def animation(image_format: str, **options: object) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), "black"), Image.new("RGB", (WIDTH, HEIGHT), "white")]
    return encode(colour(), image_format, save_all=True, append_images=others, duration=50, **options)


def jpeg(**options: object) -> bytes:
    return encode(colour(), "JPEG", quality=95, subsampling=0, **options)
