"""The share of a process in each global batch of a training. It imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Neighbouring parts of each global batch, which is cut into `total` equal ones in the order of its examples.

    A process with several devices has as many parts, and reads them one after the other in each step.

    Attributes:
        first: number of its first part, from 0.
        count: how many parts are its own.
        total: parts of a batch: the replicas of the whole cluster.
    """

    first: int
    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.first + self.count <= self.total:
            raise ValueError(f"{self} names no parts. Expected: 0 <= first < first + count <= total")

    def examples_each(self, batch_size: int) -> int:
        """Number of examples of one part of a global batch of `batch_size`, which `total` must divide."""
        examples, rest = divmod(batch_size, self.total)
        if rest:
            raise ValueError(f"A batch of {batch_size} examples cannot be cut into {self.total} equal parts")
        return examples

    def positions(self, batch_size: int) -> range:
        """Positions in a global batch of the examples of its own parts."""
        each = self.examples_each(batch_size)
        return range(self.first * each, (self.first + self.count) * each)
