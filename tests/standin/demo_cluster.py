"""Trains the sample on two workers, kills one of them, and shows what happens: python -m tests.standin.demo_cluster PNG

The workers are processes of this machine; a stand-in for the platform restarts what ends with a retryable exit code.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.commands import tables
from pipelines.local import sample
from tests.standin import demo_picture
from tests.training.clusters import Cluster, Restarter
from tf_image_classification.checkpoints import checkpoint_file

_KILLED, _KILLED_AT = "worker:1", 100  # the global step of a checkpoint
_HANG_SECONDS = 180
_FLAGS = {name: value for name, value in sample.FLAGS.items() if name != "min_accuracy"}
_CODES = {0: "done", 137: "killed", 138: "another task was lost: to be restarted", 143: "stopped by SIGTERM"}

# A line of a task's log -> what happens.
_EVENTS = (
    (re.compile(r"(Training from scratch)"), r"\1"),
    (re.compile(r"Continuing from .*ckpt-(\d+)"), r"continues from the checkpoint of step \1"),
    (re.compile(r"error: (Another task of the cluster was lost)"), r"\1"),
    (re.compile(r"Evaluation at step (\d+) .* (accuracy [\d.]+)"), r"step \1: \2"),
    (re.compile(r"(Exported the model)"), r"\1"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a task.

    Attributes:
        seconds: since the start of the job.
        task: such as "worker:1".
        what: in words.
    """

    seconds: float
    task: str
    what: str


class _Timeline:
    """Collects the events of a job, and kills a task of it once; called by `Restarter.run`."""

    def __init__(self, cluster: Cluster, restarter: Restarter, model_dir: Path) -> None:
        self.events: list[Event] = []
        self._cluster, self._restarter, self._model_dir = cluster, restarter, model_dir
        self._start = time.monotonic()
        self._starts, self._lines = dict.fromkeys(cluster.tasks, 0), dict.fromkeys(cluster.tasks, 0)
        self._exits = 0
        self._has_killed = False

    def __call__(self) -> None:
        for end in self._restarter.exits[self._exits :]:
            self._add(end.task, f"ends with {end.code}: {_CODES.get(end.code, 'failed')}", end.seconds)
        self._exits = len(self._restarter.exits)
        for task in self._cluster.tasks:
            if self._cluster.starts[task] > self._starts[task]:
                self._add(task, "is started again" if self._starts[task] else "starts")
                self._starts[task] = self._cluster.starts[task]
            self._read_log(task)
        path = checkpoint_file.latest(str(self._model_dir)) if self._model_dir.is_dir() else None
        step = int(path.rpartition("-")[2]) if path else 0
        if step >= _KILLED_AT and not self._has_killed:
            self._has_killed = True
            self._cluster.kill(_KILLED)
            self._add(_KILLED, f"kill -9; the newest checkpoint is of step {step}")

    def _read_log(self, task: str) -> None:
        lines = self._cluster.output(task).splitlines()
        for line in lines[self._lines[task] :]:
            for pattern, what in _EVENTS:
                if match := pattern.search(line):
                    self._add(task, match.expand(what))
        self._lines[task] = len(lines)

    def _add(self, task: str, what: str, seconds: float | None = None) -> None:
        self.events.append(Event(time.monotonic() - self._start if seconds is None else seconds, task, what))


def simulate(folder: Path) -> list[Event]:
    """Runs the training, with all files below a local folder.

    Returns:
        What happened, in order.

    Raises:
        RuntimeError: a task did not end well.
        TimeoutError: the job hung.
    """
    flags = [word for name, value in _FLAGS.items() for word in (f"--{name}", str(value))]
    data, model_dir = sample.write(str(folder / "digits")), folder / "model"
    command = [sys.executable, "-m", "tf_image_classification.train_estimator", "--train_metadata", data, *flags]
    with Cluster([*command, "--model_dir", str(model_dir)], folder / "logs", worker=2) as cluster:
        restarter = Restarter(cluster)
        timeline = _Timeline(cluster, restarter, model_dir)
        exits = restarter.run(_HANG_SECONDS, timeline)
        timeline()
        if {end.task: end.code for end in exits} != dict.fromkeys(cluster.tasks, 0):
            raise RuntimeError(f"{exits}\n{cluster.outputs()}")
    return sorted(timeline.events, key=lambda event: event.seconds)


def table(events: list[Event]) -> str:
    """The events as a table."""
    rows = [(f"{event.seconds:.1f} s", event.task.replace(":", " "), event.what) for event in events]
    return tables.table(("after", "task", "what happens"), rows)


def main() -> None:
    """Prints the table, and draws it."""
    (picture,) = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    try:
        events = simulate(folder)
        print(table(events))
        os.makedirs(os.path.dirname(picture) or ".", exist_ok=True)
        demo_picture.write(events, picture)
        print(f"\nAs a picture: {picture}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
