"""The names of objects in a bucket, which services list as they are: hidden ones, placeholders and invalid ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tf_image_classification.storage.local_files import Stat

# See https://cloud.google.com/storage/docs/objects#naming: UTF-8, no line ends, no `.` and `..`.
_MAX_NAME_BYTES = 1024
_INVALID_NAME = re.compile(r"\.{1,2}|(?s:.*)[\r\n](?s:.*)")


def is_valid_name(name: str) -> bool:
    """Whether an object may have this name; services answer requests for others with an error."""
    return 0 < len(name.encode()) <= _MAX_NAME_BYTES and not _INVALID_NAME.fullmatch(name)


def is_placeholder(found: Stat) -> bool:
    """Whether an object stands for a folder, as consoles and mounts create it: it is no file."""
    return found.size == 0 and found.path.endswith("/")


def hidden_part(name: str) -> str:
    """The name up to its first hidden part, with the slash behind it; '' for a name without one."""
    parts = name.split("/")
    for index, part in enumerate(parts):
        if part.startswith(".") and part not in (".", ".."):
            return "/".join(parts[: index + 1]) + ("/" if index + 1 < len(parts) else "")
    return ""


def visible(objects: Iterable[Stat], prefix: str, hidden: bool) -> Iterator[Stat]:
    """The objects of a listing of a folder, without placeholders.

    Args:
        objects: sorted by name.
        prefix: path of the folder, with a slash at its end.
        hidden: whether hidden objects are among them, and each hidden folder as one entry with a slash at its end.
    """
    seen = ""
    for found in objects:
        if is_placeholder(found):
            continue
        if not (hidden_name := hidden_part(found.path[len(prefix) :])):
            yield found
        elif hidden and hidden_name != seen:
            seen = hidden_name
            yield Stat(f"{prefix}{hidden_name}", 0, 0) if hidden_name.endswith("/") else found
