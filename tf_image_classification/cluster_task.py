"""A task of a cluster that a pipeline's step has launched: python -m tf_image_classification.cluster_task TRAINING.

TRAINING is a `cluster_exchange.Training` in JSON. Which task this is says TF_CONFIG, as the platform sets it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence

from tf_image_classification import cluster, cluster_exchange, command_line, storage, task_log, training_run
from tf_image_classification import flags as flag_table
from tf_image_classification.cluster_exchange import Training
from tf_image_classification.training_run import TrainOutputs


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exits."""
    command_line.main(_work, argv)


def _work(argv: Sequence[str] | None) -> None:
    (text,) = sys.argv[1:] if argv is None else argv
    training, task = Training.from_json(text), cluster.current()
    with task_log.keeping(training.folder, f"{task.role}-{task.index}"), storage.temporary_dir() as folder:
        names = (
            cluster_exchange.MODEL,
            cluster_exchange.LOGS,
            cluster_exchange.CURVES,
            cluster_exchange.SAMPLES,
        )
        result = training_run.train(
            training.data,
            flag_table.for_step(flag_table.TRAIN_STEP, training.flags),
            TrainOutputs(*(os.path.join(folder, name) for name in names)),
            pipeline_root="",
            checkpoint_version=training.checkpoint_version,
            estimator_version=training.estimator_version,
        )
        if task.is_chief:
            training.publish(folder, {name: value for name, value in result.metrics.items() if math.isfinite(value)})


if __name__ == "__main__":
    main()
