"""A clock that a test can advance, and the times at which a cron expression fires."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo

from cronsim import CronSim, CronSimError

_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)")


class Clock:
    """Real time, plus what `advance_to` has added."""

    def __init__(self) -> None:
        self._offset = dt.timedelta()

    def now(self) -> dt.datetime:
        """The time, in UTC."""
        return dt.datetime.now(dt.UTC) + self._offset

    def advance_to(self, time: dt.datetime) -> None:
        """Sets the clock forward to a time; never back."""
        self._offset += max(time - self.now(), dt.timedelta())


def next_time(cron: str, after: dt.datetime) -> dt.datetime:
    """The next time at which a cron expression fires, in UTC.

    Args:
        cron: five fields, in UTC unless `CRON_TZ=ZONE` precedes them.
        after: the time after which to search.

    Raises:
        ValueError: the cron expression is invalid, or the time zone not found.
    """
    found = _ZONE.fullmatch(cron.strip())
    zone, fields = found.groups() if found else ("UTC", cron)
    try:
        return next(CronSim(fields, after.astimezone(zoneinfo.ZoneInfo(zone)))).astimezone(dt.UTC)
    except (CronSimError, zoneinfo.ZoneInfoNotFoundError, StopIteration) as error:
        raise ValueError(f"Invalid cron {cron!r}: {error}") from None
