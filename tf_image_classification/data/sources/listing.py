"""What listings contain of files that are not read: names, sizes and versions."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
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
PARALLEL_LISTINGS = 8  # requests to a bucket at a time, each for a page of 1,000 objects

_PARALLEL_STATS = 32  # likewise, each for an object, which takes tens of milliseconds
_WINDOW = 2000  # files of a list that are looked up together
_LISTED = 100  # fewer objects are asked for one by one


class File(NamedTuple):
    """A file below a folder.

    Attributes:
        path: as storage opens it.
        filename: relative to the folder, with POSIX separators.
        size: bytes; -1 for a file that does not exist.
        version: changes whenever the content does: that of storage.stat, or in a fingerprint a hash of the content.
        may_be_link: see storage.Stat.
    """

    path: str
    filename: str
    size: int
    version: int | str
    may_be_link: bool = True


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
        for path, size, version, may_be_link in storage.walk(root, hidden, sizes):
            yield File(path, path[skip:], size, version, may_be_link)
    except PermissionError as error:
        raise FlagError(
            "A folder cannot be read", received=error.filename, expected="a folder whose files can be listed"
        ) from error


def stat_items(files: Iterable[tuple[str, str]]) -> Iterator[File]:
    """The items of a fingerprint that stand for files, in any order. A missing file, also in another Unicode form, has
    size -1.

    Args:
        files: pairs of a path and the file's name in the fingerprint.
    """
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as remote:  # on disk: there may be millions
        remote.execute("CREATE TABLE files (path BLOB, filename BLOB)")
        remote.execute("BEGIN")
        remaining, is_empty = iter(files), True
        while chunk := list(itertools.islice(remaining, _WINDOW)):
            of_bucket = [file for file in chunk if storage.is_remote(file[0])]
            remote.executemany("INSERT INTO files VALUES (?, ?)", (tuple(map(os.fsencode, file)) for file in of_bucket))
            is_empty &= not of_bucket
            for path, filename in chunk:
                if not storage.is_remote(path):
                    found = _stat(path)
                    yield File(found.path, filename, found.size, found.version)
        if not is_empty:
            in_order = remote.execute("SELECT path, filename FROM files ORDER BY path")
            yield from _stat_objects((os.fsdecode(path), os.fsdecode(filename)) for path, filename in in_order)


def _stat_objects(files: Iterator[tuple[str, str]]) -> Iterator[File]:
    """The items of objects, which are sorted by path."""
    with ThreadPoolExecutor(_PARALLEL_STATS) as executor, ThreadPoolExecutor(PARALLEL_LISTINGS) as listings:
        while windows := _windows(files, PARALLEL_LISTINGS):
            for window, found in zip(windows, listings.map(_listed, windows), strict=True):
                missing = [path for path in dict.fromkeys(path for path, _ in window) if path not in found]
                found |= zip(missing, executor.map(_stat, missing), strict=True)
                for path, filename in window:
                    item = found[path]
                    yield File(item.path, filename, item.size, item.version)


def _windows(files: Iterator[tuple[str, str]], number: int) -> list[list[tuple[str, str]]]:
    """The next files, those of a window all in one bucket."""
    windows: list[list[tuple[str, str]]] = []
    while len(windows) < number and (chunk := list(itertools.islice(files, _WINDOW))):
        windows += [list(of_bucket) for _, of_bucket in itertools.groupby(chunk, lambda file: file[0].split("/")[:3])]
    return windows


def _listed(window: Sequence[tuple[str, str]]) -> dict[str, storage.Stat]:
    paths = list(dict.fromkeys(path for path, _ in window))
    return storage.found_in_listing(paths) if len(paths) >= _LISTED else {}


def digest(content: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest_of_list(path: str) -> str:
    """SHA-256 of the file of a list, as `digest`.

    Raises:
        DataError: it is larger than any list, or a pipe or a device.
    """
    local = storage.mounted(path)
    with contextlib.ExitStack() as stack:
        if storage.is_remote(local):
            _check_size(path, storage.stat(path).size)
            local = storage.fetch(path, stack.enter_context(storage.temporary_dir()))
        file = stack.enter_context(storage.open_file(local))
        _check_size(path, os.fstat(file.fileno()).st_size)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(path: str, size: int) -> None:
    if size > MAX_LIST_BYTES:
        raise DataError("A list of images is too large", received=path, expected=f"at most {MAX_LIST_BYTES:,} bytes")


def _stat(path: str) -> storage.Stat:
    try:
        return storage.stat(path)
    except (OSError, ValueError):  # a missing image is part of what the data is now
        return _stat(other) if (other := storage.other_form(path)) else storage.Stat(path, -1, 0)
