"""Trainings on several replicas and on one, in a process that has four CPU devices: prints JSON.

    python -m tests.training.replicas NAME..

runs the functions of these names.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_image_classification import flags as flag_table
from tf_image_classification import nets
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.nets.layers import BatchNorm
from tf_image_classification.preprocessing_parts import Unfinished
from tf_image_classification.training import batch_norm, layer_modes, stages, steps
from tf_image_classification.training.readings import Readings
from tf_image_classification.training.weight_average import WeightAverage

Outcome = dict[str, Any]
BATCH, SIZE, STEPS = 16, 8, 100


def mirrored(replicas: int) -> tf.distribute.Strategy:
    # Two strategies of a process would use the same numbers for their collective operations.
    tf.distribute.MirroredStrategy._collective_key_base += 100_000
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])


def spec_of(**values: Any) -> BuiltInEstimator:
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    spec = BuiltInEstimator()
    spec.flags = flag_table.validate({"learning_rate_decay_type": "fixed", "train_steps": STEPS, **values}, names)
    spec.class_dict = [{"name": "label", "depth": 2, "one-hot": True}]
    return spec


def batches(size: int) -> tf.data.Dataset:
    random = np.random.default_rng(0)
    images, ids = random.normal(1.0, 2.0, (256, SIZE, SIZE, 3)).astype(np.float32), np.arange(256) % 2
    images += 0.5 * ids[:, None, None, None]
    return tf.data.Dataset.from_tensor_slices((images, {"label": tf.one_hot(ids, 2)})).repeat().batch(size, True)


def unfinished_batches(size: int) -> tf.data.Dataset:
    """Batches of which the step flips the images, changes their colours and normalises them."""
    random = np.random.default_rng(0)
    pixels, draws = random.integers(0, 256, (64, SIZE, SIZE, 3), np.uint8), random.random((64, 4), np.float32)
    labels = {"label": tf.one_hot(np.arange(64) % 2, 2)}
    return tf.data.Dataset.from_tensor_slices((Unfinished(pixels, draws), labels)).repeat().batch(size, True)


def network(kind: str) -> keras.Model:
    """A network without batch normalisation (`plain`), or with it; the same weights in every call."""
    keras.utils.set_random_seed(1)
    x = images = keras.Input((SIZE, SIZE, 3))
    for number in range(2):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", kernel_regularizer=keras.regularizers.L2(0.01))(x)
        if kind in ("normalised", "synchronized"):
            norm = (keras.layers.BatchNormalization, BatchNorm)[number]
            x = norm(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU()(x)
    if kind == "dropout":
        x = keras.layers.Dropout(0.5)(x)
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))


class Training:
    """Updates of a network under a strategy, with the loop's own parts."""

    def __init__(self, kind: str, strategy: tf.distribute.Strategy, micro_batches: int = 1, **values: Any) -> None:
        spec = spec_of(**{"optimizer": "momentum", "learning_rate": 0.01, "batch_norm": "original", **values})
        keras.utils.clear_session()
        with strategy.scope():
            self.model = network(kind)
            (self.stage,) = stages.make_stages(self.model, spec.flags, 256)
            global_step = tf.Variable(0, dtype=tf.int64)
        self.update = steps.train_step(
            spec,
            self.model,
            self.stage.optimizer,
            self.stage.variables,
            global_step,
            strategy,
            sync_batch_norm=kind == "synchronized",
            micro_batches=micro_batches,
            jit_compile=spec.flags.jit_compile,
        )
        self._strategy = strategy

    def run(self, dataset: tf.data.Dataset, count: int) -> Outcome:
        iterator = iter(self.distribute(dataset))
        losses = [float(self.update(iterator)["loss"]) for _ in range(count)]
        return {"losses": losses, "weights": self.weights()}

    def distribute(self, dataset: tf.data.Dataset) -> tf.distribute.DistributedDataset:
        return self._strategy.experimental_distribute_dataset(dataset)

    def weights(self) -> list[list[float]]:
        return [variable.numpy().ravel().tolist() for variable in self.model.variables]


def per_part(parts: int) -> Iterator[tuple[float, list[list[float]]]]:
    """The reference of batch normalisation on replicas: one process that normalises each part of a batch by itself."""
    training = Training("normalised", tf.distribute.get_strategy())
    model, optimizer, variables = training.model, training.stage.optimizer, training.stage.variables
    moving = model.non_trainable_variables
    for images, labels in batches(BATCH):
        before = [variable.numpy() for variable in moving]
        losses, gradients, after = [], [], []
        for part, answers in zip(np.split(images, parts), np.split(labels["label"], parts), strict=True):
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
            with tf.GradientTape() as tape:
                logits = model(part, training=True)
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(answers, logits)) + sum(model.losses)
            losses.append(float(loss))
            gradients.append(tape.gradient(loss, [variable.value for variable in variables]))
            after.append([variable.numpy() for variable in moving])
        for variable, *values in zip(moving, *after, strict=True):
            variable.assign(np.mean(values, axis=0))
        optimizer.apply([tf.add_n(values) / parts for values in zip(*gradients, strict=True)], variables)
        yield float(np.mean(losses)), training.weights()


def synchronized_micro_batches() -> Outcome:
    """Two updates of two micro-batches, with batch normalisation over two replicas and on one device."""
    return {
        "one": Training("synchronized", tf.distribute.get_strategy(), 2).run(batches(8), 2),
        "two": Training("synchronized", mirrored(2), 2).run(batches(8), 2),
    }


def unfinished() -> Outcome:
    """Two updates from images that the step finishes, of two micro-batches each, on one device and on two."""
    inception = {"model_name": "inception_v1"}
    return {
        "one": Training("plain", tf.distribute.get_strategy(), 2, **inception).run(unfinished_batches(8), 2),
        "two": Training("plain", mirrored(2), 2, **inception).run(unfinished_batches(8), 2),
    }


def hundred_steps() -> Outcome:
    """Each kind of network on one device, two and four."""
    outcomes: Outcome = {}
    for kind in ("plain", "synchronized"):
        outcomes[f"{kind} 1"] = Training(kind, tf.distribute.get_strategy()).run(batches(BATCH), STEPS)
    for replicas in (2, 4):
        for kind in ("plain", "synchronized", "normalised"):
            outcomes[f"{kind} {replicas}"] = Training(kind, mirrored(replicas)).run(batches(BATCH), STEPS)
        steps_made = [step for _, step in zip(range(STEPS), per_part(replicas), strict=False)]
        losses = [loss for loss, _ in steps_made]
        outcomes[f"per part {replicas}"] = {"losses": losses, "weights": steps_made[-1][1]}
    return outcomes


def micro_batches() -> Outcome:
    """Two updates of 16 images: at once, as four micro-batches, and as two on each of two replicas."""
    clipped = {"clip_norm": 0.1, "learning_rate": 1.0}
    alone = tf.distribute.get_strategy()
    return {
        "one": Training("plain", alone, **clipped).run(batches(16), 2),
        "four": Training("plain", alone, 4, **clipped).run(batches(4), 2),
        "two on two": Training("plain", mirrored(2), 2, **clipped).run(batches(8), 2),
    }


def dropout() -> Outcome:
    """The first losses of a network with dropout on one, two and four replicas, each of which gets the same image."""
    image = np.random.default_rng(0).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)

    def loss(replicas: int, **values: Any) -> float:
        labels = {"label": tf.one_hot([0] * replicas, 2)}
        dataset = tf.data.Dataset.from_tensors((np.repeat(image, replicas, axis=0), labels))
        strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()
        return Training("dropout", strategy, **values).run(dataset, 1)["losses"][0]

    return {
        name: [loss(replicas, jit_compile=name == "compiled") for replicas in (1, 2, 4, 4)]
        for name in ("plain", "compiled")
    }


def compiled() -> Outcome:
    """Two updates of two replicas from images that the step finishes, with and without XLA."""
    inception = {"model_name": "inception_v1"}
    return {
        "plain": Training("normalised", mirrored(2), **inception).run(unfinished_batches(8), 2),
        "compiled": Training("normalised", mirrored(2), jit_compile=True, **inception).run(unfinished_batches(8), 2),
    }


def readings() -> Outcome:
    """The values of three updates of two replicas, read one by one and together."""
    training = Training("plain", mirrored(2))
    iterator = iter(training.distribute(batches(8)))
    made, together = [training.update(iterator) for _ in range(3)], Readings()
    for values in made:
        together.add(values)
    one_by_one = [{name: float(value) for name, value in values.items()} for values in made]
    return {"one by one": one_by_one, "together": together.take()}


def prefetched() -> Outcome:
    """Where the first batch is, and how many images the input has made once it is there, of batches of 8 for a single
    device that is not the host's, and for two."""
    outcomes: Outcome = {}
    for name, strategy in (("one", tf.distribute.OneDeviceStrategy("CPU:1")), ("two", mirrored(2))):
        made: list[int] = []

        def image(number: int, made: list[int] = made) -> Any:
            made.append(int(number))
            return np.full((SIZE, SIZE, 3), number, np.uint8)

        def unfinished(number: tf.Tensor, image: Any = image) -> Unfinished:
            pixels = tf.ensure_shape(tf.numpy_function(image, [number], tf.uint8), [SIZE, SIZE, 3])
            return Unfinished(pixels, tf.zeros([4]))

        dataset = tf.data.Dataset.range(80).map(unfinished).batch(8, True)
        iterator = iter(strategy.experimental_distribute_dataset(dataset))
        first = next(iterator)
        limit = time.monotonic() + 60
        while len(made) < 16 and time.monotonic() < limit:
            time.sleep(0.01)
        parts = strategy.experimental_local_results(first.pixels)
        outcomes[name] = {
            "devices": [part.device.rpartition("/device:")[2] for part in parts],
            "images": [part.numpy()[:, 0, 0, 0].tolist() for part in parts],
            "made": len(made),
        }
    return outcomes


def overflow() -> Outcome:
    """Two updates with loss scaling; in the second, only the last image, one of the second replica, overflows."""
    images, labels = next(iter(batches(4)))
    images = tf.concat([images[:3], images[3:] * np.inf], axis=0)
    training = Training("normalised", mirrored(2), mixed_precision=True)
    training.run(batches(4), 1)
    moving = [[copy.numpy().tolist() for copy in each.value.values] for each in training.model.non_trainable_variables]
    before = [variable.numpy() for variable in training.stage.variables]
    training.run(tf.data.Dataset.from_tensors((images, labels)).unbatch().batch(4, True), 1)
    optimizer = training.stage.optimizer
    return {
        "moving": moving,
        "changed": any((a != b.numpy()).any() for a, b in zip(before, training.stage.variables, strict=True)),
        "scale": float(optimizer.dynamic_scale / optimizer.initial_scale),
    }


def head() -> Outcome:
    """Two updates of the head of a built-in network, its weight average and re-estimated statistics."""
    return {"one": _trained_head(tf.distribute.get_strategy()), "two": _trained_head(mirrored(2))}


def _trained_head(strategy: tf.distribute.Strategy) -> Outcome:
    spec = spec_of(trainable_scopes="Small/Logits", optimizer="sgd", learning_rate=1.0, clip_norm=0.05)
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = nets.build("small", image_size=8, outputs={"label": 2}, weight_decay=0.1)
        (stage,) = stages.make_stages(model, spec.flags, 8)
        average = WeightAverage(stage.variables, 0.9)
        global_step = tf.Variable(0, dtype=tf.int64)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0.0, 0.3, variable.shape))
    average.reset()
    update = steps.train_step(
        spec,
        model,
        stage.optimizer,
        stage.variables,
        global_step,
        strategy,
        inference_layers=stage.inference_layers,
        average=average,
    )
    data = batches(8).take(2)
    iterator = iter(strategy.experimental_distribute_dataset(data))
    losses = [float(update(iterator)["loss"]) for _ in range(2)]
    layers = layer_modes.batch_norms(model)
    count = batch_norm.Reestimation(model, layers[:1], lambda: data, strategy)()
    return {
        "losses": losses,
        "weights": [variable.numpy().ravel().tolist() for variable in stage.variables],
        "averages": [value.numpy().ravel().tolist() for value in average.averages],
        "statistics": [layers[0].moving_mean.numpy().tolist(), layers[0].moving_variance.numpy().tolist()],
        "images": count,
    }


SCENARIOS = (
    hundred_steps,
    unfinished,
    micro_batches,
    dropout,
    compiled,
    readings,
    prefetched,
    synchronized_micro_batches,
    overflow,
    head,
)

if __name__ == "__main__":
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 4)
    scenarios = {function.__name__: function for function in SCENARIOS}
    print(json.dumps({name: scenarios[name]() for name in sys.argv[1:]}))
