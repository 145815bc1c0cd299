"""What parity tests share: flags, checkpoints as TensorFlow 1 wrote them, data whose images encode their number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import Manifest, Shard, Split, Task
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.flags import Flags

V1, V2 = tf.compat.v1.train.SaverDef.V1, tf.compat.v1.train.SaverDef.V2


def make_flags(**values: object) -> Flags:
    """The training command's flags, validated."""
    return flag_table.validate(values, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])


def save_by_name(values: Mapping[str, np.ndarray], path: Path, version: int = V2) -> str:
    """Writes a checkpoint of TensorFlow 1, variables by name: a single file (V1), or a prefix of several (V2)."""
    saver = tf.compat.v1.train.Saver(
        {name: tf.Variable(value) for name, value in values.items()}, write_version=version
    )
    return str(saver.save(None, str(path), write_meta_graph=False, write_state=False))


def numbered_data(folder: Path, *, train: int, evaluation: int) -> Manifest:
    """Examples 0, 1, 2, ...: all pixels of an image have its number, its label is odd or even."""
    splits = {}
    for split, count in (("train", train), ("eval", evaluation)):
        path = folder / f"{split}-00000-of-00001.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(count):
                image = tf.io.encode_png(np.full((4, 4, 3), number, "uint8")).numpy()
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        splits[split] = Split((Shard(path.name, count, path.stat().st_size, "00000000"),))
    return Manifest((Task("label", ("even", "odd")),), splits, folder=str(folder))


class NumberSpec(EstimatorSpec):
    """A network of one bias whose first logit is the image's number plus that bias; the metric `number` is the number
    itself."""

    def get_preproc_fn(self, is_training: bool) -> Any:
        return lambda image, width, height: tf.image.resize(tf.cast(image, tf.float32), (height, width))

    def get_model_fn(self, checkpoint_path: str | None) -> Any:
        def model_fn(params: Any) -> keras.Model:
            images = keras.Input((params.image_size, params.image_size, 3))
            mean = keras.layers.GlobalAveragePooling2D()(images)
            third = keras.initializers.Constant(1 / 3)
            fixed = keras.layers.Dense(2, use_bias=False, kernel_initializer=third, trainable=False, name="fixed")(mean)
            return keras.Model(images, Bias(name="counter")(fixed))

        return model_fn

    def metric_ops(self, labels: Any, predictions: Any) -> dict[str, Any]:
        return {"number": predictions["label"]["logits"][:, 0]}

    def loss_fn(self, labels: Any, logits: Any) -> tf.Tensor:
        return tf.reduce_mean(logits["label"][:, 0])


class Bias(keras.layers.Layer):
    """Adds one number."""

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + self.bias
