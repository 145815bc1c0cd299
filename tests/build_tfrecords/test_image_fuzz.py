"""Damaged images of every kind: each is rejected with a reason, or TensorFlow reads from it what Pillow does."""

from __future__ import annotations

import collections
import io
import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.image_kinds import KINDS
from tf_image_classification import preprocessing
from tf_image_classification.build_tfrecords import images, jpeg_file

# Mean of 255, on noise: TensorFlow's default for JPEGs is libjpeg's fast DCT, Pillow's the accurate one.
FAST_DCT = 2.0
LONGEST_REASON = 80


def damaged(whole: bytes, dice: random.Random) -> bytes:
    """One to three changes: bits, bytes, runs of zeros, cuts, insertions, repetitions, an early end."""
    data = bytearray(whole)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        place, length = dice.randrange(len(data) + 1), dice.choice((1, 2, 4, 16, 300))
        match dice.randrange(7):
            case 0:
                data[place : place + 1] = bytes(byte ^ (1 << dice.randrange(8)) for byte in data[place : place + 1])
            case 1:
                data[place : place + 1] = bytes([dice.choice((0, 0xFF, 0x7F, dice.randrange(256)))])
            case 2:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = dice.randbytes(length)
            case 5:
                data[place:place] = data[place : place + length]
            case _:
                del data[max(place, 4) :]
    return bytes(data)


def check(data: bytes) -> str:
    """What became of an image: `stored`, `re-encoded`, or `rejected`."""
    try:
        encoded = images.prepare(data)
    except images.RejectedImage as error:
        reason = str(error)
        assert 4 < len(reason) <= LONGEST_REASON, reason
        assert reason.isprintable(), reason
        return "rejected"
    pixels = preprocessing.decode(tf.constant(encoded.data)).numpy().astype(np.int16)
    pillow = np.asarray(Image.open(io.BytesIO(encoded.data)).convert("RGB"), np.int16)
    assert pixels.shape == pillow.shape == (encoded.height, encoded.width, 3)
    if encoded.format == images.JPEG:
        assert np.abs(pixels - pillow).mean() <= FAST_DCT
        pixels = tf.io.decode_jpeg(encoded.data, channels=3, dct_method="INTEGER_ACCURATE").numpy().astype(np.int16)
    np.testing.assert_array_equal(pixels, pillow)
    assert images.thumbnail(encoded.data)
    return "re-encoded" if encoded.reencoded else "stored"


def run(number: int, seed: int) -> collections.Counter[str]:
    """Damages `number` images, of each kind in turn."""
    dice = random.Random(seed)
    wholes = [kind.make() for kind in KINDS if kind.make and kind.file != "large.jpg"]
    outcomes: collections.Counter[str] = collections.Counter()
    for index in range(number):
        data = damaged(wholes[index % len(wholes)], dice)
        try:
            outcomes[check(data)] += 1
        except Exception as error:
            error.add_note(f"image {index} of seed {seed}: {len(data)} bytes, {data[:16]!r}")
            raise
    return outcomes


def test_a_few_hundred_damaged_images_are_read_alike_or_rejected() -> None:
    outcomes = run(600, seed=1)
    assert min(outcomes["rejected"], outcomes["stored"], outcomes["re-encoded"]) > 20, outcomes
    assert outcomes.total() == 600


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_damaged_images_are_read_alike_or_rejected(seed: int) -> None:
    assert run(3000, seed).total() == 3000


def _outcome(data: bytes) -> str | tuple[bytes, int, int]:
    try:
        encoded = images.prepare(data)
    except images.RejectedImage as error:
        return str(error)
    return encoded.data, encoded.height, encoded.width


def test_a_jpeg_of_plain_headers_has_the_outcome_of_one_that_pillow_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(1)
    jpegs = [kind.make() for kind in KINDS if kind.make and kind.file.endswith(".jpg") and kind.file != "large.jpg"]
    pictures = [data for whole in jpegs for data in (whole, *(damaged(whole, dice) for _ in range(100)))]
    # Most of a small JPEG is headers: half of the damage below is in the first hundred bytes.
    pictures += [damaged(jpegs[0][:100], dice) + jpegs[0][100:] for _ in range(800)]
    pictures += [jpegs[0][:length] for length in range(3, 300)]
    end = jpegs[0][-2:]
    pictures += [damaged(jpegs[0][:-2], dice) + end for _ in range(400)]
    pictures += [jpegs[0] + damaged(jpegs[index % 4], dice) + end for index in range(200)]
    plain = [jpeg_file.plain(data) is not None for data in pictures]
    assert 300 < sum(plain) < len(pictures) - 300
    outcomes = [_outcome(data) for data in pictures]
    monkeypatch.setattr(jpeg_file, "plain", lambda data: None)
    assert outcomes == [_outcome(data) for data in pictures]


def test_bytes_of_no_format_are_rejected() -> None:
    dice = random.Random(7)
    beginnings = [kind.make()[:12] for kind in KINDS if kind.make and kind.file != "large.jpg"]
    for index in range(300):
        with pytest.raises(images.RejectedImage):
            images.prepare(beginnings[index % len(beginnings)] + dice.randbytes(dice.randrange(1, 200)))
