"""What the workers of a synchronous training tell each other, beside their gradients.

All of them make the same steps, each of which ends in collective operations that wait for all. What one task alone may
decide, by its clock or on a signal, is therefore agreed upon: it travels with a step, or all ask the chief at a point
that each of them reaches.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.cluster import Task
from tf_image_classification.training import training_folder
from tf_image_classification.training.training_folder import TrainingFolder


class Workers:
    """The workers of a training; of one alone, nothing here takes time.

    Every method is a point that all workers reach in the same order, and it waits for all of them: for as long as the
    chief takes, for example, to build data, to evaluate or to export. A lost worker is noticed meanwhile.

    Args:
        strategy: of the training.
        task: this process's.
    """

    def __init__(self, strategy: tf.distribute.Strategy, task: Task) -> None:
        self._strategy, self.task = strategy, task

    @property
    def is_chief(self) -> bool:
        """Whether this task decides and writes; the others keep nothing."""
        return self.task.is_chief

    @contextlib.contextmanager
    def open_folder(self, path: str) -> Iterator[TrainingFolder]:
        """The folder of the training, see `training_folder.open_folder`; in other workers than the chief an empty one
        of their own, which is removed after the block."""
        if self.is_chief:
            with training_folder.open_folder(path) as folder:
                yield folder
        else:
            with storage.temporary_dir() as local:
                yield TrainingFolder(path, local)

    def of_chief(self, number: int) -> int:
        """The number that the chief has; 64 bits."""
        if not self.task.is_synchronous:
            return number
        return int(self._sum([tf.constant(number if self.is_chief else 0, tf.int64)])[0])

    def wait_for_chief(self) -> None:
        """Returns once the chief, too, calls it."""
        self.of_chief(0)

    def copy_from_chief(self, variables: Iterable[tf.Variable]) -> None:
        """Sets variables to the values that they have in the chief.

        So the chief alone reads checkpoints: all start from the very same values, and no other worker needs to reach
        the folder or the bucket.
        """
        if not self.task.is_synchronous:
            return
        variables = list(variables)
        values = [tf.convert_to_tensor(variable) for variable in variables]
        # Collective operations know these types; states of random generators are unsigned.
        sent = [value if value.dtype.is_floating else tf.cast(value, tf.int64) for value in values]
        received = self._sum([value if self.is_chief else tf.zeros_like(value) for value in sent])
        for variable, value in zip(variables, received, strict=True):
            variable.assign(tf.cast(value, variable.dtype))

    def _sum(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        @tf.function(autograph=False)
        def sums(values: list[tf.Tensor]) -> list[tf.Tensor]:
            return [self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in values]

        return sums(values)


class Wish(StrEnum):
    """What a worker may want all to do after a step; the names of their values in a step."""

    EVALUATE = "wish/evaluate"
    STOP = "wish/stop"


class Wishes:
    """What workers want, granted by all of them after the same step.

    A wish is reduced with the values of the next step and granted some steps later, so that it costs no collective
    operation of its own, and no step waits for the numbers of the one before. A worker alone grants at once.

    Args:
        task: this process's.
    """

    _LATER = 2  # steps until the numbers of a step are read: the device has work meanwhile

    def __init__(self, task: Task) -> None:
        self._alone = not task.is_synchronous
        self._made: set[Wish] = set()  # not sent yet
        self._pending: set[Wish] = set()  # made, and not granted
        self._granted: set[Wish] = set()
        self._sent: deque[list[tf.Tensor]] = deque()

    def make(self, wish: Wish) -> None:
        """Makes a wish, unless the one of before has not been granted yet."""
        if self._alone:
            self._granted.add(wish)
        elif wish not in self._pending:
            self._made.add(wish)
            self._pending.add(wish)

    def is_granted(self, wish: Wish) -> bool:
        """Whether all workers do after this step what any of them wished."""
        return wish in self._granted

    def exchange(self, update: Callable[..., Mapping[str, tf.Tensor]], iterator: Any) -> Mapping[str, tf.Tensor]:
        """Makes a step: `update` of `steps.train_step`. Returns its values without those of wishes."""
        self._granted = set()
        if self._alone:
            return update(iterator)
        values = dict(update(iterator, {wish.value: tf.constant(float(wish in self._made)) for wish in Wish}))
        self._made = set()
        self._sent.append([values.pop(wish) for wish in Wish])
        if len(self._sent) > self._LATER:
            self._granted = {wish for wish, value in zip(Wish, self._sent.popleft(), strict=True) if float(value) > 0}
            self._pending -= self._granted
        return values
