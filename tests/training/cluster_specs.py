"""Estimators for trainings on clusters: networks without batch normalisation, with it, and with one that does in one
process what as many replicas do."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_image_classification.estimator_specs import EstimatorSpec


class NormalisationInParts(keras.layers.BatchNormalization):
    """Normalises each of `parts` equal parts of a batch by itself; its moving statistics are the mean of theirs."""

    parts = 2

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        moving = (self.moving_mean, self.moving_variance)
        before = [tf.identity(variable.value) for variable in moving]
        outputs, after = [], []
        for part in tf.split(inputs, self.parts):
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
            outputs.append(super().call(part, training=True))
            after.append([tf.identity(variable.value) for variable in moving])
        for variable, *values in zip(moving, *after, strict=True):
            variable.assign(tf.add_n(values) / self.parts)
        return tf.concat(outputs, axis=0)


class NormalisationInQuarters(NormalisationInParts):
    parts = 4


class Plain(EstimatorSpec):
    """No batch normalisation."""

    normalisation: type[keras.layers.Layer] | None = None

    def get_preproc_fn(self, is_training: bool) -> Any:
        return lambda image, width, height: tf.image.resize(image, (height, width)) / 127.5 - 1.0

    def get_model_fn(self, checkpoint_path: str | None) -> Any:
        def model_fn(params: Any) -> keras.Model:
            x = images = keras.Input((params.image_size, params.image_size, 3))
            for number in range(2):
                regularizer = keras.regularizers.L2(1e-3)
                x = keras.layers.Conv2D(8, 3, strides=2, name=f"conv{number}", kernel_regularizer=regularizer)(x)
                if self.normalisation is not None:
                    x = self.normalisation(momentum=0.9, name=f"norm{number}")(x)
                x = keras.layers.ReLU()(x)
            x = keras.layers.GlobalAveragePooling2D()(x)
            return keras.Model(images, keras.layers.Dense(params.num_classes, name="head")(x))

        return model_fn

    def metric_ops(self, labels: Any, predictions: Any) -> dict[str, Any]:
        right = tf.equal(tf.argmax(labels["label"], axis=-1), predictions["label"]["class_id"])
        return {"accuracy": tf.cast(right, tf.float32)}


class Normalised(Plain):
    normalisation = keras.layers.BatchNormalization


class NormalisedInParts(Plain):
    normalisation = NormalisationInParts


class NormalisedInQuarters(Plain):
    normalisation = NormalisationInQuarters
