"""libjpeg's warnings, which Pillow and TensorFlow hide, reject an image unless they are about no pixel."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from tests.build_tfrecords import image_files
from tf_image_classification.build_tfrecords import images

VISIBLE = 8  # mean difference of a 16x16 tile, of 255


def photo(number: int = 0, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth shapes with a little noise, which a JPEG codes as it codes a photo."""
    random_numbers = np.random.default_rng(number)
    small = Image.fromarray(random_numbers.integers(0, 255, (9, 12, 3)).astype("uint8"))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((pixels + random_numbers.normal(0, 6, pixels.shape)).clip(0, 255).astype("uint8"))


def encode(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


CODINGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 8},
    "4:4:4": {"subsampling": 0},
    "RGB": {"keep_rgb": True},
    "optimized": {"optimize": True},
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_part_of_the_blocks_closed_by_an_end_marker_is_rejected(coding: str) -> None:
    whole = encode(photo(), **CODINGS[coding])
    begin = image_files.coded_begin(whole)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(images.RejectedImage, match="corrupt JPEG data"):
            images.prepare(whole[: begin + int(share * (len(whole) - begin))].rstrip(b"\xff") + b"\xff\xd9")


def test_cmyk_and_turned_jpegs_are_checked_as_well() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for whole in (encode(photo().convert("CMYK")), encode(photo(), exif=exif), encode(photo().convert("L"))):
        images.prepare(whole)
        with pytest.raises(images.RejectedImage, match="corrupt JPEG data: premature end of data segment"):
            images.prepare(whole[: len(whole) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("coding", CODINGS)
def test_what_changes_no_pixel_is_stored(coding: str) -> None:
    whole = encode(photo(), **CODINGS[coding])
    table = whole.index(b"\xff\xdb")
    for harmless in (
        whole,
        whole + b"the trailer of a camera",
        whole[:-2] + bytes(100) + b"\xff\xd9",
        whole[:-2] + b"\xff" * 9 + b"\xff\xd9",
        whole[:table] + b"\0\0" + whole[table:],
        whole.replace(b"JFIF\0\1", b"JFIF\0\0"),
    ):
        assert images.prepare(harmless).data == harmless


def test_an_odd_header_does_not_hide_damage() -> None:
    whole = encode(photo()).replace(b"JFIF\0\1", b"JFIF\0\0")
    with pytest.raises(images.RejectedImage, match="premature end"):
        images.prepare(whole[: len(whole) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("length", [16, 64, 512])
def test_a_short_hole_of_zeros_is_seen_wherever_it_is(length: int) -> None:
    whole = encode(photo())
    begin = image_files.coded_begin(whole)
    for place in range(begin, len(whole) - length - 2, (len(whole) - begin) // 9):
        with pytest.raises(images.RejectedImage, match="a hole of zeros"):
            images.prepare(whole[:place] + bytes(length) + whole[place + length :])


def test_flat_pictures_are_no_holes() -> None:
    for picture in (Image.new("RGB", (400, 300), "white"), Image.new("L", (400, 300))):
        for options in ({}, {"optimize": True}, {"progressive": True}):
            whole = encode(picture, **options)
            assert images.prepare(whole).data == whole


def test_a_hole_in_the_quantization_tables_is_seen() -> None:
    whole = bytearray(encode(photo()))
    table = whole.index(b"\xff\xdb")
    whole[table + 30 : table + 40] = bytes(10)
    with pytest.raises(images.RejectedImage, match="corrupt image"):
        images.prepare(bytes(whole))


def test_the_shares_of_visible_damage_that_docs_data_md_states_are_caught() -> None:
    """There 1,400 photos were damaged; here the bounds are a little lower, for a few made up."""
    dice = random.Random(5)
    caught = {damage: [0, 0] for damage in ("cut", "zeros", "inserted", "byte")}
    for number in range(12):
        whole = encode(photo(number))
        begin = image_files.coded_begin(whole)
        original = np.asarray(Image.open(io.BytesIO(whole)), np.int16)
        for damage, counts in caught.items():
            for _ in range(8):
                data = bytearray(whole)
                place = dice.randrange(begin, len(whole) - 2)
                if damage == "cut":
                    del data[place : min(place + dice.randrange(1, 2048), len(whole) - 2)]
                elif damage == "zeros":
                    end = min(place + dice.randrange(16, 2048), len(whole) - 2)
                    data[place:end] = bytes(end - place)
                elif damage == "inserted":
                    data[place:place] = dice.randbytes(dice.randrange(1, 64))
                else:
                    data[place] = dice.randrange(256)
                if not _visible(original, bytes(data)):
                    continue
                counts[1] += 1
                try:
                    images.prepare(bytes(data))
                except images.RejectedImage:
                    counts[0] += 1
    assert all(visible > 20 for _, visible in caught.values()), caught
    for damage, least in {"cut": 0.95, "zeros": 0.97, "inserted": 0.5, "byte": 0.05}.items():
        assert caught[damage][0] >= least * caught[damage][1], caught


def _visible(original: np.ndarray, data: bytes) -> bool:
    try:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    except Exception:
        return False  # not this test's: no decoder reads it
    height, width = (side // 16 * 16 for side in original.shape[:2])
    difference = np.abs(pixels - original)[:height, :width].mean(-1)
    return difference.reshape(height // 16, 16, width // 16, 16).mean((1, 3)).max() > VISIBLE
