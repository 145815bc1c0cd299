"""Local files and folders that appear whole or not at all, /gcs/ mounts of buckets among them."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tf_image_classification.errors import ConflictError, FlagError, UserError


class Stat(NamedTuple):
    """What can be known of a file without reading it.

    Attributes:
        path: as storage.py opens it.
        size: bytes.
        version: changes whenever the content does: modification time in nanoseconds, or the object's generation.
    """

    path: str
    size: int
    version: int


def stat(path: str) -> Stat:
    """Size and modification time of a file."""
    status = os.stat(path)
    return Stat(path, status.st_size, status.st_mtime_ns)


def walk(folder: str) -> Iterator[Stat]:
    """All files below a folder; see storage.walk."""

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    ancestors = {folder: frozenset((_identity(folder),))}
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        above = ancestors.pop(directory)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            path = os.path.join(directory, name)
            if (identity := _identity(path)) in above:
                folders.remove(name)  # a link to a folder that it lies in
            else:
                ancestors[path] = above | {identity}
        for name in sorted(names):
            if not name.startswith("."):
                path = os.path.join(directory, name)
                try:
                    yield stat(path)
                except OSError:
                    yield Stat(path, 0, 0)


def write(path: str, content: bytes, newer_than: int = 0) -> None:
    """Writes a file under a hidden name and renames it.

    Args:
        newer_than: a modification time that the file's comes after, in nanoseconds.
    """
    partial = staging_path(path)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.stat(partial).st_mtime_ns <= newer_than:  # the clock of files stands still for milliseconds
            os.utime(partial, ns=(newer_than + 1, newer_than + 1))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def write_if_version(path: str, content: bytes, version: int) -> None:
    """Writes a file if its modification time is still this; 0: if there is none.

    Among the writers of this machine who all write so, one wins: they queue for a lock, which stays as a hidden file
    beside it.

    Raises:
        ConflictError: the file is another one.
    """
    import fcntl

    folder, name = os.path.split(path)
    with open(os.path.join(folder, f".{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        if now != version:
            raise ConflictError(
                "Another process has changed this meanwhile", received=path, hint="Try again when it has ended."
            )
        write(path, content, newer_than=now)


@contextlib.contextmanager
def replacing_dir(path: str) -> Iterator[str]:
    """A hidden folder beside `path` to write into, which takes its place when the block ends without an error; see
    storage.replacing_dir.

    Yields:
        The hidden folder.
    """
    partial = staging_path(path)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        for leftover in glob.glob(_leftovers_of(path)):
            shutil.rmtree(leftover, ignore_errors=True)
        os.mkdir(partial)
    except OSError as error:
        raise FlagError(
            f"Cannot write to {path}", received=error.strerror, expected="a folder that can be created and written to"
        ) from error
    try:
        yield partial
        previous = staging_path(path)
        if os.path.lexists(path):
            os.rename(path, previous)
        os.rename(partial, path)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY):
            raise UserError(
                f"{path} cannot be written", received=error.strerror, hint="Make room, or choose another place."
            ) from error
        raise


def publish(folder: str, names: Sequence[str], destination: str, marker: str, sign: str) -> None:
    """Replaces a folder on a mounted bucket, where nothing can be renamed, as gcs_folders.publish does.

    Args:
        names: of the files in the local folder, relative to it.
        marker: the file, or folder of files, that goes first and comes last.
        sign: the name of a file that lies there meanwhile.
    """
    os.makedirs(destination, exist_ok=True)
    write(os.path.join(destination, sign), b"")
    for name in sorted(os.listdir(destination), key=lambda name: name != marker):
        if name != sign:
            _remove(os.path.join(destination, name))
    for name in sorted(names, key=lambda name: name.split("/")[0] == marker):
        target = os.path.join(destination, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(folder, name), target)
    os.unlink(os.path.join(destination, sign))


def staging_path(path: str) -> str:
    """A new hidden name beside `path`."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.partial-{uuid.uuid4().hex[:8]}")


def _leftovers_of(path: str) -> str:
    """A pattern for what killed writers of `path` left beside it."""
    folder, name = os.path.split(path)
    return os.path.join(glob.escape(folder), f".{glob.escape(name)}.partial-*")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
