"""python -m pipelines schedule: runs that start by themselves."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import zoneinfo
from collections.abc import Callable, Sequence

from pipelines import template
from pipelines.backends import base as backend
from pipelines.backends import options
from pipelines.backends.base import Plan, Submission
from pipelines.commands import following, submit
from tf_image_classification import command_line
from tf_image_classification.errors import FlagError

_PROG = "python -m pipelines schedule"


def _create(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} create NAME",
        "Starts a run of the pipeline again and again.",
        "What the data is, each run finds out when it starts: unchanged data trains nothing anew.",
    )
    _add_options(parser)
    given, words = template.parse_options(parser, argv)
    if not given.cron:
        raise FlagError(
            "--cron is required", expected='minute hour day month weekday, as --cron "0 3 * * 1" for Mondays at 3'
        )
    plan = _changed(Plan("", "UTC", None, None, max_concurrent_runs=1, queue=False), given)
    spec = template.chosen(given)
    parameters = submit.read_parameters(parser, given, words, spec)
    service = options.connect(given)
    blank = Submission(run_id="", spec=spec or template.compiled(given), parameters={}, pipeline_root="")
    submission = submit.changed(blank, given, parameters)
    service.check_root(submission.pipeline_root)
    made = service.create_schedule(name, plan, dataclasses.replace(submission, run_id=""))
    print(
        f"Schedule {made.name} created"
        + (f"; its first run is at {_at(made.next_run, made.plan.time_zone)}" if made.next_run else "")
    )
    print(made.link)
    return 0


def _list(argv: Sequence[str]) -> int:
    parser = command_line.Parser(f"{_PROG} list", "Lists schedules, the newest first.")
    options.add_options(parser)
    service = options.connect(parser.parse_args(argv))
    rows = [
        (
            one.name,
            one.state,
            one.plan.cron,
            one.plan.time_zone,
            _at(one.next_run, one.plan.time_zone),
            "" if one.started_runs is None else str(one.started_runs),
        )
        for one in service.schedules()
    ]
    print(following.table(("schedule", "state", "cron", "time zone", "next run", "runs"), rows))
    return 0


def _show(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} show NAME", "Shows a schedule, what its runs are given, and its latest runs."
    )
    options.add_options(parser)
    service = options.connect(parser.parse_args(argv))
    one = service.schedule(name)
    plan, rows = one.plan, [(key, str(value)) for key, value in sorted(one.submission.parameters.items())]
    print(
        f"{one.name}  {one.state}\n{one.link}\n{plan.cron} ({plan.time_zone}), next run "
        f"{_at(one.next_run, plan.time_zone) or '-'}"
    )
    print(
        f"from {_at(plan.start, plan.time_zone) or 'its creation'} to {_at(plan.end, plan.time_zone) or 'no end'}",
        end="; ",
    )
    print(f"at most {plan.max_concurrent_runs} at once, the others {'wait' if plan.queue else 'are left out'}")
    print(f"pipeline_root {one.submission.pipeline_root}\n\n{following.table(('parameter', 'value'), rows)}\n")
    print(following.in_list(service.runs(10, one.id)))
    return 0


def _pause(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} pause NAME", "Starts no more runs until it is resumed; those that are going on go on."
    )
    options.add_options(parser)
    service = options.connect(parser.parse_args(argv))
    service.pause(service.schedule(name))
    print(f"Schedule {name} is paused")
    return 0


def _resume(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(f"{_PROG} resume NAME", "Starts runs again.")
    options.add_options(parser)
    parser.add_argument("--catch_up", action="store_true", help="also start the runs that the pause left out")
    given = parser.parse_args(argv)
    service = options.connect(given)
    service.resume(service.schedule(name), given.catch_up)
    resumed = service.schedule(name)
    plan = resumed.plan
    print(
        f"Schedule {name} is active"
        + (f"; its next run is at {_at(resumed.next_run, plan.time_zone)}" if resumed.next_run else "")
    )
    return 0


def _update(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} update NAME", "Changes a schedule. What is not named stays as it is; '' unsets a flag."
    )
    _add_options(parser)
    given, words = template.parse_options(parser, argv)
    new_spec = template.chosen(given)
    service = options.connect(given)
    current = service.schedule(name)
    base = dataclasses.replace(current.submission, spec=new_spec or current.submission.spec)
    parameters = submit.read_parameters(parser, given, words, dict(base.spec), base)
    submission = submit.changed(base, given, parameters)
    if submission.pipeline_root != current.submission.pipeline_root:
        service.check_root(submission.pipeline_root)
    changed = service.update_schedule(
        current, _changed(current.plan, given), dataclasses.replace(submission, run_id="")
    )
    print(
        f"Schedule {changed.name} updated; it is {changed.state}, next run "
        f"{_at(changed.next_run, changed.plan.time_zone) or '-'}"
    )
    print(changed.link)
    return 0


def _delete(name: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(f"{_PROG} delete NAME", "Deletes a schedule. Runs that it has started stay.")
    options.add_options(parser)
    service = options.connect(parser.parse_args(argv))
    service.delete_schedule(service.schedule(name))
    print(f"Schedule {name} is deleted")
    return 0


def _add_options(parser: command_line.Parser) -> None:
    options.add_options(parser)
    group = parser.add_argument_group("Schedule")
    group.add_argument(
        "--cron", metavar='"M H D M W"', help='minute, hour, day, month, weekday: "0 3 * * 1" is Mondays at 3'
    )
    group.add_argument("--time_zone", metavar="ZONE", help="that --cron is in, as Europe/Berlin (default: UTC)")
    group.add_argument("--start", metavar="TIME", help="no run before, as 2030-01-31T00:00 in the time zone")
    group.add_argument("--end", metavar="TIME", help="no run after")
    group.add_argument("--max_concurrent_runs", type=int, metavar="N", help="at most so many at once (default: 1)")
    group.add_argument(
        "--queue", choices=("true", "false"), help="a run that would be one too many waits, or is left out (default)"
    )
    template.add_options(parser)
    template.add_params_option(parser)
    submit.add_shared_options(parser.add_argument_group("Run"))


def _changed(plan: Plan, given: argparse.Namespace) -> Plan:
    """`plan` with what the options say.

    Raises:
        FlagError: an option's value is not one that it takes.
    """
    options: dict[str, object] = {}
    zone_name = given.time_zone or plan.time_zone
    try:
        zone = zoneinfo.ZoneInfo(zone_name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise FlagError(
            "Invalid value for --time_zone",
            received=zone_name,
            expected="an IANA name, as Europe/Berlin",
        ) from None
    options["time_zone"] = zone_name
    if given.cron:
        if len(given.cron.split()) != 5:
            raise FlagError(
                "Invalid value for --cron",
                received=given.cron,
                expected='five fields, as "0 3 * * 1" for Mondays at 3',
            )
        options["cron"] = given.cron
    for name in ("start", "end"):
        if text := getattr(given, name):
            try:
                time = dt.datetime.fromisoformat(text)
            except ValueError:
                raise FlagError(
                    f"Invalid value for --{name}", received=text, expected="a time as 2030-01-31T00:00"
                ) from None
            options[name] = (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(dt.UTC)
    if given.max_concurrent_runs is not None:
        if given.max_concurrent_runs < 1:
            raise FlagError(
                "Invalid value for --max_concurrent_runs",
                received=given.max_concurrent_runs,
                expected="at least 1",
            )
        options["max_concurrent_runs"] = given.max_concurrent_runs
    if given.queue:
        options["queue"] = given.queue == "true"
    return dataclasses.replace(plan, **options)  # type: ignore[arg-type]


def _at(time: dt.datetime | None, zone: str) -> str:
    return f"{time.astimezone(zoneinfo.ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}" if time else ""


_VERBS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "create": _create,
    "show": _show,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "delete": _delete,
}
_HELP = """usage: python -m pipelines schedule COMMAND [options]

Commands:
  create NAME  start a run of the pipeline again and again
  list         schedules, the newest first
  show NAME    a schedule, what its runs are given, and its latest runs
  pause NAME   start no more runs
  resume NAME  start runs again
  update NAME  change the times, the flags or the pipeline
  delete NAME  delete it; its runs stay

`python -m pipelines schedule COMMAND --help` lists a command's options.
"""


def main(argv: Sequence[str]) -> int:
    return backend.dispatch(_HELP, {"list": _list}, _VERBS, argv)
