"""What libraries print to stderr, and which part of it a command lets through.

TensorFlow's C++ part logs to file descriptor 2, past Python's sys.stderr, and in part before it reads
TF_CPP_MIN_LOG_LEVEL. So a process of its own filters the descriptor: unlike a thread, it still passes on the last words
of a process that crashes. Run as a script, this file is that process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_DEFAULT_LEVEL = 2
_SEVERITIES = "IWE"  # what levels 1, 2 and 3 begin to hide, each with those before it; F (fatal) is always shown
_LOGGER_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_LOGGERS = ("absl", "tensorflow", "matplotlib")
_MODULES = r"(absl|google|h5py|keras|matplotlib|numpy|tensorboard|tensorflow)\b"
_EXIT_SECS = 5.0  # a child process may hold the descriptor for longer: the filter then goes on without us


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libraries print, other than errors, off stderr for the block.

    The environment variable TF_CPP_MIN_LOG_LEVEL sets the lowest severity that is shown: 0 everything, 1 warnings,
    2 errors (the default), 3 fatal errors. It applies to TensorFlow's C++ log, to the Python loggers of libraries, and
    to Python warnings attributed to a library's code.

    Changes global state: sets the variable if it is not set, the levels of those loggers and the filters of warnings;
    gives sys.stderr a file descriptor of its own; and, from the first import of TensorFlow to the end of the block,
    connects file descriptor 2 to the filter.
    """
    level = _level()
    os.environ.setdefault(LEVEL_VARIABLE, str(_DEFAULT_LEVEL))
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(_LOGGER_LEVELS[level])
    if level >= _DEFAULT_LEVEL and not sys.warnoptions:
        warnings.filterwarnings("ignore", module=_MODULES)
    if level == 0:
        yield
        return
    _separate_stderr()
    stderr_filter = _Filter(_SEVERITIES[:level])
    finder = _TensorFlowImport(stderr_filter)
    if "tensorflow" in sys.modules:  # a user's script may import it before it calls us
        stderr_filter.start()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        stderr_filter.stop()


def _level() -> int:
    text = os.environ.get(LEVEL_VARIABLE, str(_DEFAULT_LEVEL))
    return min(int(text), len(_SEVERITIES)) if text.isdigit() else 0  # TensorFlow takes no number for 0, too


def _separate_stderr() -> None:
    """Moves sys.stderr off descriptor 2, so that the filter neither delays it nor hides a terminal from it."""
    try:
        shared = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # there is none, or something that is no file stands in for it
        return
    if shared:
        sys.stderr.flush()
        sys.stderr = open(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115


class _Filter:
    """The process that passes on descriptor 2 without the messages of some severities."""

    def __init__(self, severities: str) -> None:
        self._severities = severities
        self._process: Any = None
        self._original = -1

    def start(self) -> None:
        """Connects descriptor 2 to the process, unless that is done already."""
        if self._process is not None:
            return
        import subprocess

        self._original = os.dup(2)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._severities],
            stdin=subprocess.PIPE,
            stdout=self._original,
            start_new_session=True,  # Ctrl-C is for the command: it may still have something to say
        )
        os.dup2(self._process.stdin.fileno(), 2)
        self._process.stdin.close()

    def stop(self) -> None:
        """Reconnects descriptor 2, and waits until everything has been passed on."""
        if self._process is None:
            return
        import subprocess

        os.dup2(self._original, 2)
        os.close(self._original)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECS)
        self._process = None


class _TensorFlowImport:
    """Starts the filter when TensorFlow is about to be imported, by whichever module needs it first.

    A finder of `sys.meta_path` that finds nothing. Commands that do not need TensorFlow start no process.
    """

    def __init__(self, stderr_filter: _Filter) -> None:
        self._filter = stderr_filter

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "tensorflow":
            self._filter.start()


def _filter_lines(severities: str) -> None:
    """Copies stdin to stdout, without log messages of these severities."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):  # ends with its input
        signal.signal(number, signal.SIG_IGN)
    # Absl's format, `W0000 00:00:1795871947.320390   31436 port.cc:153] ..` (month and day, or zeros), and TensorFlow's
    # older one, `2026-11-28 13:19:07.320390: W tensorflow/core/util/port.cc:153] ..`. The last pattern is the second
    # line of an I message.
    hidden = re.compile(
        rf"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$"
        rf"|[{severities}]\d{{4}} [\d:.]+\s+\d+ \S+:\d+\] "
        rf"|\d{{4}}-\d\d-\d\d [\d:.]+: [{severities}] \S+:\d+\] "
        rf"|To enable the following instructions: .*, in other operations, rebuild TensorFlow".encode()
    )
    for line in sys.stdin.buffer:
        if not hidden.match(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _filter_lines(sys.argv[1])
