"""How often a cluster that loses tasks is started again."""

from __future__ import annotations

_LONG_SECS = 600.0
_MAX_PAUSE_SECS = 30.0


class Restarts:
    """Counts the restarts in a row: those of what has not run for ten minutes since the last one.

    Spot machines that are taken once an hour restart a long training without end; what fails at its start does not.

    Args:
        limit: restarts in a row.
    """

    def __init__(self, limit: int = 10) -> None:
        self.limit, self._in_a_row = limit, 0

    def add(self, ran_secs: float) -> bool:
        """Counts a restart, and returns whether there may be one.

        Args:
            ran_secs: how long what is restarted has run.
        """
        self._in_a_row = 1 if ran_secs >= _LONG_SECS else self._in_a_row + 1
        return self._in_a_row <= self.limit

    @property
    def pause_secs(self) -> float:
        """How long to wait before the restart that was counted last: a second, and twice as long each time."""
        return min(2.0 ** (self._in_a_row - 1), _MAX_PAUSE_SECS)
