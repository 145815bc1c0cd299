"""A training step with its hooks, and its yardstick: a bare tf.function loop over the same network and batches."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tf_image_classification import built_in_estimator, hooks, nets, optimizers
from tf_image_classification import flags as flag_table
from tf_image_classification.training import history, steps
from tf_image_classification.training.progress_hook import Progress

IMAGE_SIZE, BATCH_SIZE, CLASSES, STEPS = 32, 32, 10, 150


def ours_and_bare(folder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """This project's loop and the bare one: each runs `STEPS` steps of the small network on a batch in memory."""
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    flags = flag_table.validate(
        {"batch_size": BATCH_SIZE, "learning_rate_decay_type": "fixed", "train_steps": STEPS}, names
    )
    images = tf.random.stateless_uniform([BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3], [1, 2], -1, 1)
    labels = {"label": tf.one_hot(tf.range(BATCH_SIZE) % CLASSES, CLASSES)}
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = flags
    spec.class_dict = [{"name": "label", "depth": CLASSES, "one-hot": True}]

    def new_model_and_optimizer() -> tuple[keras.Model, keras.optimizers.Optimizer]:
        model = nets.build("small", image_size=IMAGE_SIZE, outputs={"label": CLASSES}, weight_decay=flags.weight_decay)
        optimizer = optimizers.make_optimizer(flags, flags.learning_rate)
        optimizer.build(model.trainable_variables)
        return model, optimizer

    model, optimizer = new_model_and_optimizer()
    global_step = tf.Variable(0, dtype=tf.int64)
    step = steps.train_step(
        spec, model, optimizer, model.trainable_variables, global_step, tf.distribute.get_strategy()
    )

    def ours() -> None:
        writer = tf.summary.create_file_writer(folder)
        around = [
            hooks.NanStop(),
            Progress(writer, history.History(folder, 0), STEPS, BATCH_SIZE, lambda at: flags.learning_rate),
        ]
        iterator = iter(batches)
        for hook in around:
            hook.begin(0)
        for number in range(1, STEPS + 1):
            loss = step(iterator)
            for hook in around:
                hook.after_step(number, loss)
        for hook in around:
            hook.close()

    bare_model, bare_optimizer = new_model_and_optimizer()
    variables = bare_model.trainable_variables

    @tf.function(autograph=False)
    def bare_step(iterator: object) -> tf.Tensor:
        x, y = next(iterator)  # type: ignore[call-overload]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y["label"], bare_model(x, training=True)))
            loss += tf.add_n(bare_model.losses)
        bare_optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def bare() -> None:
        iterator = iter(batches)
        for _ in range(STEPS):
            bare_step(iterator)

    return ours, bare
