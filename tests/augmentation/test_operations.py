"""The operations on pixels, compared with those of the Python Imaging Library, after which they are named."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tf_image_classification.augmentation import operations
from tf_image_classification.augmentation.operations import OPERATIONS, Ranges

RANGES = Ranges(degrees=30, shear=0.3, shift=0.25, factors=(0.1, 1.9), bits=4, threshold=0)
NAMES = [operation.__name__ for operation in OPERATIONS]


def photo(height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth picture, 20 to 220, with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows / height * 180 + 20, columns / width * 180 + 20, (rows + columns) * 2 + 20.0], -1)
    return np.clip(smooth + np.random.default_rng(1).normal(0, 8, smooth.shape), 20, 220).round().astype("uint8")


def run(name: str, image: np.ndarray, amount: float, ranges: Ranges = RANGES) -> np.ndarray:
    operation = getattr(operations, name)
    return operation(tf.constant(image, tf.float32), tf.constant(amount), ranges).numpy()


@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_keeps_shape_and_range(name, amount):
    for image in (photo(), np.zeros((9, 7, 3)), np.full((9, 7, 3), 255), photo(1, 2)):
        result = run(name, image, amount)
        assert result.shape == image.shape and result.dtype == np.float32
        assert result.min() >= 0.0 and result.max() <= 255.0


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"auto_contrast", "equalize"}))
def test_an_amount_of_0_leaves_the_image_as_it_is(name):
    np.testing.assert_allclose(run(name, photo(), 0.0), photo(), atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"identity"}))
def test_an_amount_of_1_changes_the_image(name):
    assert np.abs(run(name, photo(), 1.0) - photo()).mean() > 1.0


def test_operations_of_one_strength_equal_pils():
    image = Image.fromarray(photo())
    np.testing.assert_allclose(run("auto_contrast", photo(), 0.0), ImageOps.autocontrast(image), atol=1.01)
    np.testing.assert_array_equal(run("equalize", photo(), 0.0), ImageOps.equalize(image))
    np.testing.assert_array_equal(run("posterize", photo(), 1.0), ImageOps.posterize(image, 4))
    solarized = run("solarize", photo(), 1.0, RANGES._replace(threshold=100))
    np.testing.assert_array_equal(solarized, ImageOps.solarize(image, 100))


@pytest.mark.parametrize(
    ("name", "pil"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("color", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize(("amount", "factor"), [(-1.0, 0.1), (-0.5, 0.55), (1.0, 1.9)])
def test_enhancements_equal_pils(name, pil, amount, factor):
    expected = np.asarray(pil(Image.fromarray(photo())).enhance(factor), "float32")
    np.testing.assert_allclose(run(name, photo(), amount), expected, atol=2.0)
    assert pil is not ImageEnhance.Sharpness or ImageFilter.SMOOTH.filterargs[1] == operations._SMOOTH_SUM


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("shear_x", (1, 0.3, -0.3 * 20, 0, 1, 0)),
        ("shear_y", (1, 0, 0, 0.3, 1, -0.3 * 24)),
        ("translate_x", (1, 0, 12, 0, 1, 0)),
        ("translate_y", (1, 0, 0, 0, 1, 10)),
    ],
)
def test_moved_images_equal_pils_affine_transform(name, matrix):
    image = Image.fromarray(photo())
    expected = image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
    )
    difference = np.abs(run(name, photo(), 1.0) - np.asarray(expected, "float32"))
    assert np.median(difference) <= 1.0  # at the border, PIL does not blend with the fill
    assert (difference > 2.0).mean() < 0.06


def test_a_rotation_is_about_the_centre_in_the_direction_of_its_sign():
    ranges = RANGES._replace(degrees=90)
    np.testing.assert_allclose(run("rotate", photo(40, 40), 1.0, ranges), np.rot90(photo(40, 40)), atol=0.1)
    np.testing.assert_allclose(run("rotate", photo(40, 40), -1.0, ranges), np.rot90(photo(40, 40), -1), atol=0.1)


def test_only_the_chosen_operation_is_applied():
    image = tf.constant(photo(), tf.float32)
    for index, operation in enumerate(OPERATIONS):
        chosen = operations.apply(image, tf.constant(index), tf.constant(0.7), RANGES)
        assert np.array_equal(chosen, operation(image, tf.constant(0.7), RANGES)), operation.__name__
