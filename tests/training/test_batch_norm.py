"""The statistics that batch normalisation is evaluated and exported with."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.support import equal, train, weights_at
from tf_image_classification import built_in_estimator, checkpoints, nets
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.training import batch_norm, build, layer_modes, stages

HEAD = "Small/Logits"


@pytest.fixture
def slow_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the network `small` one whose moving averages decay as slowly as those of slim's networks."""
    build = nets.build

    def build_slow(model_name: str, **arguments: Any) -> keras.Model:
        model = build(model_name, **arguments)
        for layer in layer_modes.batch_norms(model):
            layer.momentum = 0.9997
        return model

    monkeypatch.setattr(nets, "build", build_slow)


def exported(outcome) -> dict[str, np.ndarray]:
    with checkpoints.read(outcome.export_dir) as weights:
        return {name: weights[name] for name in weights}


def test_the_statistics_are_those_of_all_images_together() -> None:
    images = keras.Input((5, 5, 3))
    norm = keras.layers.BatchNormalization(momentum=0.9997)
    model = keras.Model(images, norm(images))
    pixels = np.random.default_rng(1).normal([3.0, -1.0, 0.0], [2.0, 0.5, 1.0], (12, 5, 5, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(12))).batch(4)
    count = batch_norm.Reestimation(model, [norm], lambda: batches, tf.distribute.get_strategy())()
    assert count == 12
    assert np.allclose(norm.moving_mean.numpy(), pixels.mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(norm.moving_variance.numpy(), pixels.var((0, 1, 2)), rtol=1e-4)
    assert norm.momentum == 0.9997


def test_a_re_estimation_uses_up_no_random_number_and_changes_no_other_layer() -> None:
    images = keras.Input((5, 5, 3))
    kept, changed = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    dropout = keras.layers.Dropout(0.5)
    model = keras.Model(images, changed(dropout(kept(images))))
    pixels = tf.random.stateless_normal([8, 5, 5, 3], [1, 2], 3.0)
    batches = tf.data.Dataset.from_tensor_slices((pixels, tf.zeros(8))).batch(4)
    before = [variable.numpy() for variable in [*kept.variables, *dropout.variables]]
    batch_norm.Reestimation(model, [changed], lambda: batches, tf.distribute.get_strategy())()
    after = [variable.numpy() for variable in [*kept.variables, *dropout.variables]]
    assert all(np.array_equal(left, right) for left, right in zip(before, after, strict=True))
    assert np.allclose(changed.moving_mean.numpy(), pixels.numpy().mean((0, 1, 2)), rtol=0.01)


@pytest.mark.slow
def test_a_short_training_evaluates_and_exports_re_estimated_statistics_and_keeps_its_own_in_checkpoints(
    built_data, training_flags, tmp_path, slow_norms, caplog
) -> None:
    caplog.set_level(logging.INFO)
    auto, original = (
        train(built_data, training_flags(model_dir=str(tmp_path / mode), batch_norm=mode, train_steps=12, eval_freq=9))
        for mode in ("auto", "original")
    )
    assert equal(weights_at(auto.model_dir), weights_at(original.model_dir))
    assert auto.metrics["loss"] != original.metrics["loss"]
    ours, theirs = exported(auto), exported(original)
    assert {name for name in ours if not np.array_equal(ours[name], theirs[name])} == {
        name for name in ours if re.search(r"moving_|vars/[23]$", name) and "BatchNorm" in name
    }
    assert re.search(r"re-estimated the statistics of 4 layers on 32 training images in [\d.]+ s", caplog.text)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("100 % of the moving statistics at step 12" in text and "--batch_norm auto" in text for text in warnings)


class KerasNorms(EstimatorSpec):
    """Someone's own model, with Keras's momentum of 0.99; `graph`: of the functional API, or a class of its own."""

    graph = True

    def get_preproc_fn(self, is_training):
        return lambda image, width, height: tf.image.resize(image, (height, width)) / 255.0

    def get_model_fn(self, checkpoint_path):
        def model_fn(params):
            layers = [
                keras.layers.Conv2D(4, 3, strides=2, name="conv"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.GlobalAveragePooling2D(name="pool"),
                keras.layers.Dense(params.num_classes, name="head"),
            ]
            if self.graph:
                return keras.Sequential([keras.Input((params.image_size, params.image_size, 3)), *layers], name="own")
            model = Chain(layers)
            model(tf.zeros((1, params.image_size, params.image_size, 3)))
            return model

        return model_fn

    def metric_ops(self, labels, predictions):
        return {}


class Chain(keras.Model):
    def __init__(self, layers):
        super().__init__(name="chain")
        self.parts = layers

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x, training=training) if part.name == "norm" else part(x)
        return x


@pytest.mark.parametrize("graph", [True, False], ids=["functional", "subclass"])
def test_a_training_that_is_too_short_for_the_decay_is_told_so_in_numbers(graph, built_data, training_flags, caplog):
    spec = KerasNorms()
    spec.graph = graph
    flags = training_flags(train_steps=20, batch_norm="original")
    state = build.build(prepared(spec, built_data, flags), built_data, flags)
    layers, start = stages.batch_norm_start(state.model, state.stages)
    policy = batch_norm.BatchNormPolicy("original", layers, start, 1, False, pytest.fail)
    with policy.applied(20):
        pass
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "82 % of the moving statistics at step 20" in message  # 0.99^20 = 0.818
    assert "20 updates with a decay (momentum) of 0.99 leave 0.99^20" in message
    assert "--batch_norm auto re-estimates them" in message
    assert "train for 459 steps, or give the layers a momentum of at most 0.794" in message  # 0.99^459, 0.794^20: 0.01
    caplog.clear()
    with policy.applied(200):  # 0.99^200 = 0.13
        pass
    assert not caplog.records
    assert batch_norm.BatchNormPolicy("original", layers, start, 2, False, pytest.fail).share_of_initial(
        10
    ) == pytest.approx(policy.share_of_initial(20))


def prepared(spec, data, flags):
    spec.flags = flags
    spec.set_default_class_dict(data.tasks)
    return spec


@pytest.mark.parametrize(("batch_size", "warned"), [(1, True), (3, True), (4, False)])
def test_batches_that_are_too_small_for_their_statistics_are_warned_of(
    batch_size, warned, built_data, training_flags, caplog
):
    train(built_data, training_flags(train_steps=1, batch_size=batch_size))
    assert (f"by the statistics of {batch_size} images at a time" in caplog.text) == warned


def test_own_layers_of_batch_normalisation_are_re_estimated_too(built_data, training_flags, caplog):
    caplog.set_level(logging.INFO)
    train(built_data, training_flags(train_steps=6), KerasNorms())
    assert "re-estimated the statistics of 1 layers" in caplog.text


def test_a_training_that_is_long_enough_for_the_decay_keeps_its_moving_averages(built_data, training_flags, caplog):
    caplog.set_level(logging.INFO)
    train(built_data, training_flags(train_steps=50))  # 0.9^50 = 0.005
    assert "re-estimated" not in caplog.text
    assert "moving statistics" not in caplog.text


def test_layers_that_are_not_trained_keep_the_statistics_of_the_checkpoint(built_data, training_flags, tmp_path):
    first = train(built_data, training_flags(model_dir=str(tmp_path / "first")))
    flags = training_flags(
        checkpoint_path=first.export_dir, checkpoint_exclude_scopes=HEAD, trainable_scopes=HEAD, train_steps=20
    )
    head = exported(train(built_data, flags))
    start = exported(first)
    changed = {name for name in start if not np.array_equal(start[name], head[name])}
    assert changed
    assert all("Logits" in name for name in changed)


def test_frozen_trains_scales_and_offsets_on_the_statistics_of_the_checkpoint(built_data, training_flags, tmp_path):
    first = train(built_data, training_flags(model_dir=str(tmp_path / "first"), batch_norm="original"))
    flags = training_flags(checkpoint_path=first.export_dir, batch_norm="frozen", train_steps=5, learning_rate=0.01)
    before, after = weights_at(first.model_dir), weights_at(train(built_data, flags).model_dir)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.rpartition("/")[2] for name in changed} == {"weights", "biases", "gamma", "beta"}


def test_frozen_from_scratch_is_warned_of(built_data, training_flags, caplog):
    train(built_data, training_flags(batch_norm="frozen", train_steps=2))
    assert "--batch_norm frozen without --checkpoint_path" in caplog.text


def test_the_gap_between_the_splits_is_recorded_with_the_model(built_data, training_flags):
    outcome = train(built_data, training_flags(train_steps=12, eval_freq=2))
    facts = json.loads(Path(outcome.export_dir, "model.json").read_text())
    assert facts["train_metrics"].keys() == facts["metrics"].keys()
    assert facts["scored_examples"] == {"train": 16, "eval": 16}
    assert facts["metrics"] == outcome.metrics


def test_the_endless_images_of_an_own_input_fn_are_read_up_to_the_limit(built_data, training_flags):
    class Endless(built_in_estimator.BuiltInEstimator):
        def input_fn(self, data, *, is_training, **options):
            batches = super().input_fn(data, is_training=is_training, **options)
            return lambda: batches().repeat() if is_training else batches()

    outcome = train(built_data, training_flags(train_steps=3), Endless())
    facts = json.loads(Path(outcome.export_dir, "model.json").read_text())
    assert "train_metrics" not in facts  # what it reads is the spec's own matter
