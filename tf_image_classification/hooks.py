"""What runs around the training loop: loading and saving checkpoints, the stop at NaN, preemption, evaluations.

The loop calls every hook after each step, all in its own thread. Losses stay on the device until a hook needs their
numbers, and are then read together (`training.readings`), so that a hook does not make the device wait for Python.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import checkpoints, storage
from tf_image_classification.checkpoints.class_names import ClassNames
from tf_image_classification.errors import CheckpointError, TrainingError
from tf_image_classification.flags import Flags
from tf_image_classification.training import peer_watch, steps
from tf_image_classification.training.evaluator import Evaluator
from tf_image_classification.training.hook import Hook, Values
from tf_image_classification.training.progress_hook import Progress
from tf_image_classification.training.readings import Readings
from tf_image_classification.training.training_folder import WARM_START_FILE, TrainingFolder
from tf_image_classification.training.workers import Wish, Wishes, Workers

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)


def load_checkpoint(
    model: keras.Model,
    manager: tf.train.CheckpointManager,
    folder: TrainingFolder,
    flags: Flags,
    checkpoint_version: str = "",
    *,
    model_name: str | None = None,
    class_names: ClassNames | None = None,
) -> dict[str, Any] | None:
    """Loads the state that a training starts with: its own newest checkpoint, else --checkpoint_path, else none.

    Assigns the variables of `model` and of the manager's checkpoint. A warm start is recorded in `folder`.

    Args:
        model: the network, whose variables --checkpoint_path is matched with by name.
        manager: of the own checkpoints in `folder`; its checkpoint holds the model's variables.
        folder: the training's.
        flags: --checkpoint_path, --checkpoint_exclude_scopes and --weights_dir.
        checkpoint_version: identifies the content at --checkpoint_path; goes into the record.
        model_name: of the built-in network, for the weights that --checkpoint_path imagenet stands for; None for an
            --estimator's.
        class_names: of the data, by which the head of --checkpoint_path is matched; None: not known.

    Returns:
        The warm start, as `checkpoints.load_pretrained` returns it. A resumed training returns
        the one it was started with. None for a training from scratch.

    Raises:
        CheckpointError: own checkpoints are damaged, of other classes or do not fit, or --checkpoint_path is no use.
        FlagError: nothing is published for this network.
    """
    record = os.path.join(folder.local, WARM_START_FILE)
    damaged = []
    # Of a folder that TensorFlow 1 wrote, the manager knows the newest checkpoint alone.
    for path in reversed(manager.checkpoints or [path for path in (manager.latest_checkpoint,) if path]):
        shown = storage.join(folder.path, os.path.basename(path))
        try:
            folder.fetch(path)
            checkpoints.restore(manager.checkpoint, path, shown)
        except (tf.errors.OpError, OSError) as error:
            damaged.append(shown)
            _log.warning("Skipping the damaged checkpoint %s: %s", shown, str(error).splitlines()[0])
            continue
        _log.info("Continuing from %s", shown)
        if flags.checkpoint_path:
            _log.info("Ignoring --checkpoint_path because %s has a checkpoint already", folder.path)
        return storage.read_json(record, expected="JSON as training writes it") if os.path.exists(record) else None
    if damaged:
        raise CheckpointError(
            f"No checkpoint in {folder.path} can be read",
            received=", ".join(damaged),
            hint="Remove them to start again, or use another --model_dir.",
        )
    if not flags.checkpoint_path:
        _log.info("Training from scratch")
        return None
    warm_start = checkpoints.load_pretrained(model, flags, checkpoint_version, model_name, class_names)
    storage.write_text(record, json.dumps(warm_start, indent=2) + "\n")
    return warm_start


class NanStop(Hook):
    """Stops training when the loss is not a finite number.

    Whatever saves weights calls `check` first, so that none are saved after such a loss.
    """

    def __init__(self, check_steps: int = 100) -> None:
        self._check_steps = check_steps
        self._first = 0
        self._losses = Readings()

    def begin(self, step: int) -> None:
        self._first = step + 1

    def after_step(self, step: int, values: Values) -> None:
        self._losses.add({steps.LOSS: values[steps.LOSS]})
        if len(self._losses) >= self._check_steps:
            self.check()

    def check(self) -> None:
        """Reads the losses since the last check from the device.

        Raises:
            TrainingError: one of them is NaN or infinite.
        """
        losses = [values[steps.LOSS] for values in self._losses.take()]
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss is not a finite number at step {self._first + offset}",
                    received=f"loss {loss}",
                    hint="The last checkpoint is from before it. Lower --learning_rate or raise --opt_epsilon, and run "
                    "again.",
                )
        self._first += len(losses)


class CheckpointSaver(Hook):
    """Saves a checkpoint every `every_secs` seconds and at the end; other hooks call `save` in between.

    For the chief alone: the variables are the same in all workers, and saving them asks no other.

    Before each, `nan_stop` checks the losses and `progress` writes the history, so that a training which continues from
    the checkpoint has all of what was before it.
    """

    def __init__(
        self,
        manager: tf.train.CheckpointManager,
        folder: TrainingFolder,
        every_secs: float,
        nan_stop: NanStop,
        progress: Progress,
    ) -> None:
        self._manager, self._folder, self._every_secs = manager, folder, every_secs
        self._nan_stop, self._progress = nan_stop, progress
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def begin(self, step: int) -> None:
        if self._manager.latest_checkpoint is None:
            self.save(step)
        else:
            self._folder.claim()
            self._saved_step = step
        self._saved_at = time.monotonic()

    def after_step(self, step: int, values: Values) -> None:
        self._folder.check()
        if time.monotonic() - self._saved_at >= self._every_secs:
            self.save(step)

    def end(self, step: int) -> None:
        self.save(step)

    def save(self, step: int) -> None:
        """Saves the state at `step`, unless that is done already; an upload continues in the background.

        Raises:
            TrainingError: the loss is not a number, the checkpoint cannot be written, or an earlier one could not be
                uploaded.
        """
        if step == self._saved_step:
            return
        self._nan_stop.check()
        self._progress.write_history()
        try:
            with peer_watch.undisturbed():
                path = self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            raise TrainingError(
                f"Cannot write the checkpoint of step {step} to {self._manager.directory}",
                received=str(error).splitlines()[0],
                hint="Free some space, or choose another --model_dir, and run again: training continues from the "
                "checkpoint before.",
            ) from error
        self._saved_step, self._saved_at = step, time.monotonic()
        _log.info("Saved checkpoint %s", path)
        self._folder.publish_checkpoint(path)


class Preemption(Hook):
    """Saves a checkpoint and stops when the machine is about to be taken (SIGTERM) or at Ctrl-C; a second Ctrl-C stops
    at once. A signal to any of several workers stops all, each after the same step.

    Replaces the process's handlers of these signals from `begin` to `close`. Handlers run in the main thread, between
    two steps of the interpreter, and only set a number that `after_step` reads.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, saver: CheckpointSaver | None, folder: TrainingFolder, workers: Workers, wishes: Wishes) -> None:
        self._saver, self._folder = saver, folder
        self._workers, self._wishes = workers, wishes
        self._received = 0
        self._previous: dict[int, Any] = {}
        # Python lets only the main thread set handlers; elsewhere a signal ends the process as usual.
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    def begin(self, step: int) -> None:
        if self._in_main_thread:
            for number in self._SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # a shell starts background jobs with SIGINT ignored
                    self._previous[number] = signal.signal(number, self._receive)

    def after_step(self, step: int, values: Values) -> None:
        if self._received:
            self._wishes.make(Wish.STOP)
        if self._wishes.is_granted(Wish.STOP):
            if self._saver is not None:
                with peer_watch.undisturbed():
                    self._saver.save(step)
                    self._folder.finish()
            self._workers.wait_for_chief()  # a worker that is gone would end it before it has saved
            raise Preempted(self._received or signal.SIGTERM, step)

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._received = number


class Preempted(SystemExit):
    """A signal ended the training after its state was saved.

    Not an error but the end of the process: no `except Exception` on its way keeps it alive, and the exit code, 128 +
    the signal's number, is the shell's for a process that the signal ended, so that a service retries the step.
    """

    def __init__(self, number: int, step: int) -> None:
        name = signal.Signals(number).name
        _log.warning("Stopped by %s at step %d, after saving a checkpoint: run again to continue", name, step)
        super().__init__(128 + number)


class PeriodicEvaluation(Hook):
    """Evaluates, each time on a checkpoint: at `num_evals` steps, or when `throttle_secs` have passed since the last.

    The evaluation of the last step is not this hook's: it follows the training.

    The chief alone evaluates, as a training on one machine does, to the same numbers; the other workers wait, and learn
    from it whether the training ends.

    Args:
        saver, evaluator: the chief's; None in other workers.
        num_evals: evaluations up to `last_step`, evenly spaced, the one at the last step among them; None: as time
            passes.
    """

    def __init__(
        self,
        saver: CheckpointSaver | None,
        evaluator: Evaluator | None,
        workers: Workers,
        wishes: Wishes,
        *,
        throttle_secs: float,
        num_evals: int | None,
        last_step: int,
    ) -> None:
        self._saver, self._evaluator = saver, evaluator
        self._workers, self._wishes = workers, wishes
        self._throttle_secs, self._last_step = throttle_secs, last_step
        self._steps: set[int] | None = None
        if num_evals:  # more of them than steps: after each step
            self._steps = {round(number * last_step / num_evals) for number in range(1, num_evals)} - {0, last_step}
        self._evaluated_at = 0.0

    def begin(self, step: int) -> None:
        # A training that was killed between the checkpoint of an evaluation and its result. By time, a checkpoint need
        # not be an evaluation's, and one evaluation more does no harm.
        evaluator = self._evaluator
        if evaluator is not None:
            is_evaluation = step in self._steps if self._steps is not None else evaluator.selection.has_model(step)
            if is_evaluation and not evaluator.has_evaluated(step):
                self._save_and_evaluate(step, evaluator)
        self._agree_on_stop()
        self._evaluated_at = time.monotonic()

    def after_step(self, step: int, values: Values) -> None:
        if self._is_due(step):
            if self._evaluator is not None:
                self._save_and_evaluate(step, self._evaluator)
            self._agree_on_stop()

    def _is_due(self, step: int) -> bool:
        if self._steps is not None:
            return step in self._steps
        if self._workers.is_chief and time.monotonic() - self._evaluated_at >= self._throttle_secs:
            self._wishes.make(Wish.EVALUATE)
        return step < self._last_step and self._wishes.is_granted(Wish.EVALUATE)

    def _save_and_evaluate(self, step: int, evaluator: Evaluator) -> None:
        assert self._saver is not None
        self._saver.save(step)
        evaluator(step)
        self._evaluated_at = time.monotonic()

    def _agree_on_stop(self) -> None:
        is_enough = self._evaluator is not None and self._evaluator.selection.should_stop
        self.should_stop = bool(self._workers.of_chief(int(is_enough)))
