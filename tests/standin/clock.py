"""A clock that a test can move, and when a cron expression fires by it."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo

from cronsim import CronSim, CronSimError

_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)")


class Clock:
    """Real time, moved forward by what `advance_to` has added."""

    def __init__(self) -> None:
        self._moved = dt.timedelta()

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self._moved

    def advance_to(self, time: dt.datetime) -> None:
        self._moved += max(time - self.now(), dt.timedelta())


def next_time(cron: str, after: dt.datetime) -> dt.datetime:
    """When `cron` (five fields, `CRON_TZ=ZONE` before them or UTC) fires next.

    Raises:
        ValueError: it is no cron expression, or there is no such time zone.
    """
    found = _ZONE.fullmatch(cron.strip())
    zone, fields = found.groups() if found else ("UTC", cron)
    try:
        return next(CronSim(fields, after.astimezone(zoneinfo.ZoneInfo(zone)))).astimezone(dt.UTC)
    except (CronSimError, zoneinfo.ZoneInfoNotFoundError, StopIteration) as error:
        raise ValueError(f"Invalid cron {cron!r}: {error}") from None
