"""The evaluator of a cluster: a task that evaluates the checkpoints of a training while the training goes on.

It reads --model_dir, wherever that is, and writes summaries of its own into its folder `eval`: TensorBoard shows them
with those of the chief, which evaluates the model at the end.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_image_classification import checkpoints, storage
from tf_image_classification.checkpoints import checkpoint_file, class_names
from tf_image_classification.cluster import PeerError, Role, Task
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.flags import Flags
from tf_image_classification.training import build
from tf_image_classification.training.evaluator import Evaluator
from tf_image_classification.training.history import History, read_history
from tf_image_classification.training.model_selection import BEST, ModelSelection
from tf_image_classification.training.presence import ChiefWatch
from tf_image_classification.training.training_folder import TrainingFolder

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec

START_DELAY_SECONDS = 120.0  # before the first evaluation: tf.estimator's EvalSpec.start_delay_secs
_POLL_SECONDS = 2.0

_log = logging.getLogger(__name__)


def throttle_secs(task: Task, flags: Flags) -> float:
    """Time between two of the chief's evaluations by time: never, if an evaluator makes them.

    Unless they decide which model is exported or when the training ends.
    """
    decides = flags.export == BEST or flags.early_stopping_evals is not None
    return math.inf if task.cluster.get(Role.EVALUATOR) and not decides else float(flags.eval_throttle_secs)


def wait_for_checkpoint(model_dir: str, task: Task) -> None:
    """Waits until the training has saved its first checkpoint, and so has its data.

    Raises:
        PeerError: the chief did not come, or was lost.
    """
    chief = ChiefWatch(task)
    while checkpoint_file.latest(model_dir) is None:
        chief.check()
        time.sleep(_POLL_SECONDS)


def evaluate_checkpoints(spec: EstimatorSpec, data: Manifest, flags: Flags, task: Task) -> dict[str, float]:
    """Evaluates the newest checkpoint at most every --eval_throttle_secs, up to that of the training's end.

    Args:
        spec: configured for `data`.
        data: the training's.
        flags: the training's.
        task: this process's.

    Returns:
        The metrics of the last one, as of `Evaluator`.

    Raises:
        PeerError: the chief did not come, or was lost before the end of the training.
    """
    with storage.temporary_dir() as local:
        folder = TrainingFolder(flags.model_dir, local)
        state = build.build(spec, data, flags)
        checkpoint = state.checkpoint_manager(local, class_names.of_tasks(data.tasks)).checkpoint
        evaluator = Evaluator(spec, state, data, flags, folder, History(local, 0))
        chief, metrics, newest = ChiefWatch(task), dict[str, float](), ""
        due_at = time.monotonic() + START_DELAY_SECONDS
        chief.check()
        _log.info("Evaluating the checkpoints in %s", flags.model_dir)
        while True:
            found = checkpoint_file.latest(flags.model_dir) or ""
            is_last = _step_of(found) >= flags.train_steps
            if found != newest and (is_last or time.monotonic() >= due_at) and _restore(checkpoint, found, local):
                newest, due_at = found, time.monotonic() + flags.eval_throttle_secs
                metrics = evaluator(int(state.global_step.numpy()))
                _publish(local, flags.model_dir)
            if is_last and found == newest:
                return metrics
            try:
                chief.check()
            except PeerError:
                # It is gone with its work done if it saved the last checkpoint just now, or stopped early.
                if _step_of(checkpoint_file.latest(flags.model_dir) or "") < flags.train_steps:
                    if _has_stopped_early(state, folder, flags, metrics):
                        return metrics
                    raise
            time.sleep(_POLL_SECONDS)


def _has_stopped_early(
    state: build.TrainingState, folder: TrainingFolder, flags: Flags, metrics: Mapping[str, float]
) -> bool:
    """Whether --early_stopping_evals has ended the training, by the history of the chief's evaluations."""
    history = read_history(flags.model_dir)
    if flags.early_stopping_evals is None or not metrics:
        return False
    selection = ModelSelection(state.model, folder, flags, patient_until=state.stages[-1].start)
    selection.start([*metrics], history)
    return selection.should_stop


def _step_of(checkpoint: str) -> int:
    """The global step in the name of a checkpoint; -1 of none."""
    step = checkpoint.rpartition("-")[2]
    return int(step) if step.isdecimal() else -1


def _restore(checkpoint: tf.train.Checkpoint, prefix: str, local: str) -> bool:
    """Restores a checkpoint from --model_dir; returns False if the training has removed it meanwhile."""
    path = prefix
    try:
        if storage.is_remote(prefix):
            folder, name = os.path.split(prefix)
            for file in storage.names_in(folder):
                if file.startswith((f"{name}.index", f"{name}.data-")):
                    path = os.path.join(os.path.dirname(storage.fetch(storage.join(folder, file), local)), name)
        checkpoints.restore(checkpoint, path, prefix)
    except (tf.errors.NotFoundError, OSError):
        _log.info("The training has removed %s before it could be evaluated", prefix)
        return False
    return True


def _publish(local: str, model_dir: str) -> None:
    """Copies the summaries, whose names hold this machine's and the process's number, to --model_dir."""
    for file in Path(local, "eval").iterdir():
        storage.write_bytes(storage.join(model_dir, "eval", file.name), file.read_bytes())
