"""A PNG has all its rows, or it is rejected; small ones, which Pillow does not open, are looked at as closely."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.image_files import png_chunk, png_with
from tf_image_classification.build_tfrecords import images, png_file, signature

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PALETTE = png_chunk(b"PLTE", bytes(range(48)))


def png(rows: bytes, width: int, height: int, *, depth: int = 8, colour_type: int = 0, interlace: int = 0) -> bytes:
    """A PNG of rows as they are coded, each with its filter type; its stream is whole, however many there are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    palette = PALETTE if colour_type == 3 else b""
    chunks = png_chunk(b"IHDR", header) + palette + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def stream_bytes(width: int, height: int, depth: int, colour_type: int, interlace: int) -> int:
    """Bytes of all rows, as Table 8.1 of the specification has the pixels of each pass."""
    bits, total = depth * SAMPLES[colour_type], 0
    if not interlace:
        return height * (1 + (width * bits + 7) // 8)
    pattern = ("16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777")
    for number in "1234567":
        rows = [[x for x in range(width) if pattern[y % 8][x % 8] == number] for y in range(height)]
        total += sum(1 + (len(row) * bits + 7) // 8 for row in rows if row)
    return total


def reason(data: bytes) -> str:
    with pytest.raises(images.RejectedImage) as rejected:
        images.prepare(data)
    return str(rejected.value)


def encoded(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def noise(size: tuple[int, int], mode: str, seed: int) -> Image.Image:
    """Noise in one half, so that encoders choose different filters for the rows."""
    generator = random.Random(seed)
    picture = Image.linear_gradient("L").resize(size).convert(mode)
    half = (size[0], size[1] // 2)
    picture.paste(Image.frombytes(mode, half, generator.randbytes(half[0] * half[1] * len(mode))))
    return picture


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("depth", "colour_type"), [(8, 0), (1, 0), (16, 0), (8, 2), (4, 3), (8, 4), (16, 6)])
@pytest.mark.parametrize(("width", "height"), [(28, 28), (3, 5), (200, 190)])
def test_a_png_whose_rows_end_early_is_truncated(width, height, depth, colour_type, interlace):
    size = stream_bytes(width, height, depth, colour_type, interlace)
    coding = {"depth": depth, "colour_type": colour_type, "interlace": interlace}
    for missing in (1, size // 2, size):
        assert reason(png(b"\0" * (size - missing), width, height, **coding)) == "truncated image"
    assert png_file.has_rows(png_file.read(png(b"\0" * size, width, height, **coding)))
    assert not png_file.has_rows(png_file.read(png(b"\0" * (size - 1), width, height, **coding)))


@pytest.mark.parametrize("side", [28, 300])
def test_tensorflow_rejects_a_png_whose_rows_end_early_too(side):
    rows = b"\0" * side * (side + 1)
    assert tf.io.decode_png(png(rows, side, side)).shape == (side, side, 1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_png(png(rows[:-1], side, side))


def test_bytes_behind_the_last_row_do_no_harm():
    data = png(b"\0" * (28 * 29 + 7), 28, 28)
    assert images.prepare(data).data == data


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (128, 128), (129, 128), (5, 90)])
def test_a_small_png_is_seen_as_pillow_sees_it(mode, size, monkeypatch):
    data = encoded(noise(size, mode, seed=sum(size)))
    small = images.prepare(data)
    monkeypatch.setattr(images, "_SMALL_PIXELS", 0)
    other = images.prepare(data)
    assert small._replace(scaled=None) == other._replace(scaled=None)
    assert np.array_equal(small.scaled, other.scaled)
    assert (small.width, small.height) == size and not small.reencoded


def test_damaged_small_pngs_have_the_reasons_of_large_ones(monkeypatch):
    whole, generator = encoded(noise((28, 28), "RGB", seed=1)), random.Random(2)
    reasons, begin = set(), whole.index(b"IDAT")
    length = struct.unpack(">I", whole[begin - 4 : begin])[0]
    for _ in range(200):
        stream = bytearray(whole[begin + 4 : begin + 4 + length])
        stream[generator.randrange(len(stream))] ^= 1 << generator.randrange(8)
        cut = bytes(stream[: generator.choice([length, generator.randrange(length)])])
        data = whole[: begin - 4] + png_chunk(b"IDAT", cut) + png_chunk(b"IEND", b"")
        results = []
        for pixels in (2**14, 0):
            monkeypatch.setattr(images, "_SMALL_PIXELS", pixels)
            try:
                results.append(images.prepare(data).scaled.tobytes())
            except images.RejectedImage as rejection:
                results.append(str(rejection))
        assert results[0] == results[1]
        reasons.add(results[0] if isinstance(results[0], str) else "none")
    assert {"truncated image", "corrupt image"} <= reasons


def test_a_small_png_is_reencoded_where_a_large_one_is():
    orientation = png_with(encoded(Image.new("L", (28, 20), 90)), png_chunk(b"eXIf", _turned()))
    assert images.prepare(orientation).height == 28
    key = png_with(encoded(Image.new("L", (28, 20), 90)), png_chunk(b"tRNS", b"\0\1"))
    assert images.prepare(key).reencoded
    assert images.prepare(encoded(Image.new("L", (28, 20), 90)), max_side=10).height == 10


def test_signatures_of_small_pictures_are_the_same_alone_and_among_others():
    pictures = [signature.scaled_picture(noise((28, 28), "L", seed)) for seed in range(40)]
    coloured = signature.scaled_picture(noise((28, 28), "RGB", seed=50))
    together = signature.of_all(pictures)
    assert together == signature.of_all([*pictures, coloured])[:-1]
    assert together == [signature.of_all([picture])[0] for picture in pictures]


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")
