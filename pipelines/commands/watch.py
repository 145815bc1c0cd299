"""How a run is followed to its end."""

from __future__ import annotations

import datetime as dt

from pipelines.backends.base import Backend, Run, State, TaskStatus
from pipelines.commands import tables
from tf_image_classification.errors import UserError


class RunEnded(UserError):
    """A run that was waited for has not succeeded."""


def follow(service: Backend, run_id: str) -> Run:
    """Prints a line for each change of a task's state until the run has ended, then its outputs.

    Raises:
        RunEnded: the run failed or was cancelled.
    """
    import tenacity

    printed: dict[str, State] = {}

    def poll() -> Run:
        run = service.get_run(run_id)
        for task in run.tasks:
            if task.state not in (printed.get(task.name), State.PENDING):
                print(_line(task), flush=True)
            printed[task.name] = task.state
        return run

    until_ended = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda run: not run.state.has_ended),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
    )
    run = until_ended(poll)
    if run.state != State.SUCCEEDED:
        raise _failure(run)
    print(f"Run {run.id} {run.state} after {tables.duration(run.created, run.ended)}")
    print(tables.outputs(run.tasks), end="")
    return run


def _line(task: TaskStatus) -> str:
    took = tables.duration(task.started, task.ended)
    return f"{dt.datetime.now():%H:%M:%S}  {task.name:<16} {task.state:<10} {took}".rstrip()


def _failure(run: Run) -> RunEnded:
    errors = [f"{task.name}: {task.error or 'no message'}" for task in run.tasks if task.state == State.FAILED]
    return RunEnded(
        f"The run {run.id} {'was cancelled' if run.state == State.CANCELLED else 'failed'}",
        received="; ".join(errors) or run.error or None,
        hint=f"The log of each step: {run.link} When the cause is fixed: python -m pipelines runs rerun {run.id}",
    )
