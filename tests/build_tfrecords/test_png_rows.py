"""A PNG has all its rows, or it is rejected; small ones, which Pillow does not open, are looked at as closely."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.image_files import png_chunk, png_with
from tf_image_classification import image_limits
from tf_image_classification.build_tfrecords import images, part_file, png_file, signature, small_png
from tf_image_classification.build_tfrecords.worker_messages import ChunkImage, ClassLabel, ImageChunk
from tf_image_classification.data.sources import ImageRoots

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
def test_small_pngs_are_seen_together_as_pillow_sees_each(mode):
    sizes = [(28, 28), (1, 1), (128, 128), (63, 63), (64, 28), (5, 90), (28, 28), (16, 16), (28, 28)]
    files = [encoded(noise(size, mode, seed=number)) for number, size in enumerate(sizes)]
    pictures = [small_png.read(data, image_limits.DEFAULT, 0) for data in files]
    prepared = [images.prepare(data) for data in files]
    assert [(picture.width, picture.height) for picture in pictures] == sizes
    for scaled, expected in zip(small_png.scaled(pictures), prepared, strict=True):
        assert np.array_equal(scaled, expected.scaled)


def test_a_small_png_is_one_that_goes_into_shards_as_it_is():
    limits, grey = image_limits.DEFAULT, encoded(Image.new("L", (28, 20), 90))
    others = {
        "too large": encoded(Image.new("L", (129, 128), 90)),
        "turned": png_with(grey, png_chunk(b"eXIf", _turned())),
        "transparent": png_with(grey, png_chunk(b"tRNS", b"\0\1")),
        "16 bits": encoded(Image.new("I;16", (28, 20))),
        "palette": encoded(Image.new("P", (28, 20))),
        "interlaced": png(b"\0" * stream_bytes(28, 28, 8, 0, 1), 28, 28, interlace=1),
        "damaged metadata": png_with(grey, png_chunk(b"tEXt", b"Title\0x", crc=1)),
        "rows end early": png(b"\0" * (28 * 29 - 1), 28, 28),
        "damaged stream": grey.replace(zlib.compress(b"")[:2], b"\0\0"),
        "JPEG": b"\xff\xd8\xff",
        "nothing": b"",
    }
    assert small_png.read(grey, limits, 0) and small_png.read(grey, limits, 20)
    assert small_png.read(png_with(grey, png_chunk(b"tEXt", b"Title\0x")), limits, 0)
    assert {kind for kind, data in others.items() if small_png.read(data, limits, 0)} == set()
    assert small_png.read(grey, limits, 19) is None
    assert small_png.read(grey, image_limits.ImageLimits(max_pixels=28 * 20 - 1), 0) is None


def test_damage_among_small_pngs_is_found_as_in_any_other(tmp_path):
    generator, kinds = random.Random(2), Counter()
    whole = [encoded(noise((28, 28), "RGB", seed=number % 7)) for number in range(320)]
    files = [_damaged(data, generator) if number % 9 == 0 else data for number, data in enumerate(whole)]
    paths = [tmp_path / f"{number}.png" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    label, roots = (ClassLabel(0, "a"),), ImageRoots(None, str(tmp_path))
    for begin in range(0, len(paths), 32):
        chunk = ImageChunk(
            "train",
            ("label",),
            tuple(ChunkImage(str(path), path.name, label, False) for path in paths[begin:][:32]),
            roots,
        )
        records: list[bytes] = []
        part = part_file.check(chunk, records.append)
        written = iter(zip(records, part.looks, strict=True))
        for path, result in zip(paths[begin:], part.images, strict=False):
            try:
                expected = images.prepare(path.read_bytes())
            except images.RejectedImage as rejection:
                assert result == (str(path), str(rejection))
                kinds[str(rejection)] += 1
                continue
            record, look = next(written)
            assert expected.data in record and look.signature == signature.of_all([expected.scaled])[0]
        assert next(written, None) is None
    assert kinds["corrupt image"] > 5 and kinds["truncated image"] > 5


def test_signatures_of_small_pictures_are_the_same_alone_and_among_others():
    pictures = [signature.scaled_picture(noise((28, 28), "L", seed)) for seed in range(40)]
    coloured = signature.scaled_picture(noise((28, 28), "RGB", seed=50))
    together = signature.of_all(pictures)
    assert together == signature.of_all([*pictures, coloured])[:-1]
    assert together == [signature.of_all([picture])[0] for picture in pictures]


def _damaged(data: bytes, generator: random.Random) -> bytes:
    """A PNG whose stream has another filter type, another bit or an early end."""
    rows = bytearray(zlib.decompress(data[data.index(b"IDAT") + 4 : -16]))
    kind = generator.randrange(3)
    if kind == 0:
        rows[generator.randrange(28) * 85] = 9
    stream = bytearray(zlib.compress(rows if kind < 2 else rows[: generator.randrange(len(rows))]))
    if kind == 1:
        stream[generator.randrange(len(stream))] ^= 1 << generator.randrange(8)
    return data[:33] + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")
