"""How runs are printed: in a list, and one in full."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from pipelines.backends.base import Run, TaskStatus
from tf_image_classification.command_line import table
from tf_image_classification.errors import printable_lines


def runs(listed: Iterable[Run]) -> str:
    """A line for each run."""
    rows = [
        (run.id, run.state, _time(run.created), duration(run.created, run.ended), run.schedule.rpartition("/")[2])
        for run in listed
    ]
    return table(("run", "state", "created", "took", "schedule"), rows)


def run(shown: Run) -> str:
    """The run, its parameters, and each task with its times, outputs and error."""
    lines = [
        f"{shown.id}  {shown.state}",
        shown.link,
        f"created {_time(shown.created)}, took {duration(shown.created, shown.ended) or '...'}",
    ]
    if shown.schedule:
        lines.append(f"started by schedule {shown.schedule.rpartition('/')[2]}")
    lines += [f"pipeline_root {shown.submission.pipeline_root}", "", "parameters"]
    parameters = sorted(shown.submission.parameters.items())
    lines += [f"  {name:<30} {value}" for name, value in parameters] or ["  all at their defaults"]
    rows = [
        (task.name, task.state, _time(task.started), duration(task.started, task.ended), task.error)
        for task in shown.tasks
    ]
    tasks = table(("task", "state", "started", "took", "error"), rows)
    lines += ["", "tasks", *(f"  {line}" for line in tasks.splitlines())]
    if listed := outputs(shown.tasks):
        lines += ["", "outputs", listed.rstrip()]
    if shown.error:
        lines += ["", f"error: {shown.error}"]
    return printable_lines("\n".join(lines))


def outputs(tasks: Iterable[TaskStatus]) -> str:
    """A line for each output of each task."""
    lines = []
    for task in tasks:
        for name, value in sorted(task.outputs.items()):
            lines.append(f"  {f'{task.name}.{name}':<30} {value}\n")
    return printable_lines("".join(lines))


def duration(start: dt.datetime | None, end: dt.datetime | None) -> str:
    """Hours, minutes and seconds between two times; '' while there is no end."""
    if not (start and end):
        return ""
    minutes, seconds = divmod(round((end - start).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _time(time: dt.datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else ""
