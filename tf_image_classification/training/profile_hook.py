"""Records where the time of a few steps goes: --profile."""

from __future__ import annotations

import logging
import os
from typing import Any

import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.training import steps
from tf_image_classification.training.hook import Hook, Values
from tf_image_classification.training.training_folder import TrainingFolder

_log = logging.getLogger(__name__)

PROFILED_STEPS = 5  # enough to see which differ; the viewers slow down with traces of many
_FOLDERS = ("plugins", "profile")  # where TensorBoard looks for profiles in a folder of summaries


class Profile(Hook):
    """Records a trace of the steps `first` to `first + PROFILED_STEPS - 1`, beside the summaries.

    Comes after all other hooks: each step of the trace then goes from the end of the last hook of the step before to
    that of its own. The loop waits for the device before and after the trace, so that it holds the whole of its steps.
    A training goes on where a profile cannot be recorded.

    Args:
        folder: of the training.
        first: global step, counted from 1.
    """

    def __init__(self, folder: TrainingFolder, first: int) -> None:
        self._folder, self._first = folder, first
        self._steps: list[int] = []  # recorded, the last of which may not have ended yet
        self._is_recording = False
        self._trace: Any = None  # of the step that is made

    def begin(self, step: int) -> None:
        if step >= self._first:
            _log.warning(
                "No profile is recorded: the training goes on from step %d, past --profile %d", step, self._first
            )
        elif step + 1 == self._first:
            _log.warning("The profile begins with the first step, which takes long: it compiles the graph")
            self._start(step)

    def after_step(self, step: int, values: Values) -> None:
        if self._is_recording:
            is_last = len(self._steps) == PROFILED_STEPS
            if is_last:
                _wait_for(values)
            self._end_step()
            if is_last:
                self._save()
            else:
                self._begin_step(step + 1)
        elif step + 1 == self._first:
            _wait_for(values)
            self._start(step)

    def end(self, step: int) -> None:
        self._finish()

    def close(self) -> None:
        self._finish()

    def _start(self, step: int) -> None:
        try:
            tf.profiler.experimental.start(self._folder.local)
        except tf.errors.OpError as error:
            _log.warning("No profile is recorded: %s", error.message)
            return
        self._is_recording = True
        self._begin_step(step + 1)

    def _begin_step(self, step: int) -> None:
        self._steps.append(step)
        # By these names TensorFlow's tools find the steps of a trace.
        self._trace = tf.profiler.experimental.Trace("train", step_num=step, _r=1)
        self._trace.__enter__()

    def _end_step(self) -> None:
        if self._trace is not None:
            self._trace.__exit__(None, None, None)
            self._trace = None

    def _finish(self) -> None:
        """Saves what there is of a training that ends or fails within the steps of the trace."""
        if self._is_recording:
            self._steps.pop()  # has not been made
            self._save()
            self._end_step()  # after the trace, which has only what has ended

    def _save(self) -> None:
        self._is_recording = False
        local = os.path.join(self._folder.local, *_FOLDERS)
        before = set(_names(local))
        try:
            tf.profiler.experimental.stop(save=bool(self._steps))
        except (tf.errors.OpError, OSError) as error:
            _log.warning("The profile cannot be written: %s", str(error).splitlines()[0])
            return
        for name in set(_names(local)) - before:
            self._folder.publish_logs()
            _log.info(
                "Profile of steps %d to %d: %s. To open it: pip install xprof, then xprof --logdir %s",
                self._steps[0],
                self._steps[-1],
                storage.join(self._folder.path, *_FOLDERS, name),
                self._folder.path,
            )


def _wait_for(values: Values) -> None:
    """Returns when the device has made the step of these values."""
    float(values[steps.LOSS])


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
