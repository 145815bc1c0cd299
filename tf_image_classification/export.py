"""Exports a model folder: the SavedModel that is served and evaluated, the Keras model, labels and model.json.

`model_folder` documents the folder, and reads it without TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import model_folder, preprocessing, request_check, storage, versions
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import TrainingError
from tf_image_classification.model_folder import (
    CLASSES,
    FACTS,
    INPUT,
    KERAS_MODEL,
    SAVED_MODEL,
    SCORES,
    SIGNATURE,
    output_prefix,
)
from tf_image_classification.nets import scoped_names

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec

_log = logging.getLogger(__name__)

# Decoded at the same time: 32 photographs of 12 megapixels, or two of the largest images.
_PIXELS_AT_ONCE, _IMAGES_AT_ONCE, _LARGE_AT_ONCE = 400_000_000, 32, 2
_RECORDED_PACKAGES = ("tf-image-classification", "tensorflow", "tensorflow-cpu", "keras", "numpy")


class Serving(tf.Module):
    """The module that becomes the SavedModel: encoded images in, scores and class names out.

    TensorFlow Serving and Vertex AI call its signature `serving_default`: `image_bytes` string [B] -> `scores` float32
    [B, K] and `classes` string [B, K] in label order; with several tasks `<task>_scores` and `<task>_classes`. Both
    services decode base64 in a JSON request for an input whose name ends in `_bytes`.

    Attributes:
        model_variables: the model's variables; tf.saved_model.save writes what a module's attributes refer to.
    """

    def __init__(
        self, model: keras.Model, preproc_fn: preprocessing.PreprocFn, image_size: int, tasks: Sequence[Task]
    ) -> None:
        """See `export` for the arguments; `preproc_fn` is that of evaluation."""
        super().__init__()
        # Holding the variables, not the Keras model, writes each of them once and keeps Keras out of the SavedModel.
        self.model_variables = [variable.value for variable in model.variables]
        self._predict: Callable[[tf.Tensor], Any] = lambda images: model(images, training=False)
        self._preproc_fn, self._image_size, self._tasks = preproc_fn, image_size, tasks

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=INPUT)])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The serving signature.

        Args:
            image_bytes: string [B], JPEG or PNG of at most `image_limits.MAX_PIXELS` pixels.

        Returns:
            `scores` float32 [B, K]: the softmax of a classification, the logits of a regression; `classes` string
            [B, K]: the class names, the same for each image; of a classification only. With several tasks the task's
            name and '_' stand before each.
        """
        size = self._image_size

        def prepare(encoded: tf.Tensor) -> tf.Tensor:
            image = self._preproc_fn(preprocessing.decode(encoded), size, size)
            return tf.cast(tf.ensure_shape(image, [size, size, 3]), tf.float32)

        def prepared(at_once: int) -> tf.Tensor:
            signature = tf.TensorSpec([size, size, 3], tf.float32)
            return tf.map_fn(prepare, image_bytes, fn_output_signature=signature, parallel_iterations=at_once)

        pixels = tf.map_fn(request_check.check, image_bytes, fn_output_signature=tf.float64)
        few = tf.reduce_sum(pixels) <= _PIXELS_AT_ONCE
        images = tf.cond(few, lambda: prepared(_IMAGES_AT_ONCE), lambda: prepared(_LARGE_AT_ONCE))
        outputs = self._predict(images)
        by_task = outputs if isinstance(outputs, dict) else {self._tasks[0].name: outputs}
        response = {}
        for task in self._tasks:
            logits = tf.cast(by_task[task.name], tf.float32)
            prefix = output_prefix(task.name, len(self._tasks))
            if task.labels:
                response[prefix + SCORES] = tf.nn.softmax(logits)
                labels = tf.constant(list(task.labels))
                response[prefix + CLASSES] = tf.tile(labels[tf.newaxis], [tf.shape(image_bytes)[0], 1])
            else:
                response[prefix + SCORES] = logits
        return response


def export(
    model: keras.Model,
    spec: EstimatorSpec,
    tasks: Sequence[Task],
    folder: str,
    facts: dict[str, Any],
    image_size: int,
) -> None:
    """Writes a model folder; one that is there is replaced when all of the new one is written.

    Args:
        model: images float32 [B, image_size, image_size, 3] -> logits; computes in float32.
        spec: gives the preprocessing of evaluation, which becomes part of the SavedModel.
        tasks: the model's tasks, with the class names in the order of its logits.
        folder: local, mounted or gs:// path.
        facts: further entries of model.json.
        image_size: height and width of the model's input in pixels.

    Raises:
        TrainingError: the SavedModel cannot be written, for example because the disk is full.
    """
    labels_files = {
        task.name: manifest.LABELS_FILE if len(tasks) == 1 else task.labels_file for task in tasks if task.labels
    }
    with storage.replacing_dir(folder, FACTS) as staging:
        serving = Serving(model, spec.get_preproc_fn(False), image_size, tasks)
        try:
            tf.saved_model.save(serving, os.path.join(staging, SAVED_MODEL), signatures={SIGNATURE: serving.serve})
        except tf.errors.OpError as error:
            raise TrainingError(
                f"The model cannot be written to {folder}",
                received=str(error).splitlines()[0],
                hint="Free disk space and run again: training is finished and its checkpoint is kept.",
            ) from error
        model.save(os.path.join(staging, KERAS_MODEL))
        for task in tasks:
            if task.labels:
                manifest.write_labels(os.path.join(staging, labels_files[task.name]), task.labels)
        content = {
            "format": 1,
            "tasks": [_describe(task, labels_files.get(task.name)) for task in tasks],
            "image_size": image_size,
            "digest": digest(model, tasks, image_size),
            **facts,
            "files": model_folder.hashes(staging),
            "versions": versions.installed(*_RECORDED_PACKAGES),
        }
        storage.write_text(os.path.join(staging, FACTS), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _log.info("Exported the model to %s", folder)


def digest(model: keras.Model, tasks: Sequence[Task], image_size: int) -> str:
    """Identifies what a model computes: equal for equal weights, classes and image size, and only for these.

    Returns:
        Hexadecimal SHA-256 of the image size, the tasks' class names, and each weight's name, dtype, shape and bytes.
    """
    sha256 = hashlib.sha256(json.dumps([image_size, [[task.name, task.labels] for task in tasks]]).encode())
    for name, variable in scoped_names(model).items():
        value = variable.numpy()
        sha256.update(json.dumps([name, value.dtype.name, value.shape]).encode())
        sha256.update(value.tobytes())
    return sha256.hexdigest()


def _describe(task: Task, labels_file: str | None) -> dict[str, Any]:
    """A task's entry in model.json."""
    return {
        "name": task.name,
        "labels_file": labels_file,
        "num_classes": len(task.labels),
        "one_hot": bool(task.labels),
    }
