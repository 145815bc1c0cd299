"""How a run is followed to its end."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import shlex
import sys
import time

from pipelines.backends import options
from pipelines.backends.base import Backend, Run, SignInError, State, TaskStatus
from pipelines.commands import tables
from tf_image_classification.errors import ServiceError, UnavailableError, UserError

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_SILENT_PAUSE = 0.3, 15.0, 300.0  # seconds between two requests
_PATIENCE = 6 * 3600  # seconds without an answer

_log = logging.getLogger(__name__)
_pause = time.sleep


class RunEnded(UserError):
    """A run that was waited for has not succeeded."""


def follow(service: Backend, run_id: str, arguments: argparse.Namespace) -> Run:
    """Prints a line for each change of a task's state until the run has ended, then its outputs.

    A training takes hours: while the service is busy or cannot be reached, it is asked again for `_PATIENCE` seconds.
    A sign-in that has expired is repeated.

    Args:
        arguments: of the command, for signing in again, and for the command that follows the run again.

    Raises:
        RunEnded: the run failed or was cancelled.
        ServiceError: the service has not answered for too long, or refuses.
        KeyboardInterrupt: after Ctrl-C; the run goes on.
    """
    again = shlex.join(["python", "-m", "pipelines", "runs", "show", run_id, "--wait", *options.given(arguments)])
    try:
        run = _until_ended(service, run_id, arguments)
    except KeyboardInterrupt:
        print(f"The run {run_id} goes on. To follow it again: {again}", file=sys.stderr)
        raise
    except ServiceError as error:
        raise type(error)(
            error.problem,
            received=error.received,
            expected=error.expected,
            hint=f"{error.hint} The run goes on. To follow it again: {again}",
        ) from None
    if run.state != State.SUCCEEDED:
        raise _failure(run, options.given(arguments))
    print(f"Run {run.id} {run.state} after {tables.duration(run.created, run.ended)}")
    print(tables.outputs(run.tasks), end="")
    return run


def _until_ended(service: Backend | None, run_id: str, arguments: argparse.Namespace) -> Run:
    printed: dict[str, State] = {}
    answered, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            service = service or options.connect(arguments)
            run = service.get_run(run_id)
        except UnavailableError as error:
            silence = time.monotonic() - answered
            if silence > _PATIENCE:
                raise
            _log.warning("%s No answer for %.0f min; the run goes on, and is still followed", error, silence / 60)
            pause = min(2 * pause, _LONGEST_SILENT_PAUSE)
        except SignInError:
            if service is None:  # a new sign-in is refused too
                raise
            service = None
        else:
            answered, pause = time.monotonic(), min(1.5 * pause, _LONGEST_PAUSE)
            _print_changes(run, printed)
            if run.state.has_ended:
                return run
        _pause(pause)


def _print_changes(run: Run, printed: dict[str, State]) -> None:
    for task in run.tasks:
        if task.state not in (printed.get(task.name), State.PENDING):
            print(_line(task), flush=True)
        printed[task.name] = task.state


def _line(task: TaskStatus) -> str:
    took = tables.duration(task.started, task.ended)
    return f"{dt.datetime.now():%H:%M:%S}  {task.name:<16} {task.state:<10} {took}".rstrip()


def _failure(run: Run, service: list[str]) -> RunEnded:
    errors = [f"{task.name}: {task.error or 'no message'}" for task in run.tasks if task.state == State.FAILED]
    again = shlex.join(["python", "-m", "pipelines", "runs", "rerun", run.id, *service])
    return RunEnded(
        f"The run {run.id} {'was cancelled' if run.state == State.CANCELLED else 'failed'}",
        received="; ".join(errors) or run.error or None,
        hint=f"The log of each step: {run.link} When the cause is fixed: {again}",
    )
