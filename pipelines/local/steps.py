"""The steps of a run as they start and end: a line on the screen for each, and a log of each in the run folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kfp.local.status import Status

from pipelines.local.screen import Screen
from pipelines.local.step_output import INDENT, StepOutput, relative_paths
from tf_image_classification import flags as flag_table

LOGS = "logs"
_WIDTH = max(map(len, flag_table.STEPS)) + 2


class Steps:
    """Follows the steps of one run, one at a time.

    Attributes:
        folder: the run folder, once the first step has started.
        failed: name of the last step that failed; '' as long as none has.
    """

    def __init__(self, root: Path, screen: Screen, *, verbose: bool) -> None:
        self._root, self._screen, self._verbose = root, screen, verbose
        self._output: StepOutput | None = None
        self._started_at = 0.0
        self._name = self._end = ""
        self.folder: Path | None = None
        self.failed = ""

    def following(self, execute: Callable[..., tuple[dict[str, Any], Status]]) -> Callable[..., Any]:
        """kfp.local's function that executes a task, or takes its outputs from the cache, with the lines around it."""

        def followed(*, task_name: str, pipeline_resource_name: str, **rest: Any) -> tuple[dict[str, Any], Status]:
            self._begin_run(self._root / pipeline_resource_name)
            self._name, self._output = task_name, None
            outputs, status = execute(task_name=task_name, pipeline_resource_name=pipeline_resource_name, **rest)
            self._report_end(status)
            return outputs, status

        return followed

    @contextlib.contextmanager
    def running(self) -> Iterator[StepOutput]:
        """Announces that the current step starts; a runner calls it, so a step from the cache does not get here.

        Yields:
            What takes the step's output.
        """
        assert self.folder is not None
        self.note("started")
        self._started_at, self._end = time.monotonic(), ""
        self._output = StepOutput(self.folder / LOGS / f"{self._name}.log", self._screen, verbose=self._verbose)
        with contextlib.closing(self._output):
            yield self._output

    @property
    def step(self) -> str:
        """The current step, by the name that the table of flags has for it."""
        return self._name.replace("-", "_")

    def note(self, text: str) -> None:
        """Shows a line about the current step."""
        self._screen.line(f"{self._name:<{_WIDTH}}{text}")

    def ended(self, exit_code: int) -> Status:
        """What kfp.local is to make of the exit code; an unusual one goes into the step's last line."""
        self._end = _name_of_exit_code(exit_code)
        return Status.FAILURE if exit_code else Status.SUCCESS

    def _begin_run(self, folder: Path) -> None:
        if self.folder is None:
            self.folder = folder
            (folder / LOGS).mkdir(parents=True)
            self._screen.line(f"Run folder: {relative_paths(str(folder))}")

    def _report_end(self, status: Status) -> None:
        if self._output is None:
            self.note("cached")
            return
        took = _duration(time.monotonic() - self._started_at)
        if status == Status.SUCCESS:
            self.note(f"done in {took}")
            return
        self.failed = self._name
        self.note(f"FAILED after {took}{self._end}")
        for line in self._output.explanation():
            self._screen.line(INDENT + line)
        self._screen.line(f"{INDENT}log: {relative_paths(str(self._output.log))}")


def _name_of_exit_code(code: int) -> str:
    """A signal that ended the step by name; '' for the codes of a step that ended by itself.

    Popen gives a signal as a negative number, a shell and Docker add 128.
    """
    number = -code if code < 0 else code - 128
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return "" if code in (0, 1, 2) else f" (exit code {code})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
