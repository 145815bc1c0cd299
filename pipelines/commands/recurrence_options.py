"""The options that decide when a schedule starts runs."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import zoneinfo

from pipelines.backends.base import Recurrence
from tf_image_classification.errors import FlagError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("Schedule")
    group.add_argument(
        "--cron", metavar='"M H D M W"', help='minute, hour, day, month, weekday: "0 3 * * 1" is Mondays at 3'
    )
    group.add_argument("--time_zone", metavar="ZONE", help="time zone of --cron, as Europe/Berlin (default: UTC)")
    group.add_argument("--start", metavar="TIME", help="no run before, as 2030-01-31T00:00 in the time zone")
    group.add_argument("--end", metavar="TIME", help="no run after")
    group.add_argument("--max_concurrent_runs", type=int, metavar="N", help="maximum at the same time (default: 1)")
    group.add_argument(
        "--queue",
        choices=("true", "false"),
        help="a run beyond --max_concurrent_runs waits, or is skipped (default); on Kubeflow the latest always "
        "waits, and with true all of them, as do those that a pause skipped",
    )


def new_recurrence(arguments: argparse.Namespace) -> Recurrence:
    """The recurrence that the options describe.

    Raises:
        FlagError: --cron is missing, or an option has an invalid value.
    """
    if not arguments.cron:
        raise FlagError(
            "--cron is required", expected='minute hour day month weekday, as --cron "0 3 * * 1" for Mondays at 3'
        )
    defaults = Recurrence(cron="", time_zone="UTC", start=None, end=None, max_concurrent_runs=1, queue=False)
    return change(defaults, arguments)


def change(recurrence: Recurrence, arguments: argparse.Namespace) -> Recurrence:
    """`recurrence` with the options that are given.

    Raises:
        FlagError: an option has an invalid value.
    """
    zone = _zone(arguments.time_zone or recurrence.time_zone)
    changes: dict[str, object] = {"time_zone": zone.key}
    if arguments.cron:
        if len(arguments.cron.split()) != 5:
            raise FlagError(
                "Invalid value for --cron",
                received=arguments.cron,
                expected='five fields, as "0 3 * * 1" for Mondays at 3',
            )
        changes["cron"] = arguments.cron
    for name in ("start", "end"):
        if text := getattr(arguments, name):
            changes[name] = _time(name, text, zone)
    if arguments.max_concurrent_runs is not None:
        if arguments.max_concurrent_runs < 1:
            raise FlagError(
                "Invalid value for --max_concurrent_runs",
                received=arguments.max_concurrent_runs,
                expected="a whole number >= 1",
            )
        changes["max_concurrent_runs"] = arguments.max_concurrent_runs
    if arguments.queue:
        changes["queue"] = arguments.queue == "true"
    return dataclasses.replace(recurrence, **changes)  # type: ignore[arg-type]


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise FlagError(
            "Invalid value for --time_zone", received=name, expected="an IANA name, as Europe/Berlin"
        ) from None


def _time(option: str, text: str, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    """A time in UTC, from one in ISO 8601; without an offset it is in `zone`."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise FlagError(f"Invalid value for --{option}", received=text, expected="a time as 2030-01-31T00:00") from None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(dt.UTC)
