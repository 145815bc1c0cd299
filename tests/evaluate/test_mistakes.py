from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_image_classification.evaluate.metrics import rank_predictions
from tf_image_classification.evaluate.mistakes import MAX_MISTAKES, MostConfidentMistakes, thumbnail


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_the_most_confident_mistakes_of_a_set_are_kept_and_of_equal_ones_the_first(batch):
    rng = np.random.default_rng(0)
    top = (rng.integers(55, 70, 200) / 100).astype(np.float32)  # many are equal
    scores = np.stack([top, 1 - top], axis=1)
    ids = rng.integers(-1, 2, 200)  # correct, wrong and not labelled
    kept = MostConfidentMistakes(("ant", "bee"))
    for start in range(0, 200, batch):
        part = slice(start, start + batch)
        names = [str(row) for row in range(start, min(start + batch, 200))]
        images = tf.constant([f"image {name}" for name in names])
        kept.update(ids[part], rank_predictions(ids[part], scores[part]), names, images)
    expected = sorted(np.flatnonzero(ids == 1).tolist(), key=lambda row: (-top[row], row))[:MAX_MISTAKES]
    assert [mistake.filename for mistake in kept.result()] == [str(row) for row in expected]
    assert [mistake.image for mistake in kept.result()] == [f"image {row}".encode() for row in expected]
    assert {(mistake.label, mistake.predicted) for mistake in kept.result()} == {("bee", "ant")}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 400), (160, 80)),
        ((8, 8), (160, 160)),
        ((3, 1), (159, 53)),
        ((100, 120), (100, 120)),
        ((5000, 1), (160, 1)),
    ],
)
def test_a_thumbnail_is_at_most_160_pixels_and_tiny_images_grow_by_whole_pixels(size, expected):
    assert decoded(thumbnail(encoded(Image.new("RGB", size)))).size == expected


@pytest.mark.parametrize(
    "image", [encoded(Image.new("L", (9, 9), 200)), encoded(Image.new("RGB", (900, 90), "red"), "JPEG")]
)
def test_grey_images_and_jpegs_have_thumbnails_too(image):
    assert decoded(thumbnail(image)).mode == "RGB"


def test_an_image_that_pillow_cannot_read_has_no_thumbnail():
    assert thumbnail(b"not an image") is None
    assert thumbnail(encoded(Image.effect_noise((64, 64), 50))[:500]) is None
