"""What listings contain of files that are not read: names, sizes and versions."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.errors import DataError, FlagError

# Folders that systems put beside files: resource forks in a Mac's archives, thumbnails and deleted files of a NAS.
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "@__thumb",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
MAX_LIST_BYTES = 2**34  # of a file: a hundred million lines

_PARALLEL_STATS = 32  # requests to a bucket at a time; each takes tens of milliseconds


class File(NamedTuple):
    """A file below a folder.

    Attributes:
        path: as storage opens it.
        filename: relative to the folder, with POSIX separators.
        size: bytes; -1 for a file that does not exist.
        version: changes whenever the content does: that of storage.stat, or in a fingerprint a hash of the content.
    """

    path: str
    filename: str
    size: int
    version: int | str


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden."""
    return name.startswith(".") and name not in (".", "..")


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name is a system's, and holds nothing of the user's."""
    return name.lower() in _SYSTEM_FOLDERS


def walk(folder: str, hidden: bool = False, sizes: bool = True) -> Iterator[File]:
    """All files below a folder, see storage.walk.

    Raises:
        FlagError: a folder cannot be listed.
    """
    root = folder if storage.is_remote(folder) else folder.rstrip("/") or "/"
    skip = len(storage.as_prefix(root))
    try:
        for path, size, version in storage.walk(root, hidden, sizes):
            yield File(path, path[skip:], size, version)
    except PermissionError as error:
        raise FlagError(
            "A folder cannot be read", received=error.filename, expected="a folder whose files can be listed"
        ) from error


def stat_items(files: Iterable[tuple[str, str]]) -> Iterator[File]:
    """The items of a fingerprint that stand for files. A missing file, also in another Unicode form, has size -1.

    Args:
        files: pairs of a path and the file's name in the fingerprint.
    """
    remaining = iter(files)
    with ThreadPoolExecutor(_PARALLEL_STATS) as executor:
        while chunk := list(itertools.islice(remaining, 8 * _PARALLEL_STATS)):
            paths = [path for path, _ in chunk]
            stats = executor.map(_stat, paths) if any(map(storage.is_remote, paths)) else map(_stat, paths)
            for (_, filename), (path, size, version) in zip(chunk, stats, strict=True):
                yield File(path, filename, size, version)


def digest(content: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest_of_list(path: str) -> str:
    """SHA-256 of the file of a list, as `digest`.

    Raises:
        DataError: it is larger than any list, or a pipe or a device.
    """
    local = storage.mounted(path)
    if storage.is_remote(local):
        return digest(storage.read_bytes(path, MAX_LIST_BYTES))
    with storage.open_file(local) as file:
        if os.fstat(file.fileno()).st_size > MAX_LIST_BYTES:
            raise DataError(
                "A list of images is too large", received=path, expected=f"at most {MAX_LIST_BYTES:,} bytes"
            )
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(path: str) -> storage.Stat:
    try:
        return storage.stat(path)
    except (OSError, ValueError):  # a missing image is part of what the data is now
        return _stat(other) if (other := storage.other_form(path)) else storage.Stat(path, -1, 0)
