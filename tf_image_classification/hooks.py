"""What runs around the training loop: loading and saving checkpoints, progress and summaries, the stop at NaN,
preemption.

The loop calls every hook after each step. Losses stay on the device until a hook needs their numbers, so that a hook
does not make the device wait for Python.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import checkpoints, storage
from tf_image_classification.errors import CheckpointError, TrainingError
from tf_image_classification.flags import Flags
from tf_image_classification.training.folder import WARM_START_FILE, TrainingFolder
from tf_image_classification.training.history import History

if TYPE_CHECKING:
    import keras
    from tqdm import tqdm

_log = logging.getLogger(__name__)

SUMMARY_STEPS = 100
_LOG_EVERY_SECS = 10.0
_HISTORY_POINTS = 200


def load_checkpoint(
    model: keras.Model,
    manager: tf.train.CheckpointManager,
    folder: TrainingFolder,
    flags: Flags,
    checkpoint_version: str = "",
) -> dict[str, Any] | None:
    """Gives a training its first state: its own newest checkpoint, else --checkpoint_path, else the initial values.

    Args:
        manager: of the own checkpoints in `folder`; its checkpoint holds the model's variables.
        checkpoint_version: identifies what lies at --checkpoint_path; goes into the record.

    Returns:
        What the training was once warm-started from, also when it now goes on from its own checkpoint; None for
        scratch.

    Raises:
        CheckpointError: own checkpoints are there and none can be read or fits, or --checkpoint_path cannot be used.
    """
    record = os.path.join(folder.local, WARM_START_FILE)
    damaged = []
    # Of a folder that TensorFlow 1 wrote, the manager knows the newest checkpoint alone.
    for path in reversed(manager.checkpoints or [path for path in (manager.latest_checkpoint,) if path]):
        shown = storage.join(folder.path, os.path.basename(path))
        try:
            folder.fetch(path)
            checkpoints.restore(manager.checkpoint, path)
        except (
            tf.errors.OpError,
            OSError,
            IndexError,
        ) as error:  # IndexError: TensorFlow's word for a file that is too short
            damaged.append(shown)
            _log.warning("Passing over the damaged checkpoint %s: %s", shown, str(error).splitlines()[0])
            continue
        _log.info("Continuing from %s", shown)
        if flags.checkpoint_path:
            _log.info("Ignoring --checkpoint_path because %s has a checkpoint already", folder.path)
        return json.loads(storage.read_text(record)) if os.path.exists(record) else None
    if damaged:
        raise CheckpointError(
            f"No checkpoint in {folder.path} can be read",
            received=", ".join(damaged),
            hint="Remove them to start afresh, or use another --model_dir.",
        )
    if not flags.checkpoint_path:
        _log.info("Training from scratch")
        return None
    report = checkpoints.warm_start(model, flags.checkpoint_path, flags.checkpoint_exclude_scopes)
    _log.info("Starting from %s\n%s", flags.checkpoint_path, textwrap.indent(report.table(), "  "))
    made = {
        "checkpoint": flags.checkpoint_path,
        "version": checkpoint_version,
        "loaded": len(report.loaded),
        "not_loaded": sorted([*report.excluded, *report.missing]),
    }
    storage.write_text(record, json.dumps(made, indent=2) + "\n")
    return made


class Hook:
    """The moments of a training that a hook can take part in. Steps are global steps."""

    def begin(self, step: int) -> None:
        """Called once, with the step that training starts from."""

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        """Called after each update; `loss` is the total loss, float32 []."""

    def end(self, step: int) -> None:
        """Called once after the last step, not after an error."""

    def close(self) -> None:
        """Called once in any case, to let go of what the hook holds."""


class NanStop(Hook):
    """Stops training when the loss is not a finite number; asked by whoever saves weights, so that none are saved after
    that."""

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
        """Looks at the losses since the last check.

        Raises:
            TrainingError: one of them is NaN or infinite.
        """
        losses, self._losses = [float(loss) for loss in self._losses], []
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss is not a finite number at step {self._first + offset}",
                    received=f"loss {loss}",
                    hint=(
                        "The last checkpoint is from before it. Lower --learning_rate, or raise "
                        "--opt_epsilon, and run again."
                    ),
                )
        self._first += len(losses)


class CheckpointSaver(Hook):
    """Saves a checkpoint every so many seconds and at the end; others may ask for one in between."""

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
            self._folder.take_over()
            self._saved_step = step
        self._saved_at = time.monotonic()

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        self._folder.check()
        if time.monotonic() - self._saved_at >= self._every_secs:
            self.save(step)

    def end(self, step: int) -> None:
        self.save(step)

    def save(self, step: int) -> None:
        """Saves the state at `step`, unless that is done already; the folder hands it on meanwhile.

        Raises:
            TrainingError: the loss is not a number, the checkpoint cannot be written, or one before it could not be
                handed on.
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
                hint=(
                    "Make room or choose another --model_dir, and run again: training continues "
                    "from the checkpoint before."
                ),
            ) from error
        self._saved_step, self._saved_at = step, time.monotonic()
        _log.info("Saved checkpoint %s", path)
        self._folder.publish(path)


class Preemption(Hook):
    """Saves a checkpoint and stops when the machine is about to go (SIGTERM) or the user wants it (Ctrl-C; a second one
    stops at once)."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, saver: CheckpointSaver, folder: TrainingFolder) -> None:
        self._saver, self._folder = saver, folder
        self._asked = 0
        self._previous: dict[int, Any] = {}
        # Signals can only be handled in the main thread; elsewhere training runs without this hook's help.
        self._possible = threading.current_thread() is threading.main_thread()

    def begin(self, step: int) -> None:
        if self._possible:
            for number in self._SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as a shell starts what it puts into the background
                    self._previous[number] = signal.signal(number, self._ask)

    def after_step(self, step: int, loss: tf.Tensor) -> None:
        if self._asked:
            self._saver.save(step)
            self._folder.finish()
            raise Preempted(self._asked, step)

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._asked = number


class Preempted(SystemExit):
    """Training was asked to stop and has saved its state; the exit code is that of a process ended by the signal."""

    def __init__(self, number: int, step: int) -> None:
        _log.warning(
            "Stopped by %s at step %d, after saving a checkpoint: run again to continue",
            signal.Signals(number).name,
            step,
        )
        super().__init__(128 + number)


class Progress(Hook):
    """A bar on a terminal, a line now and then in a log; summaries for TensorBoard and the training's history."""

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
            _log.info(
                "Step %d of %d: loss %.4f, learning rate %.3g, %.1f steps per second",
                step,
                self._total_steps,
                loss,
                rate,
                steps_per_sec,
            )
        if summarise:
            self._summary_step, self._summary_time = step, now
            with self._writer.as_default(step=step):
                tf.summary.scalar("loss", loss)
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("global_step/sec", steps_per_sec)
                tf.summary.scalar("examples/sec", steps_per_sec * self._batch_size)
