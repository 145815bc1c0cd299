"""python -m pipelines runs: lists, shows, cancels and reruns what was submitted."""

from __future__ import annotations

import argparse

from pipelines.backends import options
from pipelines.commands import parameters, run_options, submit, tables, watch
from pipelines.commands.subparsers import SubParsers, add_command, add_group
from tf_image_classification.errors import FlagError


def add_parser(commands: SubParsers) -> None:
    verbs = add_group(commands, "runs", "Lists, shows, cancels or reruns runs.")
    parser = add_command(verbs, "list", _list, "Lists runs, the newest first.")
    options.add_options(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--schedule", default="", metavar="NAME", help="only the runs of this schedule")

    parser = add_command(
        verbs, "show", _show, "Shows a run: its parameters, tasks, times, outputs and errors.", target="RUN"
    )
    options.add_options(parser)
    run_options.add_wait_option(parser)

    parser = add_command(
        verbs, "cancel", _cancel, "Cancels a run.", "The outputs of its finished tasks are kept.", target="RUN"
    )
    options.add_options(parser)

    parser = add_command(
        verbs,
        "rerun",
        _rerun,
        "Runs the same pipeline again, with the same parameters or with some changed.",
        "Finished tasks whose inputs are the same come from the cache; an interrupted training resumes.",
        target="RUN",
    )
    options.add_options(parser)
    run_options.add_options(parser)
    run_options.add_wait_option(parser)
    parameters.add_options(parser)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise FlagError("Invalid value for --limit", received=arguments.limit, expected="a whole number >= 1")
    service = options.connect(arguments)
    schedule_id = service.get_schedule(arguments.schedule).id if arguments.schedule else ""
    print(tables.runs(service.list_runs(arguments.limit, schedule_id)))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    run = service.get_run(arguments.name)
    if arguments.wait:
        watch.follow(service, arguments.name, arguments)
    else:
        print(tables.run(run))
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    run = service.get_run(arguments.name)
    if run.state.has_ended:
        print(f"Run {run.id} had ended: {run.state}")
        return 0
    service.cancel_run(arguments.name)
    print(f"Run {run.id} is being cancelled")
    return 0


def _rerun(arguments: argparse.Namespace) -> int:
    service = options.connect(arguments)
    earlier = service.get_run(arguments.name)
    if not earlier.state.has_ended:
        raise FlagError(
            "This run has not ended",
            received=f"{arguments.name} is {earlier.state}",
            hint=f"Cancel it first: python -m pipelines runs cancel {arguments.name}",
        )
    values = run_options.read_parameters(arguments, dict(earlier.submission.spec), earlier.submission)
    return submit.send(service, run_options.change(earlier.submission, arguments, values), arguments)
