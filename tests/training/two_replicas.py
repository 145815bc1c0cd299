"""Two updates and a re-estimation on two replicas and on one, in a process that has two CPU devices: prints JSON."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_image_classification import flags as flag_table
from tf_image_classification import nets
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.training import batch_norm, layer_modes, stages, steps
from tf_image_classification.training.weight_average import WeightAverage


def trained(strategy: tf.distribute.Strategy, **values: Any) -> dict[str, Any]:
    """The weights, their averages and the re-estimated statistics after two updates of the head."""
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    flags = flag_table.validate({"learning_rate_decay_type": "fixed", "train_steps": 2, **values}, names)
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    spec = BuiltInEstimator()
    spec.flags, spec.class_dict = flags, [{"name": "label", "depth": 2, "one-hot": True}]
    random = np.random.default_rng(0)
    images, ids = random.normal(1.0, 2.0, (8, 8, 8, 3)).astype(np.float32), random.integers(0, 2, 8)
    batches = tf.data.Dataset.from_tensors((images, {"label": tf.one_hot(ids, 2)})).unbatch().repeat(2).batch(8)
    with strategy.scope():
        model = nets.build("small", image_size=8, outputs={"label": 2}, weight_decay=0.1)
        (stage,) = stages.make_stages(model, flags, 8)
        average = WeightAverage(stage.variables, 0.9)
        global_step = tf.Variable(0, dtype=tf.int64)
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
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    losses = [float(update(iterator)["loss"]) for _ in range(2)]
    layers = layer_modes.batch_norms(model)
    count = batch_norm.Reestimation(model, layers[:1], lambda: batches, strategy)()
    return {
        "losses": losses,
        "weights": [variable.numpy().ravel().tolist() for variable in stage.variables],
        "averages": [value.numpy().ravel().tolist() for value in average.averages],
        "statistics": [layers[0].moving_mean.numpy().tolist(), layers[0].moving_variance.numpy().tolist()],
        "images": count,
    }


if __name__ == "__main__":
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    options = {"trainable_scopes": "Small/Logits", "optimizer": "sgd", "learning_rate": 1.0, "clip_norm": 0.05}
    two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), **options)
    one = trained(tf.distribute.get_strategy(), **options)
    print(json.dumps({"one": one, "two": two}))
