"""Which hooks run around a training's loop."""

from __future__ import annotations

import tensorflow as tf

from tf_image_classification import hooks, optimizers
from tf_image_classification.flags import Flags
from tf_image_classification.training import checkpoint_evaluation
from tf_image_classification.training.build import TrainingState
from tf_image_classification.training.evaluator import Evaluator
from tf_image_classification.training.hook import Hook
from tf_image_classification.training.profile_hook import Profile
from tf_image_classification.training.progress_hook import Progress
from tf_image_classification.training.training_folder import TrainingFolder
from tf_image_classification.training.workers import Wishes, Workers


def of(
    state: TrainingState,
    flags: Flags,
    manager: tf.train.CheckpointManager,
    folder: TrainingFolder,
    evaluator: Evaluator | None,
    workers: Workers,
    wishes: Wishes,
) -> list[Hook]:
    """The hooks of a training, in the order in which they run after a step.

    Args:
        manager, folder: get the chief's checkpoints.
        evaluator: the chief's; None in other workers, which write nothing.
        workers, wishes: by which all of them stop after the same step.
    """
    nan_stop = hooks.NanStop()
    made: list[Hook] = [nan_stop]
    saver = None
    if evaluator is not None:
        examples_per_step = flags.batch_size * optimizers.micro_batches(flags)
        writer = tf.summary.create_file_writer(folder.local)
        progress = Progress(writer, evaluator.history, flags.train_steps, examples_per_step, state.learning_rate_at)
        saver = hooks.CheckpointSaver(manager, folder, flags.save_checkpoints_secs, nan_stop, progress)
        made += [progress, saver]
    made += [
        hooks.Preemption(saver, folder, workers, wishes),
        hooks.PeriodicEvaluation(
            saver,
            evaluator,
            workers,
            wishes,
            throttle_secs=checkpoint_evaluation.throttle_secs(workers.task, flags),
            num_evals=flags.num_evals,
            last_step=flags.train_steps,
        ),
    ]
    if flags.profile and evaluator is not None:
        made.append(Profile(folder, flags.profile))
    return made
