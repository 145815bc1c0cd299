"""A limit for tests of work that was endless: they fail instead of holding up the suite."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ends_within(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block, also where it waits for a pipe, after so many seconds."""

    def end(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
