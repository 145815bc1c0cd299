"""Which PNGs are put on white: those with alpha or one transparent colour, whatever bytes are before it."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_image_classification import preprocessing

KEY = (9, 200, 90)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (6, 4), KEY + (0,) * (mode == "RGBA")).save(file, "PNG", **options)
    return file.getvalue()


def with_profile(data: bytes, size: int) -> bytes:
    """With a chunk of metadata behind the header, of bytes that no UTF-8 has; its text is left out by decoders."""
    body = b"Comment\0" + bytes(random.Random(size).choices(range(128, 256), k=size))
    return data[:33] + chunk(b"tEXt", body) + data[33:]


@pytest.mark.parametrize("size", [0, 1, 700, 15_000])
def test_one_transparent_colour_is_white_whatever_is_before_it(size):
    pixels = Image.new("RGB", (6, 4), KEY)
    pixels.putpixel((0, 0), (1, 2, 3))  # a picture of transparent pixels alone is refused
    file = io.BytesIO()
    pixels.save(file, "PNG", transparency=KEY)
    shown = preprocessing.decode(tf.constant(with_profile(file.getvalue(), size))).numpy()
    assert tuple(shown[0, 0]) == (1, 2, 3) and (shown[1:] == 255).all()


@pytest.mark.parametrize("size", [0, 1, 700, 15_000])
def test_an_opaque_picture_keeps_its_colours_whatever_bytes_it_has(size):
    shown = preprocessing.decode(tf.constant(with_profile(png(), size))).numpy()
    assert np.array_equal(shown, np.full((4, 6, 3), KEY, np.uint8))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_found_by_the_colour_type(mode):
    pixels = Image.new(mode, (6, 4), 0)
    pixels.putpixel((2, 1), (70, 255) if mode == "LA" else (70, 70, 70, 255))
    file = io.BytesIO()
    pixels.save(file, "PNG")
    shown = preprocessing.decode(tf.constant(file.getvalue())).numpy()
    assert tuple(shown[1, 2]) == (70, 70, 70) and (shown == 255).all(axis=2).sum() == 23


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"tRNS" * 100, b"\x89PNG\r\n\x1a\n" + b"tRNS" * 100])
def test_what_is_no_image_is_an_error(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessing.decode(tf.constant(content))
