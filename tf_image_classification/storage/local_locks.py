"""Locks against other processes of this machine: lock files, which are neither followed, truncated nor written to."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: str, *, wait: bool) -> Iterator[bool]:
    """Locks a file or folder, which need not exist, while the block runs.

    The lock is on a hidden file beside `path`, which is removed at the end. The file of a killed process locks nothing.

    Args:
        wait: for another process that has locked it.

    Yields:
        Whether it is locked. False where the file system has no locks, as some network file systems.

    Raises:
        FlagError: another process has locked it, or the lock file cannot be made.
    """
    folder, name = os.path.split(path)
    with _holding(os.path.join(folder, f".{name}.lock"), path, wait=wait, remove=True) as is_locked:
        yield is_locked


@contextlib.contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Locks a local folder against other processes of this machine while the block runs; creates the folder.

    Raises:
        FlagError: another process has locked it, or it cannot be created or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise not_writable_error(folder, error) from error
    with _holding(os.path.join(folder, ".lock"), folder, wait=False, remove=False):
        yield


def acquire(path: str, *, wait: bool) -> tuple[int, bool]:
    """Opens a file for writing, makes it if it does not exist, and locks it until it is closed.

    Returns:
        Its descriptor, and whether it is locked; False where the file system has no locks.

    Raises:
        BlockingIOError: another process has locked it, and `wait` is False.
        OSError: it cannot be opened, for example because it is a link.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            is_locked = _lock(descriptor, wait)
            if not is_locked or _is_at(path, descriptor):
                return descriptor, is_locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has removed it: it locks nothing any more


def remove_unlocked(path: str) -> None:
    """Removes a file, unless it is locked or cannot be."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if _lock(descriptor, wait=False) and _is_at(path, descriptor):
                os.unlink(path)
        finally:
            os.close(descriptor)


def not_writable_error(path: str, error: OSError, lock_path: str = "") -> FlagError:
    """The error that a folder cannot be created or written to."""
    is_link = error.errno == errno.ELOOP and os.path.islink(lock_path)
    return FlagError(
        f"Cannot write to {path}",
        received=f"the lock file {lock_path} is a symbolic link" if is_link else error.strerror,
        expected="a folder that can be created and written to",
        hint="Remove the link." if is_link else "",
    )


@contextlib.contextmanager
def _holding(lock_path: str, path: str, *, wait: bool, remove: bool) -> Iterator[bool]:
    """Holds the lock file of `path` while the block runs; yields and raises as `locked` does."""
    try:
        descriptor, is_locked = acquire(lock_path, wait=False)
    except BlockingIOError as error:
        if not wait:
            raise FlagError(
                "Another process is writing this folder",
                received=path,
                hint="Wait for it to end, or choose another folder.",
            ) from error
        _log.info("Waiting for another process that is writing %s", path)
        descriptor, is_locked = acquire(lock_path, wait=True)
    except OSError as error:
        raise not_writable_error(path, error, lock_path) from error
    if not is_locked:
        _log.warning("The file system of %s has no locks: only one process at a time may write there", path)
    try:
        yield is_locked
    finally:
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(lock_path)  # while it is locked: who waits for it notices, see `acquire`
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK):
            raise
        return False
    return True


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
