"""Local files and folders: written atomically, listed with their versions, locked, and temporary ones."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from tf_image_classification.errors import ConflictError, FlagError, UserError


class Stat(NamedTuple):
    """The status of a file or object.

    Attributes:
        path: local or gs://.
        size: bytes.
        version: changes whenever the content does: a local file's modification time in nanoseconds, an object's
            generation.
    """

    path: str
    size: int
    version: int


def stat(path: str) -> Stat:
    """Size and modification time of a file.

    Raises:
        FileNotFoundError: file not found.
    """
    status = os.stat(path)
    return Stat(path, status.st_size, status.st_mtime_ns)


def walk(folder: str, hidden: bool = False) -> Iterator[Stat]:
    """All files below a folder, links to folders followed, but not into a folder that contains the link.

    Args:
        hidden: also list hidden files, and each hidden folder as one entry with a slash at its end.

    Raises:
        PermissionError: a folder cannot be listed.
    """

    def on_error(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    ancestors = {folder: frozenset((_identity(folder),))}  # folder still to be listed -> itself and its ancestors
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=on_error):
        parents = ancestors.pop(directory)
        if hidden:
            for name in sorted(name for name in folders if name.startswith(".")):
                yield Stat(os.path.join(directory, name, ""), 0, 0)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            path = os.path.join(directory, name)
            if (identity := _identity(path)) in parents:
                folders.remove(name)
            else:
                ancestors[path] = parents | {identity}
        for name in sorted(names):
            if hidden or not name.startswith("."):
                path = os.path.join(directory, name)
                try:
                    yield stat(path)
                except OSError:
                    yield Stat(path, 0, 0)


def write(path: str, content: bytes, newer_than: int = 0) -> None:
    """Writes a file to a staging path and renames it.

    Args:
        newer_than: nanoseconds; the file's modification time will be later than this.
    """
    staging = staging_path(path)
    try:
        with open(staging, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.stat(staging).st_mtime_ns <= newer_than:  # the clock of a file system advances in steps of milliseconds
            os.utime(staging, ns=(newer_than + 1, newer_than + 1))
        os.replace(staging, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
        raise


def write_if_version(path: str, content: bytes, version: int) -> None:
    """Writes a file if its modification time is still `version`; 0: if it does not exist.

    Of several processes of this machine that write so at once, one wins: they wait for a lock, a hidden file beside
    `path`, which is not removed.

    Raises:
        ConflictError: the file has another modification time.
    """
    import fcntl

    folder, name = os.path.split(path)
    with open(os.path.join(folder, f".{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        if current != version:
            raise conflict_error(path)
        write(path, content, newer_than=current)


@contextlib.contextmanager
def replacing_dir(path: str) -> Iterator[str]:
    """A staging folder beside `path`, which replaces it when the block ends without an error.

    Removes what killed writers of `path` left beside it.

    Yields:
        The path of the staging folder.

    Raises:
        FlagError: `path` cannot be created or written to.
        UserError: the disk is full, or the folder is in use.
    """
    staging = staging_path(path)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        for leftover in glob.glob(_staging_pattern(path)):
            shutil.rmtree(leftover, ignore_errors=True)
        os.mkdir(staging)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        yield staging
        previous = staging_path(path)
        if os.path.lexists(path):
            os.rename(path, previous)
        os.rename(staging, path)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY):
            raise UserError(
                f"Cannot write {path}", received=error.strerror, hint="Free some space, or choose another folder."
            ) from error
        raise


def staging_path(path: str) -> str:
    """A new hidden name beside `path`, to write to before renaming."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.partial-{uuid.uuid4().hex[:8]}")


def remove(path: str) -> None:
    """Deletes a file, a link, or a folder with its content."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


@contextlib.contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Locks a local folder against other processes of this machine while the block runs; creates the folder.

    Raises:
        FlagError: another process has locked it, or it cannot be created or written to.
    """
    import fcntl

    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, ".lock"), "w")  # noqa: SIM115 - closed below, which releases the lock
    except OSError as error:
        raise _not_writable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlagError(
                "Another process is using this folder",
                received=folder,
                hint="Wait for it to end, or choose another folder.",
            ) from None
        except OSError:  # a mounted bucket may not support locks
            pass
        yield


@contextlib.contextmanager
def temporary_dir() -> Iterator[str]:
    """A local folder that is removed when the block ends."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tfic-") as folder:
        yield folder


def conflict_error(path: str) -> ConflictError:
    """The error that another process has changed a file or folder, local or on gs://."""
    return ConflictError(
        "Another process has changed this meanwhile", received=path, hint="Run again when it has ended."
    )


def not_found_error(path: str) -> FileNotFoundError:
    """The error that a file does not exist, local or on gs://."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _not_writable(folder: str, error: OSError) -> FlagError:
    return FlagError(
        f"Cannot write to {folder}", received=error.strerror, expected="a folder that can be created and written to"
    )


def _staging_pattern(path: str) -> str:
    """A glob that matches all of `path`'s staging paths."""
    folder, name = os.path.split(path)
    return os.path.join(glob.escape(folder), f".{glob.escape(name)}.partial-*")


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
