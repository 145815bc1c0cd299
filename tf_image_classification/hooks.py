"""What runs around the training loop: loading and saving checkpoints, progress and summaries, the stop at NaN,
preemption, evaluations.

The loop calls every hook after each step, all in its own thread. Losses stay on the device until a hook needs their
numbers, so that a hook does not make the device wait for Python.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import checkpoints, storage
from tf_image_classification.errors import CheckpointError, TrainingError
from tf_image_classification.flags import Flags
from tf_image_classification.training.history import History
from tf_image_classification.training.training_folder import WARM_START_FILE, TrainingFolder

if TYPE_CHECKING:
    import keras
    from tqdm import tqdm

_log = logging.getLogger(__name__)

SUMMARY_STEPS = 100  # as tf.estimator's save_summary_steps
_LOG_EVERY_SECS = 10.0  # without a terminal
_HISTORY_POINTS = 200  # losses recorded on the way to --train_steps: enough for a smooth curve


def load_checkpoint(
    model: keras.Model,
    manager: tf.train.CheckpointManager,
    folder: TrainingFolder,
    flags: Flags,
    checkpoint_version: str = "",
    *,
    model_name: str | None = None,
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

    Returns:
        The warm start: `checkpoint`, `version`, `loaded` (a count) and `not_loaded` (names). A resumed training returns
        the one it was started with. None for a training from scratch.

    Raises:
        CheckpointError: there are own checkpoints and none can be read or fits, or --checkpoint_path cannot be used.
        FlagError: nothing is published for this network.
    """
    record = os.path.join(folder.local, WARM_START_FILE)
    damaged = []
    # Of a folder that TensorFlow 1 wrote, the manager knows the newest checkpoint alone.
    for path in reversed(manager.checkpoints or [path for path in (manager.latest_checkpoint,) if path]):
        shown = storage.join(folder.path, os.path.basename(path))
        try:
            folder.fetch(path)
            checkpoints.restore(manager.checkpoint, path)
        except (tf.errors.OpError, OSError, IndexError) as error:  # TensorFlow raises IndexError for a truncated file
            damaged.append(shown)
            _log.warning("Skipping the damaged checkpoint %s: %s", shown, str(error).splitlines()[0])
            continue
        _log.info("Continuing from %s", shown)
        if flags.checkpoint_path:
            _log.info("Ignoring --checkpoint_path because %s has a checkpoint already", folder.path)
        return json.loads(storage.read_text(record)) if os.path.exists(record) else None
    if damaged:
        raise CheckpointError(
            f"No checkpoint in {folder.path} can be read",
            received=", ".join(damaged),
            hint="Remove them to start again, or use another --model_dir.",
        )
    if not flags.checkpoint_path:
        _log.info("Training from scratch")
        return None
    warm_start = checkpoints.load_pretrained(model, flags, checkpoint_version, model_name)
    storage.write_text(record, json.dumps(warm_start, indent=2) + "\n")
    return warm_start


class Hook:
    """What the loop calls, in the order of the methods. Steps are global steps; a hook overrides what it needs."""

    def begin(self, step: int) -> None:
        """Called once before the first update, with the step that training starts from."""

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        """Called after each update; `step` counts it. `loss` is the total loss, float32 [], on the device.

        An exception ends the training; hooks later in the list are not called for this step.
        """

    def end(self, step: int) -> None:
        """Called once after the last update, not after an exception."""

    def close(self) -> None:
        """Called once in any case, after an exception too, to release what the hook holds."""


class NanStop(Hook):
    """Stops training when the loss is not a finite number.

    Whatever saves weights calls `check` first, so that none are saved after such a loss.
    """

    def __init__(self, check_steps: int = SUMMARY_STEPS) -> None:
        self._check_steps = check_steps
        self._first = 0
        self._losses: list[tf.Tensor] = []

    def begin(self, step: int) -> None:
        self._first = step + 1

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        self._losses.append(loss)
        if len(self._losses) >= self._check_steps:
            self.check()

    def check(self) -> None:
        """Reads the losses since the last check from the device.

        Raises:
            TrainingError: one of them is NaN or infinite.
        """
        losses, self._losses = [float(loss) for loss in self._losses], []
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
    """Saves a checkpoint every `every_secs` seconds and at the end; other hooks call `save` in between."""

    def __init__(
        self, manager: tf.train.CheckpointManager, folder: TrainingFolder, every_secs: float, nan_stop: NanStop
    ) -> None:
        self._manager, self._folder, self._every_secs, self._nan_stop = manager, folder, every_secs, nan_stop
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def begin(self, step: int) -> None:
        if self._manager.latest_checkpoint is None:
            self.save(step)
        else:
            self._folder.claim()
            self._saved_step = step
        self._saved_at = time.monotonic()

    def after_step(self, step: int, loss: tf.Tensor) -> None:
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
        try:
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
    at once.

    Replaces the process's handlers of these signals from `begin` to `close`. Handlers run in the main thread, between
    two steps of the interpreter, and only set a number that `after_step` reads.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, saver: CheckpointSaver, folder: TrainingFolder) -> None:
        self._saver, self._folder = saver, folder
        self._received = 0
        self._previous: dict[int, Any] = {}
        # Python lets only the main thread set handlers; elsewhere a signal ends the process as usual.
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    def begin(self, step: int) -> None:
        if self._in_main_thread:
            for number in self._SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # a shell starts background jobs with SIGINT ignored
                    self._previous[number] = signal.signal(number, self._receive)

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        if self._received:
            self._saver.save(step)
            self._folder.finish()
            raise Preempted(self._received, step)

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
    """Evaluates, each time on a checkpoint, when `throttle_secs` seconds have passed since the last evaluation.

    The evaluation of the last step is not this hook's: it follows the training.
    """

    def __init__(
        self, saver: CheckpointSaver, evaluate: Callable[[int], object], throttle_secs: float, last_step: int
    ) -> None:
        self._saver, self._evaluate = saver, evaluate
        self._throttle_secs, self._last_step = throttle_secs, last_step
        self._evaluated_at = 0.0

    def begin(self, step: int) -> None:
        self._evaluated_at = time.monotonic()

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        if step < self._last_step and time.monotonic() - self._evaluated_at >= self._throttle_secs:
            self._saver.save(step)
            self._evaluate(step)
            self._evaluated_at = time.monotonic()


class Progress(Hook):
    """Shows a bar on a terminal, or logs a line at intervals; writes TensorBoard summaries and the training's history.

    Only this hook writes to `writer`. `learning_rate(step)` is the rate of the update after `step` updates.
    """

    def __init__(
        self,
        writer: tf.summary.SummaryWriter,
        history: History,
        total_steps: int,
        batch_size: int,
        learning_rate: Callable[[int], float],
    ) -> None:
        self._writer, self._history = writer, history
        self._total_steps, self._batch_size, self._learning_rate = total_steps, batch_size, learning_rate
        self._history_steps = max(1, total_steps // _HISTORY_POINTS)
        self._bar: tqdm[Any] | None = None
        self._summary_step = 0
        self._summary_time = self._logged_at = time.monotonic()

    def begin(self, step: int) -> None:
        self._summary_step, self._summary_time = step, time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc="Training", total=self._total_steps, initial=step, unit=" steps", file=sys.stderr)

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        if self._bar is not None:
            self._bar.update(1)
        if step % self._history_steps == 0:
            self._history.add("train", step, {"loss": float(loss), "learning_rate": self._learning_rate(step - 1)})
        if step % SUMMARY_STEPS == 0 or time.monotonic() - self._logged_at >= _LOG_EVERY_SECS:
            self._report(step, float(loss), summarise=step % SUMMARY_STEPS == 0)

    def close(self) -> None:
        self._writer.flush()
        if self._bar is not None:
            self._bar.close()

    def _report(self, step: int, loss: float, *, summarise: bool) -> None:
        now = time.monotonic()
        steps_per_sec = (step - self._summary_step) / max(now - self._summary_time, 1e-9)
        rate = self._learning_rate(step - 1)
        self._logged_at = now
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        else:
            values = f"loss {loss:.4f}, learning rate {rate:.3g}, {steps_per_sec:.1f} steps per second"
            _log.info("Step %d of %d: %s", step, self._total_steps, values)
        if summarise:
            self._summary_step, self._summary_time = step, now
            with self._writer.as_default(step=step):
                tf.summary.scalar("loss", loss)
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("global_step/sec", steps_per_sec)
                tf.summary.scalar("examples/sec", steps_per_sec * self._batch_size)
