"""Each step as a process of this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from types import FrameType

from kfp import local
from kfp.local import subprocess_task_handler
from kfp.local.status import Status

from pipelines.local.execution import FollowedTask, replaced
from pipelines.local.step_output import INDENT, StepOutput
from pipelines.local.steps import Steps

_READ_BYTES = 65536


@contextlib.contextmanager
def runner(steps: Steps) -> Iterator[local.SubprocessRunner]:
    """The runner whose steps import the framework and a user's --estimator from the current folder.

    Changes PYTHONPATH and what SIGTERM does for the block: the running step gets the signal.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), before]))
    previous = signal.signal(signal.SIGTERM, _forward_signal)

    create_handler = functools.partial(SubprocessTaskHandler, steps)
    try:
        with replaced(subprocess_task_handler, "SubprocessTaskHandler", create_handler):
            yield local.SubprocessRunner(use_venv=False)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class SubprocessTaskHandler(FollowedTask, subprocess_task_handler.SubprocessTaskHandler):
    """kfp.local's handler, which passes the step's output to `steps`."""

    def run(self) -> Status:
        command = subprocess_task_handler.replace_python_executable(self.full_command, sys.executable)
        with self._steps.running() as output:
            return self._steps.ended(run_process(command, {**os.environ, **self.env_vars}, output))


def run_process(command: Sequence[str], environment: dict[str, str], output: StepOutput) -> int:
    """Runs the process to its end, whatever signals come, and returns its exit code.

    Where the screen is a terminal the process writes to one too, and so draws its progress bars.
    """
    read_end, write_end = _open_terminal() if output.is_terminal else os.pipe()
    interrupted = False
    with subprocess.Popen(command, env=environment, stdout=write_end, stderr=write_end) as process:
        os.close(write_end)
        try:
            while True:
                try:
                    if not (data := _read(read_end)):
                        break
                    output.write(data)
                except KeyboardInterrupt:  # the terminal sends it to the step too, which saves what it has and ends
                    interrupted = True
        finally:
            os.close(read_end)
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode


def _read(read_end: int) -> bytes:
    """The next piece of output; nothing at the end."""
    try:
        return os.read(read_end, _READ_BYTES)
    except OSError:  # EIO: how Linux reports that no process has the terminal open any more
        return b""


def _open_terminal() -> tuple[int, int]:
    """A pseudo-terminal, as wide as ours without the indentation: where it is read, and where a process writes."""
    read_end, write_end = os.openpty()
    settings = termios.tcgetattr(write_end)
    settings[1] &= ~termios.OPOST  # lines end as they were written
    termios.tcsetattr(write_end, termios.TCSANOW, settings)
    columns, rows = shutil.get_terminal_size()
    termios.tcsetwinsize(write_end, (rows, columns - len(INDENT)))
    return read_end, write_end


def _forward_signal(number: int, frame: FrameType | None) -> None:
    """Sends a signal on to the running step, which saves what it has and ends, and so ends the run."""
    import psutil

    processes = psutil.Process().children(recursive=True)
    if not processes:
        raise SystemExit(128 + number)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
