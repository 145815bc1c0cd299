"""SIGTERM and Ctrl-C as a request that is looked at between calls of a platform's API, so that none is cut off."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType


class StopSignal:
    """Whether this process was told to end.

    Attributes:
        number: of the first signal; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0

    def wait(self, seconds: float) -> bool:
        """Waits until a signal comes or the time is over, and returns whether one has come."""
        end = time.monotonic() + seconds
        while not self.number and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        return bool(self.number)

    def exit(self) -> SystemExit:
        """The end of the process, to raise once everything is cleaned up."""
        return SystemExit(128 + self.number)


@contextlib.contextmanager
def listening() -> Iterator[StopSignal]:
    """Takes note of SIGTERM and SIGINT within the block, in the main thread."""
    stop = StopSignal()

    def note(number: int, _: FrameType | None) -> None:
        stop.number = stop.number or number

    earlier = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raises SystemExit on SIGTERM and SIGINT within the block, in the main thread, but where `listening` is used."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
