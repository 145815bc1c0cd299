"""EstimatorSpec, the class to inherit from to train a model of your own, and the built-in estimator.

A complete estimator, in a file my_estimator.py:

    import keras
    import tensorflow as tf

    from tf_image_classification import train_estimator
    from tf_image_classification.estimator_specs import EstimatorSpec


    class MyEstimator(EstimatorSpec):
        def get_preproc_fn(self, is_training):
            def preproc(image, width, height):
                return tf.image.resize(image, (height, width)) / 255.0

            return preproc

        def get_model_fn(self, checkpoint_path):
            def model_fn(params):
                images = keras.Input((params.image_size, params.image_size, 3))
                x = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="conv")(images)
                x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
                return keras.Model(images, keras.layers.Dense(params.num_classes, name="head")(x))

            return model_fn

        def metric_ops(self, labels, predictions):
            right = tf.equal(tf.argmax(labels["label"], axis=-1), predictions["label"]["class_id"])
            return {"accuracy": tf.cast(right, tf.float32)}


    if __name__ == "__main__":
        train_estimator.run(MyEstimator)

It takes the flags of the training command:

    python my_estimator.py --train_metadata photos --model_dir models --image_size 64

Elsewhere it is named by --estimator my_estimator:MyEstimator. `label` is the task of a data set that does not name its
own; `class_dict` declares others. The variables have Keras's paths (`head/kernel`) in --trainable_scopes and
--checkpoint_exclude_scopes.
"""

from __future__ import annotations

import abc
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tf_image_classification.estimator_code import EstimatorCode
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tf_image_classification.augmentation.policies import PixelsFn
    from tf_image_classification.data.batch_part import BatchPart
    from tf_image_classification.data.manifest import Manifest, Task
    from tf_image_classification.preprocessing import Crop, DecodeFn, PreprocFn
    from tf_image_classification.preprocessing_parts import NormalizeFn

_log = logging.getLogger(__name__)

ModelFn = Callable[[Flags], "keras.Model"]
Tensors = dict[str, "tf.Tensor"]  # task name -> tensor


class EstimatorSpec(abc.ABC):
    """What is trained: preprocessing, network, loss and metrics of a classifier.

    `get_preproc_fn`, `get_model_fn` and `metric_ops` have to be implemented; the other methods have defaults. The class
    is instantiated without arguments, once per training or evaluation. Its functions are traced into graphs: they have
    to use TensorFlow's operations on the tensors that they get.

    Attributes:
        class_dict: one entry {'name': str, 'depth': int, 'one-hot': bool} per task. 'one-hot' True is a classification
            into `depth` classes, False a regression of one number. Left empty, the tasks of the data are used.
        flags: the validated flags of the command; the framework sets them before it calls any method.
        class_weights: task name -> a weight per class id, with --class_weights; None without it. Set before the loss is
            called, which the default `loss_fn` applies them in; one of your own can read them.
        code: hashes of the code that the class is from, as far as it is known; model.json records them.
    """

    class_dict: list[dict[str, Any]] = []
    flags: Flags = Flags()
    class_weights: dict[str, tuple[float, ...]] | None = None
    code: EstimatorCode = EstimatorCode()

    @abc.abstractmethod
    def get_preproc_fn(self, is_training: bool) -> PreprocFn:
        """The preprocessing of one image.

        Args:
            is_training: True for training, where it may augment; False for evaluation and for the exported model.

        Returns:
            fn(image, width, height): uint8 [h, w, 3] -> float32 [height, width, 3]. A function with a fourth parameter
            `seed` gets an int64 [2] there when training, different for each example and epoch. Random ops that take it
            (`tf.image.stateless_random_flip_left_right(image, seed)`) make trainings with --seed repeatable.
        """

    @abc.abstractmethod
    def get_model_fn(self, checkpoint_path: str | None) -> ModelFn:
        """The network.

        Args:
            checkpoint_path: --checkpoint_path, for information only: the training loop loads it into the model.

        Returns:
            model_fn(params) -> a new keras.Model of images float32 [B, image_size, image_size, 3] -> logits float32
            [B, depth], or with several tasks a dict of task name -> logits. It is called under the training's
            distribution strategy. `params` has every training flag as an attribute, and `num_classes` (depth of the
            first task), `outputs` (dict of task name -> depth) and `num_samples_per_epoch` (training examples).
            Regularisation is taken from the model's `losses`.
        """

    @abc.abstractmethod
    def metric_ops(self, labels: Tensors, predictions: dict[str, Tensors]) -> dict[str, Any]:
        """Metrics of one batch of an evaluation.

        Args:
            labels: task name -> float32 [B, depth] (one-hot) or, of a regression, float32 [B].
            predictions: task name -> {`logits` float32 [B, depth], `probabilities` float32 [B, depth] (their softmax),
                `class_id` int64 [B] (their argmax)}.

        Returns:
            Metric name -> a tensor [B] with one value per example, which is averaged over all examples of the
            evaluation, or a Keras metric that the spec holds as an attribute and has just updated.
        """

    def get_decode_fn(self, is_training: bool) -> DecodeFn:
        """The decoding of one image for training: by default of the whole image.

        A training that crops at random can decode the crop alone: see `preprocessing.decode_random_crop`.

        Args:
            is_training: True; evaluation and the exported model decode the whole image.

        Returns:
            fn(encoded, width, height, seed): string [], JPEG or PNG, and int64 [2] -> uint8 [h, w, 3]. `width` and
            `height` are the size in pixels that preprocessing will resize to.
        """
        from tf_image_classification import preprocessing

        del is_training
        return preprocessing.decode_whole

    def get_normalize_fn(self) -> NormalizeFn:
        """The last step of preprocessing a training image with --augmentation light, randaugment or trivialaugment.

        By default the image, as uint8, goes through the preprocessing of evaluation. If that does more than to resize
        and normalise, such as taking the central part, a spec has its normalisation alone here.

        Returns:
            fn(image): float32 [image_size, image_size, 3] in 0-255 -> float32 of the same shape.
        """
        import tensorflow as tf

        preproc_fn = self.get_preproc_fn(False)

        def normalize(image: tf.Tensor) -> tf.Tensor:
            height, width, _ = image.shape
            return preproc_fn(tf.cast(tf.round(image), tf.uint8), width, height)

        return normalize

    def training_image_fns(self, augmentation: str) -> tuple[DecodeFn, PreprocFn]:
        """Decoding and preprocessing of a training image; not to be overridden.

        Args:
            augmentation: a value of --augmentation.

        Returns:
            Functions as `get_decode_fn` and `get_preproc_fn` return them.
        """
        from tf_image_classification import augmentation as augmentations
        from tf_image_classification import preprocessing

        if augmentation == augmentations.ORIGINAL:
            return self.get_decode_fn(True), self.get_preproc_fn(True)
        if augmentation == augmentations.NONE:
            return preprocessing.decode_whole, self.get_preproc_fn(False)
        preproc_fn = self._normalized(augmentations.pixels_fn(augmentation))
        return preprocessing.Decoder(self.training_crop(augmentation)), preproc_fn

    def _normalized(self, pixels_fn: PixelsFn) -> PreprocFn:
        """What makes the pixels of a training image, and normalises them."""
        normalize_fn = self.get_normalize_fn()

        def preproc(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
            return normalize_fn(pixels_fn(image, width, height, seed))

        return preproc

    def training_crop(self, augmentation: str) -> Crop | None:
        """The random crop of training images that --crop_area and --crop_aspect change; None: they change none.

        Args:
            augmentation: a value of --augmentation.
        """
        from tf_image_classification import augmentation as augmentations
        from tf_image_classification.preprocessing import Crop

        if augmentation in (augmentations.ORIGINAL, augmentations.NONE):
            return None
        return augmentations.crop_with(Crop(), self.flags)

    @property
    def has_own_input(self) -> bool:
        """Whether the spec overrides `input_fn`."""
        return type(self).input_fn is not EstimatorSpec.input_fn

    def loss_fn(self, labels: Tensors, logits: Tensors) -> tf.Tensor:
        """The loss of one batch, without regularisation.

        By default the sum over the tasks of softmax cross-entropy, or the mean squared error where 'one-hot' is False.
        --label_smoothing s replaces one-hot labels y by y * (1 - s) + s / depth (tf.compat.v1.losses). With
        --class_weights w the cross-entropy of an example is multiplied by the sum of y * w.

        Args:
            labels: task name -> float32 [B, depth] (one-hot) or, of a regression, float32 [B].
            logits: task name -> float32 [B, depth].

        Returns:
            float32 [], the mean over the batch.
        """
        import tensorflow as tf

        total = tf.constant(0.0)
        for entry in self.class_dict:
            label, logit = labels[entry["name"]], logits[entry["name"]]
            if entry["one-hot"]:
                smoothing = self.flags.label_smoothing
                smooth = label * (1.0 - smoothing) + smoothing / entry["depth"]
                losses = tf.nn.softmax_cross_entropy_with_logits(smooth, logit)
                if self.class_weights is not None:
                    losses *= tf.linalg.matvec(label, tf.constant(self.class_weights[entry["name"]]))
                total += tf.reduce_mean(losses)
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
        part: BatchPart | None = None,
    ) -> Callable[[], tf.data.Dataset]:
        """The batches of a training or of one of its evaluations, by default read from TFRecords.

        An override without the parameter `part` works on any cluster, but each worker then reads and decodes whole
        batches and takes its part of them.

        Args:
            data: the data set; CSVs and folders have been built into TFRecords.
            is_training: reads the training split if True, else the evaluation split.
            batch_size: examples per batch; the last batch of an evaluation may be smaller.
            image_size: height and width of the images in pixels.
            steps: number of batches; an evaluation ends earlier at the end of its split.
            first_step: number of batches before the first one, as many as global steps but for --sync_replicas: a
                resumed training continues with the next example.
            seed: decides order and augmentation of a training.
            shuffle: False: examples are in the order of the shards.
            part: of each batch of a training, what this process reads: `count` batches per step, each of batch_size /
                total examples; None: whole batches.

        Returns:
            A function without arguments that returns a tf.data.Dataset of pairs: images float32 [B, image_size,
            image_size, 3] and labels, a dict of task name -> float32 [B, depth] (one-hot) or float32 [B].
        """
        from tf_image_classification import dataset

        sizes: dict[str, Any] = {"image_size": image_size, "batch_size": batch_size, "shuffle": shuffle}
        if is_training:
            return self._training_batches(data, first_step=first_step, steps=steps, seed=seed, part=part, **sizes)
        preproc_fn = self.get_preproc_fn(False)
        return lambda: dataset.evaluation_batches(data, self.class_dict, preproc_fn=preproc_fn, batches=steps, **sizes)

    def _training_batches(self, data: Manifest, **options: Any) -> Callable[[], tf.data.Dataset]:
        """`dataset.training_batches` of the flags; `options` are its other arguments."""
        from tf_image_classification import augmentation, dataset

        decode_fn, preproc_fn = self.training_image_fns(self.flags.augmentation)
        return lambda: dataset.training_batches(
            data,
            self.class_dict,
            decode_fn=decode_fn,
            preproc_fn=preproc_fn,
            mix_fn=augmentation.mixer(self.flags),
            streams=self.flags.shard_streams,
            **options,
        )

    def step_input(
        self, data: Manifest, part: BatchPart | None = None, **options: Any
    ) -> Callable[[], tf.data.Dataset]:
        """What the training steps of one process read; not to be overridden.

        Args:
            options: the other arguments of `input_fn`.

        Returns:
            What `input_fn` returns for `part`, also of an override that has no such parameter. If it is not overridden,
            images may be `Unfinished`: the rest of `training_image_fns` is left to the step.
        """
        from tf_image_classification import dataset

        if not self.has_own_input:
            return self._training_batches(data, part=part, finished=False, **options)
        if part is None:
            return self.input_fn(data, is_training=True, **options)
        if "part" in inspect.signature(self.input_fn).parameters:
            return self.input_fn(data, is_training=True, part=part, **options)
        whole = self.input_fn(data, is_training=True, **options)
        if part.count < part.total:
            _log.info(
                "%s.input_fn has no parameter `part`: each worker decodes whole batches to take its part of them",
                type(self).__name__,
            )
        return lambda: dataset.part_of_batches(whole(), part, options["batch_size"])

    def predictions(self, logits: Tensors) -> dict[str, Tensors]:
        """The argument `predictions` of `metric_ops`, from logits: task name -> float32 [B, depth]."""
        import tensorflow as tf

        return {
            name: {"logits": value, "probabilities": tf.nn.softmax(value), "class_id": tf.argmax(value, axis=-1)}
            for name, value in logits.items()
        }

    def set_default_class_dict(self, tasks: Sequence[Task]) -> None:
        """Sets `class_dict` of a spec that declares none to the data's tasks; leaves a declared one as it is."""
        if not self.class_dict:
            self.class_dict = [
                {"name": task.name, "depth": len(task.labels) or 1, "one-hot": bool(task.labels)} for task in tasks
            ]
