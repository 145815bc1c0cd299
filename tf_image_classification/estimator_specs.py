"""EstimatorSpec, the class to inherit from to train a model of your own, and the built-in estimator.

class MyEstimator(EstimatorSpec):
    def get_preproc_fn(self, is_training): ...
    def get_model_fn(self, checkpoint_path): ...
    def metric_ops(self, labels, predictions): ...

if __name__ == "__main__":
    train_estimator.run(MyEstimator)
"""

from __future__ import annotations

import abc
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tf_image_classification.data.manifest import Manifest, Task
    from tf_image_classification.preprocessing import DecodeFn, Preprocessing, PreprocFn

ModelFn = Callable[[Flags], "keras.Model"]
Tensors = dict[str, "tf.Tensor"]


class EstimatorSpec(abc.ABC):
    """What is trained: preprocessing, network, loss and metrics of a classifier.

    Attributes:
        class_dict: one entry {'name': str, 'depth': int, 'one-hot': bool} per task. A spec that leaves it empty takes
            the tasks of the data it is trained on. 'one-hot': True is a classification into `depth` classes, False a
            regression of one number.
        flags: the validated flags; set before any method is called.
    """

    class_dict: list[dict[str, Any]] = []
    flags: Flags = Flags()

    @abc.abstractmethod
    def get_preproc_fn(self, is_training: bool) -> PreprocFn:
        """The preprocessing of one image.

        Returns:
            fn(image, width, height): uint8 [h, w, 3] -> float32 [height, width, 3]. A function that has a fourth
            parameter `seed` gets an int64 [2] there when training, different for each example and epoch: with
            TensorFlow's stateless random ops it makes augmentation repeatable.
        """

    @abc.abstractmethod
    def get_model_fn(self, checkpoint_path: str | None) -> ModelFn:
        """The network.

        Args:
            checkpoint_path: what training will start from, for information: the training loop loads it.

        Returns:
            model_fn(params) -> keras.Model from float32 [B, image_size, image_size, 3] to logits float32 [B, depth], or
            to a dict of task name -> logits. `params` has every training flag by name, and `num_classes` (of the first
            task), `outputs` (dict of task name -> depth) and `num_samples_per_epoch`.
        """

    @abc.abstractmethod
    def metric_ops(self, labels: Tensors, predictions: dict[str, Tensors]) -> dict[str, Any]:
        """Metrics of one batch.

        Args:
            labels: task name -> float32 [B, depth] (one-hot) or float32 [B].
            predictions: task name -> {`logits` float32 [B, depth], `probabilities` float32 [B, depth], `class_id` int64
                [B]}.

        Returns:
            Metric name -> a tensor [B] with a value per example, which is averaged over the set, or a Keras metric that
            the spec holds and has just updated.
        """

    def get_decode_fn(self, is_training: bool) -> DecodeFn:
        """How an encoded image becomes pixels: by default whole.

        A training that crops anyway can decode less: see `preprocessing.decode_random_crop`.
        """
        from tf_image_classification import preprocessing

        del is_training
        return preprocessing.decode_whole

    def loss_fn(self, labels: Tensors, logits: Tensors) -> tf.Tensor:
        """The loss of one batch, without regularisation: the sum over the tasks.

        By default softmax cross-entropy with --label_smoothing, and the mean squared error where 'one-hot' is False.

        Args:
            labels: task name -> float32 [B, depth] (one-hot) or float32 [B].
            logits: task name -> float32 [B, depth].

        Returns:
            float32 []: the mean over the batch.
        """
        import tensorflow as tf

        total = tf.constant(0.0)
        for entry in self.class_dict:
            label, logit = labels[entry["name"]], logits[entry["name"]]
            if entry["one-hot"]:
                smoothing = self.flags.label_smoothing
                smooth = label * (1.0 - smoothing) + smoothing / entry["depth"]
                total += tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(smooth, logit))
            else:
                total += tf.reduce_mean(tf.square(tf.reshape(logit, [-1]) - label))
        return total

    def input_fn(
        self,
        data: Manifest,
        *,
        is_training: bool,
        batch_size: int,
        image_size: int,
        steps: int,
        first_step: int = 0,
        seed: int = 0,
        shuffle: bool = True,
    ) -> Callable[[], tf.data.Dataset]:
        """The batches that training or its evaluations see, from TFRecords; CSVs and folders were built into TFRecords
        before.

        Args:
            data: the data set; the training side is read when `is_training`, else the evaluation side.
            steps: number of batches; an evaluation ends earlier at the end of its set.
            first_step: global step of the first batch: an interrupted training goes on where it was.
            seed: decides order and augmentation of training.

        Returns:
            A function without arguments that returns a tf.data.Dataset of pairs: images float32 [B, image_size,
            image_size, 3] and a dict of task name -> labels, float32 [B, depth] (one-hot) or float32 [B].
        """
        from tf_image_classification import dataset

        if not is_training:
            return lambda: dataset.evaluation_batches(
                data,
                self.class_dict,
                preproc_fn=self.get_preproc_fn(False),
                image_size=image_size,
                batch_size=batch_size,
                batches=steps,
                shuffle=shuffle,
            )
        return lambda: dataset.training_batches(
            data,
            self.class_dict,
            decode_fn=self.get_decode_fn(True),
            preproc_fn=self.get_preproc_fn(True),
            image_size=image_size,
            batch_size=batch_size,
            seed=seed,
            first_step=first_step,
            steps=steps,
            shuffle=shuffle,
        )

    def predictions(self, logits: Tensors) -> dict[str, Tensors]:
        """Logits by task -> what `metric_ops` gets: logits, probabilities and class ids by task."""
        import tensorflow as tf

        return {
            name: {"logits": value, "probabilities": tf.nn.softmax(value), "class_id": tf.argmax(value, axis=-1)}
            for name, value in logits.items()
        }

    def take_tasks(self, tasks: Sequence[Task]) -> None:
        """Sets `class_dict` from the data's tasks, for a spec that does not declare its own."""
        if not self.class_dict:
            self.class_dict = [
                {"name": task.name, "depth": len(task.labels) or 1, "one-hot": bool(task.labels)} for task in tasks
            ]


class BuiltInEstimator(EstimatorSpec):
    """The network that --model_name names, with the preprocessing its pretrained weights expect."""

    def get_preproc_fn(self, is_training: bool) -> PreprocFn:
        return self._preprocessing.train_fn if is_training else self._preprocessing.eval_fn

    def get_decode_fn(self, is_training: bool) -> DecodeFn:
        from tf_image_classification import preprocessing

        return self._preprocessing.decode_fn if is_training else preprocessing.decode_whole

    def get_model_fn(self, checkpoint_path: str | None) -> ModelFn:
        from tf_image_classification import nets

        del checkpoint_path
        return lambda params: nets.build(
            params.model_name, image_size=params.image_size, outputs=params.outputs, weight_decay=params.weight_decay
        )

    def metric_ops(self, labels: Tensors, predictions: dict[str, Tensors]) -> dict[str, Any]:
        import tensorflow as tf

        metrics = {}
        for entry in self.class_dict:
            name = entry["name"]
            suffix = "" if len(self.class_dict) == 1 else f"/{name}"
            if entry["one-hot"]:
                right = tf.equal(tf.argmax(labels[name], axis=-1), predictions[name]["class_id"])
                metrics[f"accuracy{suffix}"] = tf.cast(right, tf.float32)
            else:
                metrics[f"mean_absolute_error{suffix}"] = tf.abs(
                    tf.reshape(predictions[name]["logits"], [-1]) - labels[name]
                )
        return metrics

    @property
    def _preprocessing(self) -> Preprocessing:
        from tf_image_classification import nets, preprocessing

        return preprocessing.PREPROCESSINGS[nets.NETS[self.flags.model_name].preprocessing]


def load(estimator: str | None, packages: str | None = None) -> EstimatorSpec:
    """An instance of the class that `package.module:Class` names, or the built-in estimator.

    Args:
        packages: what to install first, so that the module can be imported: see `packages.install`.

    Raises:
        FlagError: the text is not of that form, the module cannot be imported, or the class is not an EstimatorSpec.
    """
    if packages is not None:
        from tf_image_classification import packages as user_packages

        user_packages.install(packages)
    if estimator is None:
        return BuiltInEstimator()
    expected = "package.module:Class, a class that inherits from EstimatorSpec"
    module_name, _, class_name = estimator.partition(":")
    if not module_name or not class_name:
        raise FlagError("Invalid value for --estimator", received=estimator, expected=expected)
    if os.getcwd() not in sys.path:  # an installed command does not look where it is called; `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise FlagError(
            f"--estimator names a module that cannot be imported ({error})", received=estimator, expected=expected
        ) from error
    if not (isinstance(found, type) and issubclass(found, EstimatorSpec)):
        raise FlagError("--estimator does not name an EstimatorSpec", received=estimator, expected=expected)
    return instantiate(found)


def instantiate(spec_class: type[EstimatorSpec]) -> EstimatorSpec:
    """Makes the spec.

    Raises:
        FlagError: it does not implement every abstract method, or needs arguments.
        EstimatorError: its class_dict is not of the form that `EstimatorSpec` tells.
    """
    if missing := sorted(getattr(spec_class, "__abstractmethods__", ())):
        raise FlagError(
            f"{spec_class.__name__} does not implement {', '.join(missing)}", expected="the methods of EstimatorSpec"
        )
    try:
        inspect.signature(spec_class).bind()
    except TypeError as error:
        raise FlagError(
            f"{spec_class.__name__} cannot be made without arguments: {error}", expected="an __init__ without arguments"
        ) from None
    spec = spec_class()
    form = {"name": str, "depth": int, "one-hot": bool}
    for entry in spec.class_dict:
        if not (isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in form.items())):
            raise EstimatorError(
                f"class_dict of {spec_class.__name__} has an entry that is none",
                received=entry,
                expected="{'name': str, 'depth': int, 'one-hot': bool}",
            )
    return spec
