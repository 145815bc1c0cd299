"""What the training loop calls around its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

Values: TypeAlias = Mapping[str, tf.Tensor]  # of a step


class Hook:
    """What the loop calls, in the order of the methods. Steps are global steps; a hook overrides what it needs.

    Attributes:
        should_stop: read after each step; True ends the training.
    """

    should_stop = False

    def begin(self, step: int) -> None:
        """Called once before the first update, with the step that training starts from."""

    def after_step(self, step: int, values: Values) -> None:
        """Called after each update; `step` counts it. `values` are those of `steps.train_step`: `loss` and others, each
        float32 [], on the device.

        An exception ends the training; hooks later in the list are not called for this step.
        """

    def end(self, step: int) -> None:
        """Called once after the last update, not after an exception."""

    def close(self) -> None:
        """Called once in any case, after an exception too, to release what the hook holds."""
