"""A task of a cluster that a pipeline's step has launched: python -m tf_image_classification.cluster_task TRAINING.

TRAINING is a `cluster_exchange.Training` in JSON. Which task this is says TF_CONFIG, as the platform sets it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence

from tf_image_classification import cluster, cluster_exchange, command_line, storage, task_log, training_run
from tf_image_classification import flags as flag_table
from tf_image_classification.cluster_exchange import Training
from tf_image_classification.errors import UserError
from tf_image_classification.flags import Flags
from tf_image_classification.training_run import TrainOutputs

# Vertex AI uploads what is written there to the TensorBoard of the job, while the job runs.
_TENSORBOARD_VARIABLE = "AIP_TENSORBOARD_LOG_DIR"
_INTERVAL_SECS = 60.0

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exits."""
    with cluster.failing_at_once():
        command_line.main(_work, argv)


def _work(argv: Sequence[str] | None) -> None:
    (text,) = sys.argv[1:] if argv is None else argv
    training, task = Training.from_json(text), cluster.current()
    with task_log.keeping(training.folder, f"{task.role}-{task.index}"):
        _train(training, task)

    from tf_image_classification.training import parameter_servers

    parameter_servers.end_process(task)


def _train(training: Training, task: cluster.Task) -> None:
    names = (cluster_exchange.MODEL, cluster_exchange.LOGS, cluster_exchange.CURVES, cluster_exchange.SAMPLES)
    flags = flag_table.for_step(flag_table.TRAIN_STEP, training.flags)
    summaries = os.environ.get(_TENSORBOARD_VARIABLE, "") if task.is_chief else ""
    with storage.temporary_dir() as folder, copying_summaries(flags, summaries):
        result = training_run.train(
            training.data,
            flags,
            TrainOutputs(*(os.path.join(folder, name) for name in names)),
            pipeline_root="",
            checkpoint_version=training.checkpoint_version,
            estimator_version=training.estimator_version,
        )
        if task.is_chief:
            training.publish(folder, {name: value for name, value in result.metrics.items() if math.isfinite(value)})


@contextlib.contextmanager
def copying_summaries(flags: Flags, target: str) -> Iterator[None]:
    """Copies the TensorBoard event files of a training to a folder, every minute and at the block's end.

    Args:
        flags: of the training, which replaces their `model_dir` by its folder.
        target: '' for no copies.
    """
    if not target:
        yield
        return
    parent, ended, copied = flags.model_dir, threading.Event(), dict[str, storage.Version]()

    def copy_new() -> None:
        try:
            if flags.model_dir != parent:
                _copy_events(flags.model_dir, target, copied)
        except (UserError, OSError) as error:
            _log.warning("TensorBoard does not show the newest steps: %s", error)

    def copy_at_intervals() -> None:
        while not ended.wait(_INTERVAL_SECS):
            copy_new()

    copier = threading.Thread(target=copy_at_intervals, daemon=True)
    copier.start()
    try:
        yield
    finally:
        ended.set()
        copier.join()
        copy_new()


def _copy_events(folder: str, target: str, copied: dict[str, storage.Version]) -> None:
    """Copies the event files that have changed.

    Args:
        copied: path -> version of the last copy, which is changed.
    """
    from tf_image_classification.training import training_folder

    for file in storage.walk(folder):
        if training_folder.is_summary(os.path.basename(file.path)) and copied.get(file.path) != file.version:
            content, version = storage.read_version(file.path)
            storage.write_bytes(storage.join(target, file.path.removeprefix(storage.as_prefix(folder))), content or b"")
            copied[file.path] = version


if __name__ == "__main__":
    main()
