"""The values of steps, left on the device until somebody needs their numbers."""

from __future__ import annotations

import tensorflow as tf

from tf_image_classification.training.hook import Values


class Readings:
    """Collects the values of steps, and reads them all in one copy.

    Reading makes the host wait for the device. Once for many steps, that costs nothing; once per step, the device would
    in turn wait for the host to send it the next one.
    """

    def __init__(self) -> None:
        self._steps: list[Values] = []

    def __len__(self) -> int:
        """The number of steps that have not been read."""
        return len(self._steps)

    def add(self, values: Values) -> None:
        """Adds those of the next step; each has the same names, and float32 [] values."""
        self._steps.append(values)

    def take(self) -> list[dict[str, float]]:
        """The numbers of the steps that were added since the last call, in their order."""
        steps, self._steps = self._steps, []
        if not steps:
            return []
        names = list(steps[0])
        stacked = tf.stack([values[name] for values in steps for name in names])
        rows = stacked.numpy().reshape(len(steps), len(names)).tolist()
        return [dict(zip(names, row, strict=True)) for row in rows]
