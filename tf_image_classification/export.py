"""The model folder: the SavedModel that is served and evaluated, the Keras model, and what is known about them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import preprocessing, storage, versions
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import TrainingError
from tf_image_classification.model_folder import FACTS, KERAS_MODEL, SAVED_MODEL
from tf_image_classification.nets import scoped_names

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec

_log = logging.getLogger(__name__)

_PACKAGES = ("tf-image-classification", "tensorflow", "tensorflow-cpu", "keras", "numpy")


class Serving(tf.Module):
    """Encoded images in, scores and class names out.

    The signature `image_bytes` string [B] -> `scores` float32 [B, K], `classes` string [B, K] in label order (with
    several tasks `<task>_scores`, `<task>_classes`) is what TensorFlow Serving and Vertex prediction call; an input
    whose name ends in `_bytes` is decoded from base64 by both.
    """

    def __init__(
        self, model: keras.Model, preproc_fn: preprocessing.PreprocFn, image_size: int, tasks: Sequence[Task]
    ) -> None:
        super().__init__()
        # Holding the variables, not the Keras model, writes each of them once and keeps Keras out of the SavedModel.
        self.model_variables = [variable.value for variable in model.variables]
        self._predict: Callable[[tf.Tensor], Any] = lambda images: model(images, training=False)
        self._preproc_fn, self._image_size, self._tasks = preproc_fn, image_size, tasks

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The serving signature."""
        size = self._image_size

        def prepare(encoded: tf.Tensor) -> tf.Tensor:
            image = self._preproc_fn(preprocessing.decode(encoded), size, size)
            return tf.cast(tf.ensure_shape(image, [size, size, 3]), tf.float32)

        images = tf.map_fn(
            prepare, image_bytes, fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32), parallel_iterations=32
        )
        outputs = self._predict(images)
        by_task = outputs if isinstance(outputs, dict) else {self._tasks[0].name: outputs}
        answer = {}
        for task in self._tasks:
            logits = tf.cast(by_task[task.name], tf.float32)
            prefix = "" if len(self._tasks) == 1 else f"{task.name}_"
            if task.labels:
                answer[f"{prefix}scores"] = tf.nn.softmax(logits)
                names = tf.constant(list(task.labels))
                answer[f"{prefix}classes"] = tf.tile(names[tf.newaxis], [tf.shape(image_bytes)[0], 1])
            else:
                answer[f"{prefix}scores"] = logits
        return answer


def export(
    model: keras.Model,
    spec: EstimatorSpec,
    tasks: Sequence[Task],
    folder: str,
    facts: dict[str, Any],
    image_size: int,
) -> None:
    """Writes the model folder: saved_model/, model.keras, labels.txt (one file per task) and model.json.

    Args:
        model: computes in float32.
        folder: replaced as a whole.
        facts: what model.json says besides the tasks and versions.
    """
    labels_files = {
        task.name: manifest.LABELS_FILE if len(tasks) == 1 else task.labels_file for task in tasks if task.labels
    }
    with storage.replacing_dir(folder, FACTS) as aside:
        serving = Serving(model, spec.get_preproc_fn(False), image_size, tasks)
        try:
            tf.saved_model.save(
                serving, os.path.join(aside, SAVED_MODEL), signatures={"serving_default": serving.serve}
            )
        except tf.errors.OpError as error:
            raise TrainingError(
                f"The model cannot be written to {folder}",
                received=str(error).splitlines()[0],
                hint="Make room and run again: the training is done and its checkpoint is kept.",
            ) from error
        model.save(os.path.join(aside, KERAS_MODEL))
        for task in tasks:
            if task.labels:
                manifest.write_labels(os.path.join(aside, labels_files[task.name]), task.labels)
        content = {
            "format": 1,
            "tasks": [
                {
                    "name": task.name,
                    "labels_file": labels_files.get(task.name),
                    "num_classes": len(task.labels),
                    "one_hot": bool(task.labels),
                }
                for task in tasks
            ],
            "image_size": image_size,
            "digest": digest(model, tasks, image_size),
            **facts,
            "versions": versions.installed(*_PACKAGES),
        }
        storage.write_text(os.path.join(aside, FACTS), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _log.info("Exported the model to %s", folder)


def digest(model: keras.Model, tasks: Sequence[Task], image_size: int) -> str:
    """Identifies what a model computes, whenever and wherever it was trained.

    Returns:
        Hexadecimal SHA-256 of the image size, the tasks' class names, and each weight's name, dtype, shape and bytes.
    """
    made = hashlib.sha256(json.dumps([image_size, [[task.name, task.labels] for task in tasks]]).encode())
    for name, variable in scoped_names(model).items():
        value = variable.numpy()
        made.update(json.dumps([name, value.dtype.name, value.shape]).encode())
        made.update(value.tobytes())
    return made.hexdigest()
