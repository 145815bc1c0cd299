"""The end of a task's log, which the task leaves in a folder and the step that launched the cluster shows.

A file tasks/NAME.json for each task: an object with `start`, the time at which the process began, `lines`, the last
ones, and `first`, the number of the first of them.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator

from tf_image_classification import storage
from tf_image_classification.errors import UserError, printable_lines

_FOLDER = "tasks"
_KEPT = 100  # lines
_INTERVAL_SECS = 10.0  # an object of a bucket takes about one write per second
_EXPECTED = "start, first and lines, as a task writes them"

_log = logging.getLogger(__name__)


class _Handler(logging.Handler):
    """Keeps the last lines of the root logger's records, and writes them to a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
        self._path, self._start = path, time.time()
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT)
        self._count = 0
        self._written = ""

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._lines.append(line)
            self._count += 1

    def flush(self) -> None:
        """Writes the lines. `logging.shutdown` calls this, too, where a process ends at once."""
        self.acquire()
        try:
            text = json.dumps(
                {"start": self._start, "first": self._count - len(self._lines), "lines": list(self._lines)}
            )
        finally:
            self.release()
        if text != self._written:
            with contextlib.suppress(UserError, OSError):  # a training goes on without its log
                if not storage.is_remote(self._path):
                    os.makedirs(os.path.dirname(self._path), exist_ok=True)
                storage.write_text(self._path, text)
                self._written = text


@contextlib.contextmanager
def keeping(folder: str, name: str) -> Iterator[None]:
    """Writes the end of the root logger's records to a folder, every few seconds and at the block's end.

    The error that ends the block is part of them.
    """
    handler, ended = _Handler(_path(folder, name)), threading.Event()

    def write_at_intervals() -> None:
        while not ended.wait(_INTERVAL_SECS):
            handler.flush()

    root = logging.getLogger()
    root.addHandler(handler)
    writer = threading.Thread(target=write_at_intervals, daemon=True)
    writer.start()
    try:
        yield
    except Exception as error:
        _log.error("%s", error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        ended.set()
        writer.join()
        handler.flush()
        root.removeHandler(handler)


class Reader:
    """The log of a task, line by line.

    Args:
        folder, name: as of `keeping`.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._path = _path(folder, name)
        self._start, self._next = 0.0, 0

    def new_lines(self) -> list[str]:
        """The lines that the task has written since the last call, as far as they are kept."""
        try:
            content, _ = storage.read_version(self._path)
            log = storage.parse_json(content, self._path, expected=_EXPECTED) if content else None
        except (UserError, OSError) as error:
            _log.warning("The log of a task cannot be read: %s", error)
            return []
        if log is None:
            return []
        if log["start"] != self._start:
            self._start, self._next = log["start"], 0
        new = log["lines"][max(0, self._next - log["first"]) :]
        self._next = log["first"] + len(log["lines"])
        return [printable_lines(line) for line in new]


def last_lines(folder: str, count: int = 15) -> Iterator[str]:
    """The last lines of the log of each task, after its name; for the error of a cluster that failed."""
    for name in storage.names_in(storage.join(folder, _FOLDER)):
        task = name.removesuffix(".json")
        for line in Reader(folder, task).new_lines()[-count:]:
            yield f"{task}: {line}"


def _path(folder: str, name: str) -> str:
    return storage.join(folder, _FOLDER, f"{name}.json")
