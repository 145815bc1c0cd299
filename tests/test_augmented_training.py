"""Trainings with the augmentation flags: resumed ones, those of a user's estimator, and flags without effect."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.test_own_estimator import Counting, changed
from tests.training.support import equal, train, weights_at
from tf_image_classification import built_in_estimator, preprocessing, train_estimator
from tf_image_classification.errors import FlagError

CASES = {
    "original": {"model_name": "inception_v1", "image_size": 32, "crop_area": "0.2,0.6", "crop_aspect": "1,1.5"},
    "light": {"augmentation": "light", "crop_area": "0.5,1"},
    "randaugment": {"augmentation": "randaugment", "mixup": 0.2},
    "trivialaugment": {"augmentation": "trivialaugment", "cutmix": 1.0},
    "none": {"augmentation": "none", "mixup": 0.4, "cutmix": 1.0},
}


def batches_of(data, flags, *, spec=None, first_step=0, steps=6):
    spec = spec or built_in_estimator.BuiltInEstimator()
    spec.flags = flags
    spec.set_default_class_dict(data.tasks)
    dataset = spec.input_fn(
        data, is_training=True, batch_size=8, image_size=flags.image_size, steps=steps, first_step=first_step, seed=7
    )()
    return [(images.numpy(), labels["label"].numpy()) for images, labels in dataset]


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_continues_with_the_same_batches_bit_for_bit(built_data, training_flags, case):
    flags = training_flags(**CASES[case])
    whole, resumed = batches_of(built_data, flags), batches_of(built_data, flags, first_step=2, steps=4)
    for (images, labels), (images_again, labels_again) in zip(whole[2:], resumed, strict=True):
        assert np.array_equal(images, images_again)
        assert np.array_equal(labels, labels_again)
    plain = batches_of(built_data, training_flags(model_name=flags.model_name, image_size=flags.image_size))
    assert not np.array_equal(whole[0][0], plain[0][0]) or case == "none"


@pytest.mark.slow
def test_a_training_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    built_data, training_flags, tmp_path
):
    options = {"augmentation": "trivialaugment", "mixup": 0.2, "cutmix": 1.0}
    whole = train(built_data, training_flags(model_dir=str(tmp_path / "whole"), **options))
    for steps in (3, 6):
        resumed = train(built_data, training_flags(model_dir=str(tmp_path / "resumed"), train_steps=steps, **options))
    assert equal(weights_at(whole.model_dir), weights_at(resumed.model_dir))


def test_none_is_the_preprocessing_of_evaluation(built_data, training_flags):
    flags = training_flags(model_name="inception_v1", image_size=32, augmentation="none")
    kind = preprocessing.PREPROCESSINGS["inception"]
    decode_fn, preproc_fn = spec_with(flags).training_image_fns("none")
    image = tf.io.encode_png(np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype("uint8"))
    decoded = decode_fn(image, 32, 32, tf.constant([1, 2], tf.int64))
    assert np.array_equal(preproc_fn(decoded, 32, 32), kind.eval_fn(decoded, 32, 32))


def spec_with(flags, spec=None):
    spec = spec or built_in_estimator.BuiltInEstimator()
    spec.flags = flags
    return spec


def test_a_built_in_network_gets_its_normalisation_alone_and_an_own_spec_its_preprocessing_of_evaluation(
    training_flags,
):
    seen = []

    def halved(image, width, height):
        seen.append((image.dtype, image.shape))
        return tf.image.central_crop(tf.cast(image, tf.float32), 1.0)[:height, :width] / 2.0

    image = tf.random.stateless_uniform([32, 32, 3], [1, 2], 0, 255)
    flags = training_flags(model_name="inception_v1", image_size=32, augmentation="light")
    np.testing.assert_allclose(spec_with(flags).get_normalize_fn()(image), image / 127.5 - 1.0, atol=1e-5)
    methods = {"get_preproc_fn": lambda self, is_training: halved}
    for spec in (changed(**methods), type("Sub", (built_in_estimator.BuiltInEstimator,), methods)()):
        normalized = spec_with(flags, spec).get_normalize_fn()(image)
        np.testing.assert_allclose(normalized, tf.round(image) / 2.0)
        assert seen.pop() == (tf.uint8, (32, 32, 3))


@pytest.mark.slow
def test_an_own_spec_trains_with_every_augmentation(built_data, training_flags, tmp_path):
    for number, case in enumerate(("light", "randaugment", "trivialaugment", "none")):
        flags = training_flags(model_dir=str(tmp_path / str(number)), train_steps=1, **CASES[case])
        assert np.isfinite(train(built_data, flags, Counting()).metrics["loss"])


def own_input() -> Counting:
    return changed(input_fn=lambda self, data, **options: Counting.input_fn(self, data, **options))


@pytest.mark.parametrize(
    ("options", "make_spec", "message"),
    [
        (
            {"crop_area": "0.5,1"},
            None,
            r"--crop_area has no effect: with --augmentation original.*published training crops by area",
        ),
        ({"crop_area": "0.5,1", "model_name": "vgg_16", "image_size": 224}, None, "--crop_area has no effect"),
        (
            {"crop_area": "0.5,1", "crop_aspect": "1,2", "augmentation": "none"},
            None,
            "--crop_area and --crop_aspect have no effect: with --augmentation none",
        ),
        ({"crop_aspect": "1,2"}, Counting, "--crop_aspect has no effect"),
        ({"mixup": 0.2, "batch_size": 1}, None, "--mixup has no effect.*Received: --batch_size 1"),
        ({"mixup": 0.2, "cutmix": 1.0, "batch_size": 1}, None, "--mixup and --cutmix have no effect"),
        ({"augmentation": "light"}, own_input, "Changed cannot be augmented by flags.*Received: --augmentation light"),
        ({"cutmix": 1.0}, own_input, r"Received: --cutmix 1\.0"),
    ],
)
def test_a_flag_without_effect_is_refused_before_training(built_data, training_flags, options, make_spec, message):
    with pytest.raises(FlagError, match=message):
        train(built_data, training_flags(**options), make_spec and make_spec())


def test_the_command_refuses_before_it_reads_images(image_folder, tmp_path, capsys):
    arguments = ["--train_metadata", str(image_folder), "--model_dir", str(tmp_path / "model"), "--mixup", "0.2"]
    with pytest.raises(SystemExit) as ended:
        train_estimator.main(arguments)
    assert ended.value.code == 2
    assert "--mixup has no effect" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_subclass_that_decodes_by_itself_is_not_cropped_by_flags(training_flags):
    methods = {"get_decode_fn": lambda self, is_training: None}
    spec = type("Sub", (built_in_estimator.BuiltInEstimator,), methods)()
    flags = training_flags(model_name="inception_v1", crop_area="0.5,1")
    assert spec_with(flags, spec).training_crop("original") is None
    assert spec_with(flags).training_crop("original").area == (0.5, 1.0)
