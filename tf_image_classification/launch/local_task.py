"""One task of a cluster as a process of this machine, which does not outlive this one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from tf_image_classification.launch import task_lines

_TAIL_LINES = 20
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class LocalTask:
    """A process, whose lines go to stdout with its name; a chief's go where this process writes, unchanged.

    Args:
        environment: of the process.

    Attributes:
        role, index: as in TF_CONFIG.
        ended_at: time.monotonic() when its end was noticed.
    """

    def __init__(self, role: str, index: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.role, self.index = role, index
        self.ended_at = 0.0
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        is_chief = role == "chief"
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if is_chief else subprocess.PIPE,
            stderr=None if is_chief else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on
            preexec_fn=_end_with_parent(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def name(self) -> str:
        """As `worker 0`, or `chief`."""
        return self.role if self.role == "chief" else f"{self.role} {self.index}"

    @property
    def code(self) -> int | None:
        """Exit code, or minus a signal's number; None as long as the process runs."""
        code = self._process.poll()
        if code is not None and not self.ended_at:
            self.ended_at = time.monotonic()
        return code

    @property
    def is_lost(self) -> bool:
        """Whether it ended as a task does whose training goes on from its last checkpoint when it is started again."""
        return self.code is not None and not 0 <= self.code < 128

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an exit code that is final."""
        return self.code is not None and 0 < self.code < 128

    def send(self, number: int) -> None:
        """Sends a signal to the process and to those that it has started; nothing if it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Waits for the end of the process and of its output."""
        self._process.wait()
        self._reader.join(timeout=5)  # what it has started may hold the pipe open

    def end(self) -> str:
        """How it ended, as `worker 1 ended by SIGKILL`."""
        code = self.code or 0
        return f"{self.name} ended " + (f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}")

    def error(self) -> str:
        """Why it failed, as of `task_lines.error`."""
        return task_lines.error(list(self._lines))

    def _read(self) -> None:
        for data in self._process.stdout or ():
            line = data.decode(errors="replace").rstrip().rpartition("\r")[2]
            self._lines.append(line)
            print(task_lines.labelled(line, self.name), flush=True)


def _end_with_parent() -> Callable[[], None] | None:
    """What a process does before its command, so that it ends with this one, also by SIGKILL. Linux only."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it has ended meanwhile
            os._exit(1)

    return end_with_parent
