"""What the tasks of a cluster write, for a person who reads the log of the launching step."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RECORD = re.compile(r"\d\d:\d\d:\d\d [DIWEC] ")  # begins a record, as command_line formats it
_ERROR = "error: "
_LAST_LINES = 5


def labelled(line: str, task: str) -> str:
    """The line with the name of its task: in a record, before its text, so that it stays one."""
    record = _RECORD.match(line)
    text = record.end() if record else 0
    return f"{line[:text]}{task}: {line[text:]}"


def error(lines: Sequence[str]) -> str:
    """The last error paragraph among the lines of a task that failed; else the last lines."""
    begins = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    return " ".join(lines[begins[-1] :] if begins else lines[-_LAST_LINES:]).removeprefix(_ERROR)
