"""What libraries print to stderr, and which part of it a command lets through.

While TensorFlow is imported, its C++ part logs to file descriptor 2, past Python's sys.stderr, before it reads
TF_CPP_MIN_LOG_LEVEL. So for the import a process of its own filters the descriptor: unlike a thread, it still passes on
the message of an import that aborts. Run as a script, this file is that process.
"""

from __future__ import annotations

import contextlib
import importlib.util
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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libraries print, other than errors, off stderr for the block.

    The environment variable TF_CPP_MIN_LOG_LEVEL sets the lowest severity that is shown: 0 everything, 1 warnings,
    2 errors (the default), 3 fatal errors. It applies to TensorFlow's C++ log, to the Python loggers of libraries, and
    to Python warnings attributed to a library's code.

    Changes global state: sets the variable if it is not set, the levels of those loggers and the filters of warnings,
    and filters file descriptor 2 while TensorFlow is imported.
    """
    level = _level()
    os.environ.setdefault(LEVEL_VARIABLE, str(_DEFAULT_LEVEL))
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(_LOGGER_LEVELS[level])
    if level >= _DEFAULT_LEVEL and not sys.warnoptions:
        warnings.filterwarnings("ignore", module=_MODULES)
    if level == 0 or "tensorflow" in sys.modules:  # a user's script may import it before it calls us
        yield
        return
    finder = _QuietTensorFlow(_SEVERITIES[:level])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # TensorFlow was imported
            sys.meta_path.remove(finder)


def _level() -> int:
    text = os.environ.get(LEVEL_VARIABLE, str(_DEFAULT_LEVEL))
    return min(int(text), len(_SEVERITIES)) if text.isdigit() else 0  # TensorFlow takes no number for 0, too


class _QuietTensorFlow:
    """A finder of `sys.meta_path` that filters descriptor 2 during the import of TensorFlow, whichever module it is in.

    Commands that do not need TensorFlow start no process.
    """

    def __init__(self, severities: str) -> None:
        self._severities = severities

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: Any) -> None:
                with _filtered_stderr(self._severities):
                    execute(module)

            spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered_stderr(severities: str) -> Iterator[None]:
    """Connects descriptor 2 to a process that hides messages of some severities, and waits for it in the end."""
    import subprocess

    sys.stderr.flush()
    original = os.dup(2)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, severities], stdin=subprocess.PIPE, stdout=original
    )
    assert process.stdin is not None
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        process.wait()


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
