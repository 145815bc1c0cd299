"""The two parts of training preprocessing: what the host makes of an image, and the step of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.test_preprocessing import seed
from tf_image_classification import built_in_estimator, preprocessing, slim_preprocessing
from tf_image_classification.preprocessing_parts import InParts, Unfinished

SIZE = 24
GREY_LEVELS = {"inception": 127.5, "unit": 127.5, "tf": 127.5, "torch": 255 * 0.225}  # a unit of values; else 1


def without_rounding(name: str, image: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """A preprocessing in floating point throughout, with TensorFlow's own operations."""
    draws = slim_preprocessing._augmentation_draws(seeds)
    if name == "unit":
        return slim_preprocessing.unit(image, SIZE, SIZE)
    if name == "vgg":
        side = tf.cast(256 + draws[0] * 257, tf.int32)
        window = slim_preprocessing._crop_after_scaling(image, SIZE, SIZE, side, draws[1], draws[2])
        return slim_preprocessing.subtract_mean_rgb(window[:, ::-1] if draws[3] < 0.5 else window)
    if name != "inception":
        kind = preprocessing.PREPROCESSINGS[name]
        return kind.normalize_fn(preprocessing.resize_and_flip(image, SIZE, SIZE, seeds))
    resized = slim_preprocessing.resize(image, SIZE, SIZE) / 255.0
    resized = resized[:, ::-1] if draws[0] < 0.5 else resized
    delta = (draws[1] * 2.0 - 1.0) * 32.0 / 255.0
    if draws[3] < 0.5:
        resized = slim_preprocessing._saturate(resized + delta, 0.5 + draws[2])
    else:
        resized = tf.image.adjust_saturation(resized, 0.5 + draws[2]) + delta
    return tf.clip_by_value(resized * 2.0 - 1.0, -1.0, 1.0)


@pytest.mark.parametrize("name", preprocessing.PREPROCESSINGS)
def test_rounded_pixels_are_within_a_grey_level_of_those_that_are_not(name):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype("uint8"))
    for number in range(6):
        ours = preprocessing.PREPROCESSINGS[name].train_fn(image, SIZE, SIZE, seed(number))
        errors = (ours - without_rounding(name, image, seed(number))).numpy() * GREY_LEVELS.get(name, 1.0)
        assert np.abs(errors).max() <= 1.01
        assert np.abs(errors).mean() < 0.5
        assert abs(errors.mean()) < 0.05  # truncated, they would be half a grey level darker


def spec_of(training_flags, data, spec=None, **values):
    spec = spec or built_in_estimator.BuiltInEstimator()
    spec.flags = training_flags(**{"model_name": "inception_v1", "image_size": 32, **values})
    spec.set_default_class_dict(data.tasks)
    return spec


def inputs_of(spec, data):
    """What the training step reads, and what `input_fn` returns."""
    options = {"batch_size": 8, "image_size": 32, "steps": 2, "first_step": 1, "seed": 3, "shuffle": True}
    return spec.step_input(data, **options)(), spec.input_fn(data, is_training=True, **options)()


@pytest.mark.parametrize("values", [{}, {"augmentation": "light"}])
def test_batches_leave_the_host_as_uint8_and_the_step_makes_those_of_input_fn_of_them(
    built_data, training_flags, values
):
    spec = spec_of(training_flags, built_data, **values)
    unfinished, finished = inputs_of(spec, built_data)
    _, preproc_fn = spec.training_image_fns(spec.flags.augmentation)
    assert isinstance(preproc_fn, InParts)
    for (images, labels), (expected, expected_labels) in zip(unfinished, finished, strict=True):
        assert images.pixels.dtype == tf.uint8
        assert np.array_equal(preproc_fn.finish(images), expected)
        assert np.array_equal(labels["label"], expected_labels["label"])


class OwnPreprocessing(built_in_estimator.BuiltInEstimator):
    """A network of the framework with pixels of the user's."""

    def get_preproc_fn(self, is_training):
        return lambda image, width, height: tf.image.resize(image, (height, width)) / 255.0


@pytest.mark.parametrize(
    ("make_spec", "values"),
    [
        (OwnPreprocessing, {"augmentation": "light"}),
        (None, {"augmentation": "none"}),
        (None, {"mixup": 0.2}),
    ],
)
def test_what_is_a_users_or_needs_other_images_is_finished_on_the_host(built_data, training_flags, make_spec, values):
    spec = spec_of(training_flags, built_data, make_spec and make_spec(), **values)
    step_input, input_fn = inputs_of(spec, built_data)
    for (images, _), (expected, _) in zip(step_input, input_fn, strict=True):
        assert not isinstance(images, Unfinished)
        assert np.array_equal(images, expected)
