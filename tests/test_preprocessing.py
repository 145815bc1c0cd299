from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import preprocessing


def gradient(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row, whose green is the column, and whose blue is constant."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 / max(height - 1, 1), columns * 255 / max(width - 1, 1), np.full((height, width), 90)], -1
    ).astype("uint8")


def seed(number: int = 0) -> tf.Tensor:
    return tf.constant([7, number], tf.int64)


@pytest.mark.parametrize(
    "encode", [tf.io.encode_png, lambda image: tf.io.encode_jpeg(image, quality=100)], ids=["png", "jpeg"]
)
def test_a_random_crop_is_a_part_of_the_image_that_its_seed_decides(encode):
    encoded = encode(gradient(120, 160))
    parts = [preprocessing.decode_random_crop(encoded, 64, 64, seed(number)).numpy() for number in range(20)]
    again = preprocessing.decode_random_crop(encoded, 64, 64, seed(3)).numpy()
    assert np.array_equal(parts[3], again)
    assert len({part.shape for part in parts}) > 10
    for part in parts:
        height, width, channels = part.shape
        assert channels == 3
        assert 0.04 <= height * width / (120 * 160) <= 1.0
        assert 0.7 <= width / height <= 1.4
        # Rows and columns follow each other as in the whole.
        assert abs((part[-1, 0, 0].astype(float) - part[0, 0, 0]) * 119 / 255 - (height - 1)) < 4


def test_a_jpeg_crop_is_decoded_at_a_fraction_when_it_is_much_larger_than_the_network_takes():
    encoded = tf.io.encode_jpeg(gradient(1600, 1600))
    for number in range(10):
        part = preprocessing.decode_random_crop(encoded, 32, 32, seed(number))
        assert 32 <= min(part.shape[:2]) < 1600 // 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_tiny_images_go_through_every_preprocessing(shape):
    encoded = tf.io.encode_jpeg(gradient(*shape))
    for name, kind in preprocessing.PREPROCESSINGS.items():
        extra = () if name == "unit" else (seed(),)
        decoded = kind.decode_fn(encoded, 16, 16, seed())
        assert kind.train_fn(decoded, 16, 16, *extra).shape == (16, 16, 3)
        assert kind.eval_fn(preprocessing.decode(encoded), 16, 16).shape == (16, 16, 3)


def test_grey_images_become_three_equal_channels():
    encoded = tf.io.encode_jpeg(gradient(30, 30)[..., :1])
    image = preprocessing.decode_random_crop(encoded, 16, 16, seed()).numpy()
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3, 1.5])
def test_saturation_equals_tensorflows_own(factor):
    image = tf.constant(np.random.default_rng(0).uniform(0, 1, (20, 20, 3)).astype("float32"))
    ours = preprocessing._saturate(image, tf.constant(factor))
    np.testing.assert_allclose(ours, tf.image.adjust_saturation(image, factor), atol=2e-6)


def test_inception_training_stays_in_range_varies_with_the_seed_and_repeats():
    image = tf.constant(gradient(50, 70))
    results = [preprocessing.inception_training(image, 32, 32, seed(number)).numpy() for number in range(12)]
    for result in results:
        assert result.dtype == np.float32
        assert result.min() >= -1.0
        assert result.max() <= 1.0
    assert len({result.tobytes() for result in results}) == 12
    assert np.array_equal(results[5], preprocessing.inception_training(image, 32, 32, seed(5)))
    flipped = [result[:, 0, 1].mean() > result[:, -1, 1].mean() for result in results]
    assert any(flipped) and not all(flipped)


def test_inception_evaluation_is_slims_formula():
    image = gradient(64, 96)
    cropped = tf.image.central_crop(tf.image.convert_image_dtype(image, tf.float32), 0.875)
    expected = (tf.compat.v1.image.resize_bilinear(cropped[None], [40, 40], align_corners=False)[0] - 0.5) * 2
    np.testing.assert_allclose(preprocessing.inception_evaluation(tf.constant(image), 40, 40), expected, atol=1e-5)


def test_vgg_evaluation_is_the_centre_of_the_image_scaled_to_a_short_side_of_256():
    image = gradient(300, 400)
    scaled = tf.compat.v1.image.resize_bilinear(tf.cast(image, tf.float32)[None], [256, 341], align_corners=False)[0]
    expected = scaled[16:240, 58:282] - np.array(preprocessing.VGG_MEAN_RGB, "float32")
    np.testing.assert_allclose(preprocessing.vgg_evaluation(tf.constant(image), 224, 224), expected, atol=2.0)


def test_vgg_training_crops_and_repeats():
    image = tf.constant(gradient(300, 400))
    first, second = (preprocessing.vgg_training(image, 96, 96, seed(number)).numpy() for number in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, preprocessing.vgg_training(image, 96, 96, seed(1)))


def test_unit_spans_minus_one_to_one():
    result = preprocessing.unit(tf.constant([[[0, 0, 0], [255, 255, 255]]], tf.uint8), 2, 1).numpy()
    np.testing.assert_allclose(result, [[[-1, -1, -1], [1, 1, 1]]])
