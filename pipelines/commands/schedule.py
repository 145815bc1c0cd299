"""python -m pipelines schedule: recurring runs."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import zoneinfo

from pipelines.backends import options
from pipelines.backends.base import Schedule
from pipelines.commands import compile_options, parameters, recurrence_options, run_options, tables
from pipelines.commands.subparsers import Handler, SubParsers, add_command, add_group
from tf_image_classification.command_line import Parser, table
from tf_image_classification.errors import printable


def add_parser(commands: SubParsers) -> None:
    verbs = add_group(commands, "schedule", "Starts runs of the pipeline at recurring times.")
    _add_writing(
        verbs,
        "create",
        _create,
        "Creates a schedule, which starts runs of the pipeline at recurring times.",
        "Each run reads the data that exists when it starts; unchanged data trains nothing anew.",
    )
    options.add_options(add_command(verbs, "list", _list, "Lists schedules, the newest first."))
    _add_named(verbs, "show", _show, "Shows a schedule, the parameters of its runs, and its latest runs.")
    _add_writing(verbs, "update", _update, "Changes a schedule.", "What is not given stays as it is; '' unsets a flag.")
    _add_named(verbs, "pause", _pause, "Pauses a schedule: it starts no runs. Active runs continue.")
    resume = _add_named(verbs, "resume", _resume, "Resumes a paused schedule.")
    resume.add_argument(
        "--catch_up",
        action="store_true",
        help="also start the runs that the pause skipped; Kubeflow starts the latest in any case, and all if the "
        "schedule has --queue true",
    )
    _add_named(verbs, "delete", _delete, "Deletes a schedule. Its runs are kept.")


def _add_named(verbs: SubParsers, verb: str, handler: Handler, description: str, *details: str) -> Parser:
    parser = add_command(verbs, verb, handler, description, *details, target="NAME")
    options.add_options(parser)
    return parser


def _add_writing(verbs: SubParsers, verb: str, handler: Handler, description: str, *details: str) -> None:
    parser = _add_named(verbs, verb, handler, description, *details)
    recurrence_options.add_options(parser)
    compile_options.add_template_options(parser)
    run_options.add_shared_options(parser.add_argument_group("Run"))
    parameters.add_options(parser)


def _create(arguments: argparse.Namespace) -> int:
    recurrence = recurrence_options.new_recurrence(arguments)
    given = compile_options.load_template(arguments)
    values = run_options.read_parameters(arguments, given.spec if given else None)
    pipeline = given or compile_options.compile_checkout(arguments)
    submission = run_options.new_submission(arguments, pipeline, values)
    service = options.connect(arguments)
    service.check_pipeline_root(submission.pipeline_root)
    created = service.create_schedule(arguments.name, recurrence, dataclasses.replace(submission, run_id=""))
    first = f"; its first run is at {_next_run(created)}" if created.next_run else ""
    print(f"Schedule {created.name} created{first}")
    print(created.link)
    _print_late_runs(created)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    rows = []
    for schedule in options.connect(arguments).list_schedules():
        started = "" if schedule.started_runs is None else str(schedule.started_runs)
        recurrence = schedule.recurrence
        rows.append(
            (schedule.name, schedule.state, recurrence.cron, recurrence.time_zone, _next_run(schedule), started)
        )
    print(table(("schedule", "state", "cron", "time zone", "next run", "runs"), rows))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    schedule = service.get_schedule(arguments.name)
    recurrence = schedule.recurrence
    start = _local_time(recurrence.start, recurrence.time_zone) or "its creation"
    end = _local_time(recurrence.end, recurrence.time_zone) or "no end"
    rows = [(name, str(value)) for name, value in sorted(schedule.submission.parameters.items())]
    print(f"{schedule.name}  {schedule.state}")
    print(schedule.link)
    print(f"{recurrence.cron} ({recurrence.time_zone}), next run {_next_run(schedule) or '-'}")
    others = "" if schedule.late_runs else f", the others {'wait' if recurrence.queue else 'are skipped'}"
    print(f"from {start} to {end}; at most {recurrence.max_concurrent_runs} at once{others}")
    _print_late_runs(schedule)
    print(printable(f"pipeline_root {schedule.submission.pipeline_root}"))
    print(f"\n{table(('parameter', 'value'), rows)}\n")
    print(tables.runs(service.list_runs(10, schedule.id)))
    return 0


def _update(arguments: argparse.Namespace) -> int:
    template = compile_options.load_template(arguments)
    service = options.connect(arguments)
    current = service.get_schedule(arguments.name)
    base = current.submission
    if template:
        base = dataclasses.replace(base, spec=template.spec, platforms=template.platforms)
    values = run_options.read_parameters(arguments, dict(base.spec), base)
    submission = run_options.change(base, arguments, values)
    if submission.pipeline_root != current.submission.pipeline_root:
        service.check_pipeline_root(submission.pipeline_root)
    recurrence = recurrence_options.change(current.recurrence, arguments)
    updated = service.update_schedule(current, recurrence, dataclasses.replace(submission, run_id=""))
    print(f"Schedule {updated.name} updated; it is {updated.state}, next run {_next_run(updated) or '-'}")
    print(updated.link)
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    service.pause_schedule(service.get_schedule(arguments.name))
    print(f"Schedule {arguments.name} is paused")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    service.resume_schedule(service.get_schedule(arguments.name), arguments.catch_up)
    resumed = service.get_schedule(arguments.name)
    following = f"; its next run is at {_next_run(resumed)}" if resumed.next_run else ""
    print(f"Schedule {arguments.name} is active{following}")
    _print_late_runs(resumed)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    service.delete_schedule(service.get_schedule(arguments.name))
    print(f"Schedule {arguments.name} is deleted")
    return 0


def _print_late_runs(schedule: Schedule) -> None:
    if schedule.late_runs:
        print(schedule.late_runs)


def _next_run(schedule: Schedule) -> str:
    return _local_time(schedule.next_run, schedule.recurrence.time_zone)


def _local_time(time: dt.datetime | None, zone: str) -> str:
    return f"{time.astimezone(zoneinfo.ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}" if time else ""
