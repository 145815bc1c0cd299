"""How a run is shown: as it goes on, in a list, and in full."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import tenacity

from pipelines.backends import base as backend
from pipelines.backends.base import Backend, Run, Task
from tf_image_classification.errors import UserError


class RunEnded(UserError):
    """A run that was waited for has not succeeded."""


def until_ended(service: Backend, run_id: str) -> Run:
    """Prints a line for each change of a task until the run has ended.

    Raises:
        RunEnded: it failed or was cancelled.
    """
    shown: dict[str, str] = {}

    def look() -> Run:
        run = service.run(run_id)
        for task in run.tasks:
            if task.state not in (shown.get(task.name), backend.PENDING):
                print(
                    f"{dt.datetime.now():%H:%M:%S}  {task.name:<16} {task.state:<10} "
                    f"{_took(task.started, task.ended)}".rstrip(),
                    flush=True,
                )
            shown[task.name] = task.state
        return run

    poll = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda run: run.state not in backend.ENDED),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
    )
    run = poll(look)
    if run.state != backend.SUCCEEDED:
        failed = [task for task in run.tasks if task.state == backend.FAILED]
        raise RunEnded(
            f"The run {run.id} {'was cancelled' if run.state == backend.CANCELLED else 'failed'}",
            received="; ".join(f"{task.name}: {task.error or 'no message'}" for task in failed) or run.error or None,
            hint=f"The log of each step: {run.link} When the cause is mended: python -m pipelines runs rerun {run.id}",
        )
    print(f"Run {run.id} {run.state} after {_took(run.created, run.ended)}")
    print(outputs(run.tasks), end="")
    return run


def in_full(run: Run) -> str:
    """The run, its parameters, and each task with its times, outputs and error."""
    lines = [
        f"{run.id}  {run.state}",
        run.link,
        f"created {_at(run.created)}, took {_took(run.created, run.ended) or '...'}",
    ]
    if run.schedule:
        lines.append(f"started by schedule {run.schedule.rpartition('/')[2]}")
    lines += [f"pipeline_root {run.submission.pipeline_root}", "", "parameters"]
    lines += [f"  {name:<30} {value}" for name, value in sorted(run.submission.parameters.items())] or [
        "  all at their defaults"
    ]
    lines += ["", "tasks"]
    rows = [
        (task.name, task.state, _at(task.started), _took(task.started, task.ended), task.error) for task in run.tasks
    ]
    lines += [f"  {line}" for line in table(("task", "state", "started", "took", "error"), rows).splitlines()]
    if made := outputs(run.tasks):
        lines += ["", "outputs", made.rstrip()]
    if run.error:
        lines += ["", f"error: {run.error}"]
    return "\n".join(lines)


def outputs(tasks: Iterable[Task]) -> str:
    """A line for each output of each task."""
    return "".join(
        f"  {f'{task.name}.{name}':<30} {value}\n" for task in tasks for name, value in sorted(task.outputs.items())
    )


def in_list(runs: Iterable[Run]) -> str:
    """A line for each run."""
    rows = [
        (run.id, run.state, _at(run.created), _took(run.created, run.ended), run.schedule.rpartition("/")[2])
        for run in runs
    ]
    return table(("run", "state", "created", "took", "schedule"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def _at(time: dt.datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else ""


def _took(start: dt.datetime | None, end: dt.datetime | None) -> str:
    """Hours, minutes and seconds between two times; '' while there is no end."""
    if not (start and end):
        return ""
    minutes, seconds = divmod(round((end - start).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
