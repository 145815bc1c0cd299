"""evaluate against a bare loop of the same SavedModel over the same batches."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from tf_image_classification import dataset, estimator_specs, export, nets
from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import EVAL, Manifest
from tf_image_classification.evaluate import evaluation_loop, served_model

SIZE, BATCH, NET = 96, 32, "mobilenet_v1"


def both(data: Manifest, folder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """(ours, the bare loop): each scores the evaluation side once."""
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    spec = estimator_specs.BuiltInEstimator()
    spec.flags = flag_table.validate({"model_name": NET}, names)
    target = os.path.join(folder, "model")
    network = nets.build(NET, image_size=SIZE, outputs={data.tasks[0].name: len(data.tasks[0].labels)})
    export.export(network, spec, data.tasks, target, {}, SIZE)
    served = served_model.load(target).__enter__()

    def ours() -> None:
        evaluation_loop.run(served, data, os.path.join(folder, "predictions.csv"), batch_size=BATCH, spec=None)

    def bare() -> None:
        for batch in dataset.evaluation_examples(data, EVAL, BATCH):
            tf.nest.map_structure(lambda tensor: tensor.numpy(), served.signature(image_bytes=batch["image_bytes"]))

    return ours, bare
