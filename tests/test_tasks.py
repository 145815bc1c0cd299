"""Tasks of an estimator of one's own: named otherwise than the data's, or a number instead of a class."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import build_tfrecords, evaluate, train_estimator
from tf_image_classification.build_tfrecords import prepare
from tf_image_classification.errors import DataError
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.evaluate.served_model import read_tasks


class OneTask(EstimatorSpec):
    """A linear model on the mean colour; subclasses declare the task."""

    def get_preproc_fn(self, is_training: bool) -> Any:
        return lambda image, width, height: tf.image.resize(tf.cast(image, tf.float32) / 255.0, (height, width))

    def get_model_fn(self, checkpoint_path: str | None) -> Any:
        def model_fn(params: Any) -> keras.Model:
            images = keras.Input((params.image_size, params.image_size, 3))
            pooled = keras.layers.GlobalAveragePooling2D()(images)
            return keras.Model(images, keras.layers.Dense(params.num_classes, name="head")(pooled))

        return model_fn

    def metric_ops(self, labels: Any, predictions: Any) -> dict[str, Any]:
        (entry,) = self.class_dict
        label, predicted = labels[entry["name"]], predictions[entry["name"]]
        if entry["one-hot"]:
            return {"right": tf.equal(tf.argmax(label, -1), predicted["class_id"])}
        return {"error": tf.abs(label - predicted["logits"][:, 0])}


class ClassId(OneTask):
    class_dict = [{"name": "class_id", "depth": 2, "one-hot": True}]


class Brightness(OneTask):
    class_dict = [{"name": "brightness", "depth": 1, "one-hot": False}]


def test_a_spec_that_names_the_only_task_otherwise_trains_exports_and_is_evaluated(
    built_data, image_folder, training_flags, tmp_path
):
    flags = training_flags(optimizer="adam", opt_epsilon=1e-7, train_steps=60)
    outcome = train_estimator.train_and_evaluate(ClassId(), built_data, flags)
    assert outcome.metrics["right"] == 1.0
    assert sorted(os.listdir(outcome.export_dir)) == ["labels.txt", "model.json", "model.keras", "saved_model"]
    tasks = read_tasks(outcome.export_dir)
    assert [(task.name, task.labels) for task in tasks] == [("class_id", ("bright", "dark"))]
    for data in (
        built_data,
        prepare.prepare_evaluation(str(image_folder), tasks, cache_dir=str(tmp_path / "cache"), workers=1),
    ):
        found = evaluate.evaluate(outcome.export_dir, data, str(tmp_path / "evaluation"), batch_size=8, spec=ClassId())
        assert (found["accuracy"], found["user_metrics"]["right"]) == (1.0, 1.0)


@pytest.fixture(scope="module")
def bright_records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Grey images with how bright they are, in the original's TFRecords."""
    folder = tmp_path_factory.mktemp("records")
    paths = {}
    for split, count in (("train", 40), ("eval", 10)):
        paths[split] = str(folder / f"{split}.tfrecord.gz")
        with tf.io.TFRecordWriter(paths[split], "GZIP") as writer:
            for number in range(count):
                level = int(255 * number / count)
                image = tf.io.encode_jpeg(tf.fill([8, 8, 3], tf.constant(level, tf.uint8))).numpy()
                feature = {
                    "image_bytes": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "brightness": tf.train.Feature(float_list=tf.train.FloatList(value=[level / 255 * 4 - 1])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return paths


def test_a_number_is_learnt_served_and_measured(bright_records, training_flags, tmp_path):
    data = build_tfrecords.build(
        bright_records["train"], str(tmp_path / "data"), eval_metadata=bright_records["eval"], workers=1
    )
    flags = training_flags(optimizer="adam", opt_epsilon=1e-7, train_steps=300, eval_freq=50)
    outcome = train_estimator.train_and_evaluate(Brightness(), data, flags)
    assert outcome.metrics["error"] < 0.1
    assert outcome.metrics["loss"] < 0.02  # the mean squared error
    served = tf.saved_model.load(os.path.join(outcome.export_dir, "saved_model")).signatures["serving_default"]
    white = tf.io.encode_png(tf.fill([8, 8, 3], tf.constant(255, tf.uint8)))
    np.testing.assert_allclose(served(image_bytes=tf.stack([white]))["scores"], [[3.0]], atol=0.2)
    tasks = read_tasks(outcome.export_dir)
    prepared = prepare.prepare_evaluation(bright_records["eval"], tasks, cache_dir=str(tmp_path / "cache"), workers=1)
    for given in (data, prepared):
        found = evaluate.evaluate(
            outcome.export_dir, given, str(tmp_path / "evaluation"), batch_size=4, spec=Brightness()
        )
        assert found["mean_absolute_error"] == pytest.approx(found["user_metrics"]["error"], rel=1e-5)
        assert found["mean_absolute_error"] < 0.1
    assert json.loads(Path(outcome.export_dir, "model.json").read_text())["tasks"][0]["labels_file"] is None


def test_a_number_cannot_be_learnt_from_classes(built_data, training_flags):
    with pytest.raises(DataError, match="brightness as a number, but the data has classes"):
        train_estimator.train_and_evaluate(Brightness(), built_data, training_flags())
