"""Shows how a training goes: progress bar or log, TensorBoard summaries, history."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification.training.history import History
from tf_image_classification.training.hook import Hook, Values
from tf_image_classification.training.readings import Readings

if TYPE_CHECKING:
    from tqdm import tqdm

_log = logging.getLogger(__name__)

SUMMARY_STEPS = 100  # as tf.estimator's save_summary_steps
_LOG_EVERY_SECS = 10.0  # without a terminal
_HISTORY_POINTS = 200  # entries recorded on the way to --train_steps: enough for a smooth curve


class Progress(Hook):
    """Shows a bar on a terminal, or logs a line at intervals; writes TensorBoard summaries and the training's history.

    The values of the history are means over the steps since the entry before, those elsewhere the last step's. Its
    entries are written when values are read: with each report, and by `write_history`.

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
        self._step = 0
        self._readings = Readings()
        self._since_entry: list[dict[str, float]] = []
        self._bar: tqdm[Any] | None = None
        self._summary_step = 0
        self._summary_time = self._logged_at = time.monotonic()

    def begin(self, step: int) -> None:
        self._step = self._summary_step = step
        self._summary_time = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc="Training", total=self._total_steps, initial=step, unit=" steps", file=sys.stderr)

    def after_step(self, step: int, values: Values) -> None:
        if self._bar is not None:
            self._bar.update(1)
        self._step = step
        self._readings.add(values)
        if step % SUMMARY_STEPS == 0 or time.monotonic() - self._logged_at >= _LOG_EVERY_SECS:
            numbers = self.write_history()[-1]
            self._report(step, numbers, summarise=step % SUMMARY_STEPS == 0)

    def write_history(self) -> list[dict[str, float]]:
        """Writes the entries up to the last step; returns the values of the steps since the last call."""
        numbers = self._readings.take()
        for step, values in enumerate(numbers, self._step - len(numbers) + 1):
            self._since_entry.append(values)
            if step % self._history_steps == 0:
                means = {name: sum(entry[name] for entry in self._since_entry) for name in values}
                means = {name: total / len(self._since_entry) for name, total in means.items()}
                self._history.add("train", step, {**means, "learning_rate": self._learning_rate(step - 1)})
                self._since_entry = []
        return numbers

    def end(self, step: int) -> None:
        self.write_history()

    def close(self) -> None:
        try:
            self.write_history()  # of a training that fails, too: the curve up to there
        except (tf.errors.OpError, OSError) as error:  # what has ended the training
            _log.debug("The history lacks the last steps: %s", error)
        self._writer.flush()
        if self._bar is not None:
            self._bar.close()

    def _report(self, step: int, values: dict[str, float], *, summarise: bool) -> None:
        now = time.monotonic()
        steps_per_sec = (step - self._summary_step) / max(now - self._summary_time, 1e-9)
        rate = self._learning_rate(step - 1)
        self._logged_at = now
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()}, refresh=False)
        else:
            shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
            speed = f"learning rate {rate:.3g}, {steps_per_sec:.1f} steps per second"
            _log.info("Step %d of %d: %s, %s", step, self._total_steps, shown, speed)
        if summarise:
            self._summary_step, self._summary_time = step, now
            with self._writer.as_default(step=step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("global_step/sec", steps_per_sec)
                tf.summary.scalar("examples/sec", steps_per_sec * self._batch_size)
