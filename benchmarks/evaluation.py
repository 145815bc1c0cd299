"""evaluate and its yardstick: a bare loop of the same SavedModel over the same batches."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from tf_image_classification import built_in_estimator, dataset, export, nets
from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import EVAL, Manifest
from tf_image_classification.evaluate import evaluation_loop, served_model
from tf_image_classification.model_folder import INPUT

BATCH_SIZE = 32


def model(name: str, image_size: int, data: Manifest, folder: str) -> str:
    """Exports a network with its initial weights; returns the model folder."""
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = flag_table.validate({"model_name": name}, names)
    model_folder = os.path.join(folder, "model")
    network = nets.build(name, image_size=image_size, outputs={data.tasks[0].name: len(data.tasks[0].labels)})
    export.export(network, spec, data.tasks, model_folder, {}, image_size)
    return model_folder


def ours_and_bare(data: Manifest, model_folder: str, folder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """This project's scoring and the bare loop: each runs over the evaluation split once."""
    served = served_model.load(model_folder).__enter__()

    def ours() -> None:
        evaluation_loop.run(served, data, os.path.join(folder, "predictions.csv"), batch_size=BATCH_SIZE, spec=None)

    def bare() -> None:
        for batch in dataset.evaluation_examples(data, EVAL, BATCH_SIZE):
            tf.nest.map_structure(lambda tensor: tensor.numpy(), served.signature(**{INPUT: batch["image_bytes"]}))

    return ours, bare
