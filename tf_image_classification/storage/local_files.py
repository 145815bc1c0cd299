"""Local files: their versions, and how they are written atomically; temporary folders."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import shutil
import stat as stat_module
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tf_image_classification.errors import ConflictError, DataError
from tf_image_classification.storage import local_locks

_BLOCK = 2**20

# Changes whenever a content does: a local file's modification time in nanoseconds, an object's generation on gs:// and
# its ETag on s3://. 0 stands for no file.
Version = int | str


class Stat(NamedTuple):
    """The status of a file or object.

    Attributes:
        path: local or remote.
        size: bytes.
        version: see `Version`.
        may_be_link: False for a file that a listing of its local folder says to be none.
    """

    path: str
    size: int
    version: Version
    may_be_link: bool = True


def stat(path: str) -> Stat:
    """Size and modification time of a file.

    Raises:
        FileNotFoundError: file not found.
    """
    _check_name(path)
    status = os.stat(path)
    return Stat(path, status.st_size, status.st_mtime_ns)


def open_file(path: str) -> io.BufferedReader:
    """Opens a file for reading. A pipe, which could block for ever, and a device, which need not end, are refused.

    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError: as of `open`.
        DataError: it is no regular file.
    """
    _check_name(path)
    file = open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))  # noqa: SIM115 - returned
    if not stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise not_regular_error(path)
    return file


def open_descriptor(path: str) -> tuple[int, int]:
    """`open_file` for those who read many small files: a file object takes as many system calls again.

    Returns:
        A descriptor, for `read_descriptor` and os.close, and the size in bytes.

    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError, DataError: as of `open_file`.
    """
    _check_name(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if stat_module.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    if stat_module.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise not_regular_error(path)


def read_descriptor(descriptor: int, size: int) -> bytes:
    """The content of a file from `open_descriptor`, whose size may have changed since."""
    block = os.read(descriptor, size + 1)
    if len(block) == size:  # one byte more was asked for: this is the end
        return block
    blocks = []
    while block:
        blocks.append(block)
        block = os.read(descriptor, _BLOCK)
    return b"".join(blocks)


def write(path: str, content: bytes, newer_than: int = 0) -> None:
    """Writes a file to a staging path, syncs it to disk and renames it. Removes what killed writers left of it.

    Args:
        newer_than: nanoseconds; the file's modification time will be later than this.
    """
    for leftover in staging_paths(path):
        local_locks.remove_unlocked(leftover)
    staging = staging_path(path)
    descriptor, _ = local_locks.acquire(staging, wait=True)  # by its lock, others know that it is no leftover
    try:
        with open(os.dup(descriptor), "wb") as file:  # closed before renaming: a mounted bucket uploads it then
            file.write(content)
            file.flush()
            if os.fstat(descriptor).st_mtime_ns <= newer_than:  # a file system's clock advances in steps of ms
                os.utime(descriptor, ns=(newer_than + 1, newer_than + 1))
            os.fsync(descriptor)
        os.replace(staging, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
        raise
    finally:
        os.close(descriptor)
    sync(os.path.dirname(path))


def write_if_version(path: str, content: bytes, version: Version) -> None:
    """Writes a file if its modification time is still `version`; 0: if it does not exist.

    Of several processes of this machine that write so at once, one wins: they wait for its lock.

    Raises:
        ConflictError: the file has another modification time.
        FlagError: the lock file cannot be made.
    """
    with local_locks.locked(path, wait=True):
        current = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        if current != version:
            raise conflict_error(path)
        write(path, content, newer_than=current)


def sync(path: str) -> None:
    """Waits until a file, or which files a folder has, is on disk; '' is the working directory."""
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def copy_files(source: str, names: Iterable[str], target: str) -> None:
    """Copies files from one folder to another, in this order; creates folders.

    Args:
        names: relative to both folders.
    """
    for name in names:
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(source, name), path)


def staging_path(path: str) -> str:
    """A new hidden name beside `path`, to write to before renaming."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.partial-{uuid.uuid4().hex[:8]}")


def staging_paths(path: str) -> list[str]:
    """The staging paths of `path` that exist: of its writers, running or killed."""
    folder, name = os.path.split(path)
    return glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.partial-*"))


def remove(path: str) -> None:
    """Deletes a file, a link, or a folder with its content."""
    if os.path.isdir(path) and not os.path.islink(path):
        try:
            shutil.rmtree(path)
        except RecursionError:
            _remove_deep_tree(path)
    else:
        os.unlink(path)


def remove_tree(folder: str) -> None:
    """Deletes a folder with its content, as far as it can: without an error. Links are not followed."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # it calls itself for each sub-folder, and a thousand may be nested
        _remove_deep_tree(folder)


def _check_name(path: str) -> None:
    """Refuses what a list, a manifest or a parameter may hold, and no name of a file."""
    if "\0" in path:
        raise not_found_error(path)


def _remove_deep_tree(folder: str) -> None:
    folders = [folder]
    for path in folders:
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    os.unlink(entry.path)
    for path in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(path)


@contextlib.contextmanager
def temporary_dir() -> Iterator[str]:
    """A local folder that is removed when the block ends."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tfic-") as folder:
        yield folder


def conflict_error(path: str) -> ConflictError:
    """The error that another process has changed a file or folder, local or remote."""
    return ConflictError(
        "Another process has changed this meanwhile", received=path, hint="Run again when it has ended."
    )


def not_regular_error(path: str) -> DataError:
    """The error that a path is opened that leads to no file."""
    return DataError("A path leads to a pipe or a device", received=path, expected="a file")


def not_found_error(path: str) -> FileNotFoundError:
    """The error that a file does not exist, local or remote."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
