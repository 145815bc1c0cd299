"""A training step with its hooks, and its yardsticks: a bare tf.function loop over the same network, and model.fit.

All of them train on a batch in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tf_image_classification import built_in_estimator, hooks, nets, optimizers
from tf_image_classification import flags as flag_table
from tf_image_classification.flags import Flags
from tf_image_classification.training import history, steps
from tf_image_classification.training.progress_hook import Progress

BATCH_SIZE, CLASSES = 32, 10


def ours(name: str, image_size: int, count: int, folder: str) -> Callable[[], None]:
    """This project's loop: `count` steps of a network, with the hooks that every training has."""
    flags = _flags()
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = flags
    spec.class_dict = [{"name": "label", "depth": CLASSES, "one-hot": True}]
    batches = _batches(image_size)
    model, optimizer = _model_and_optimizer(name, image_size, flags)
    global_step = tf.Variable(0, dtype=tf.int64)
    step = steps.train_step(
        spec, model, optimizer, model.trainable_variables, global_step, tf.distribute.get_strategy()
    )

    # Created once in a training: its file is synced to the disk, which may take as long as two steps.
    entries = history.History(folder, 0)

    def work() -> None:
        writer = tf.summary.create_file_writer(folder)
        around = [
            hooks.NanStop(),
            Progress(writer, entries, count, BATCH_SIZE, lambda at: flags.learning_rate),
        ]
        iterator = iter(batches)
        for hook in around:
            hook.begin(0)
        for number in range(1, count + 1):
            values = step(iterator)
            for hook in around:
                hook.after_step(number, values)
        for hook in around:
            hook.close()

    return work


def bare(name: str, image_size: int, count: int) -> Callable[[], None]:
    """A loop over a tf.function that computes the gradients of the same network and applies them, nothing else."""
    batches = _batches(image_size)
    model, optimizer = _model_and_optimizer(name, image_size, _flags())
    variables = model.trainable_variables

    @tf.function(autograph=False)
    def step(iterator: object) -> tf.Tensor:
        x, y = next(iterator)  # type: ignore[call-overload]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y["label"], model(x, training=True)))
            loss += tf.add_n(model.losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def work() -> None:
        iterator = iter(batches)
        for _ in range(count):
            step(iterator)

    return work


def keras_fit(image_size: int, count: int) -> Callable[[], None]:
    """model.fit of keras.applications.MobileNetV2, with the optimizer and the metric of `ours`."""
    batches = _batches(image_size).map(lambda images, labels: (images, labels["label"]))
    model = keras.applications.MobileNetV2(
        (image_size, image_size, 3), weights=None, classes=CLASSES, classifier_activation=None
    )
    flags = _flags()
    model.compile(
        optimizers.make_optimizer(flags, flags.learning_rate),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return lambda: model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)


def _flags() -> Flags:
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    return flag_table.validate({"learning_rate_decay_type": "fixed"}, names)


def _batches(image_size: int) -> tf.data.Dataset:
    images = tf.random.stateless_uniform([BATCH_SIZE, image_size, image_size, 3], [1, 2], -1, 1)
    labels = {"label": tf.one_hot(tf.range(BATCH_SIZE) % CLASSES, CLASSES)}
    return tf.data.Dataset.from_tensors((images, labels)).repeat()


def _model_and_optimizer(name: str, image_size: int, flags: Flags) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    model = nets.build(name, image_size=image_size, outputs={"label": CLASSES}, weight_decay=flags.weight_decay)
    optimizer = optimizers.make_optimizer(flags, flags.learning_rate)
    optimizer.build(model.trainable_variables)
    return model, optimizer
