"""Local folders that appear whole or not at all, whatever is killed, full, or started twice.

A folder is written under a hidden name beside its own, synced to disk, and exchanged with the older one in one step.
Its writer holds its lock meanwhile (`local_locks.locked`), so whoever holds the lock knows that the hidden folders
beside it are of killed writers:

    .NAME.partial-*   unfinished, or replaced: removed
    .NAME.previous    the older folder, while a file system that cannot exchange two folders renames one after the
                      other: put back if there is no NAME
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.storage import local_locks
from tf_image_classification.storage.local_files import copy_files, remove_tree, staging_path, staging_paths, sync

_LEFTOVER = re.compile(r"\.(.+)\.(lock|partial-[0-9a-f]{8})")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_SYNC_THREADS = 8
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def replacing_dir(path: str) -> Iterator[str]:
    """A staging folder beside `path`, which replaces it when the block ends without an error.

    Removes what killed writers of `path` left beside it.

    Args:
        path: absolute, without links: the folder's only name, and so its only lock.

    Yields:
        The path of the staging folder.

    Raises:
        FlagError: `path` cannot be created or written to, or another process is writing it.
        UserError: the disk is full, or the folder cannot be replaced.
    """
    _make_parent(path)
    with local_locks.locked(path, wait=False) as is_locked, _staging_dir(path, is_locked) as staging:
        yield staging


def copy_dir_once(source: str, names: Iterable[str], path: str, marker: str) -> None:
    """Copies files of a folder to `path`, unless a folder with this marker is there, which is left untouched.

    Waits for another process that is doing the same. Removes what killed writers left in the parent folder.

    Args:
        names: of the files, relative to `source`.
        path: as of `replacing_dir`.

    Raises:
        FlagError: `path` cannot be created or written to.
        UserError: the disk is full.
    """
    _make_parent(path)
    remove_leftovers(os.path.dirname(path))
    with local_locks.locked(path, wait=True) as is_locked:
        if not os.path.lexists(os.path.join(path, marker)):
            with _staging_dir(path, is_locked) as staging:
                copy_files(source, names, staging)


def remove_leftovers(folder: str) -> None:
    """Removes what killed writers of folders left in `folder`, and nothing of those that are still writing."""
    for name in {match[1] for match in map(_LEFTOVER.fullmatch, os.listdir(folder)) if match}:
        path = os.path.join(folder, name)
        with contextlib.suppress(FlagError, OSError), local_locks.locked(path, wait=False) as is_locked:
            _recover(path, is_locked)


def restore_dir(path: str) -> None:
    """Puts a folder back that is missing because its writer was killed between two renames.

    Args:
        path: as of `replacing_dir`.
    """
    if not os.path.lexists(path) and os.path.lexists(_previous_path(path)):
        with contextlib.suppress(FlagError, OSError), local_locks.locked(path, wait=True) as is_locked:
            if is_locked:  # otherwise its writer may be between the two
                _restore(path)


@contextlib.contextmanager
def _staging_dir(path: str, is_locked: bool) -> Iterator[str]:
    staging = staging_path(path)
    try:
        _recover(path, is_locked)
        os.mkdir(staging)
    except OSError as error:
        raise local_locks.not_writable_error(path, error) from error
    try:
        yield staging
    except BaseException as error:
        remove_tree(staging)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise _cannot_write(path, error) from error
        raise
    try:
        _sync_tree(staging)
        _replace(path, staging)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _restore(path)
        remove_tree(staging)  # the older folder, or after an error the unfinished one


def _recover(path: str, is_locked: bool) -> None:
    """Corrects what a killed writer left."""
    _restore(path)
    if os.path.lexists(previous := _previous_path(path)):  # the new folder is in place
        os.rename(previous, staging_path(path))
    if is_locked:  # otherwise they may be of a process that is still writing
        for leftover in staging_paths(path):
            if os.path.isdir(leftover):  # a file is removed by the next writer of the file
                remove_tree(leftover)


def _replace(path: str, staging: str) -> None:
    """Puts a synced staging folder in the place of `path`; leaves the older folder, if any, in that of `staging`."""
    parent = os.path.dirname(path)
    if not os.path.lexists(path):
        os.rename(staging, path)
    elif not _exchange(staging, path):
        os.rename(path, _previous_path(path))
        os.rename(staging, path)
        sync(parent)
        os.rename(_previous_path(path), staging)  # never deleted under a name from which it would be put back
    sync(parent)


def _restore(path: str) -> None:
    previous = _previous_path(path)
    if not os.path.lexists(path) and os.path.lexists(previous):
        os.rename(previous, path)
        sync(os.path.dirname(path))


def _previous_path(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.previous")


def _exchange(first: str, second: str) -> bool:
    """Exchanges two folders in one step: renameat2(2). False where kernel, C library or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    return bool(renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def _make_parent(path: str) -> None:
    """Creates the folder of `path`, and syncs the folders in which that creates one."""
    parent = os.path.dirname(path)
    try:
        if not os.path.isdir(parent):
            _make_parent(parent)
            os.makedirs(parent, exist_ok=True)
            sync(os.path.dirname(parent))
    except OSError as error:
        raise local_locks.not_writable_error(path, error) from error


def _sync_tree(folder: str) -> None:
    """Syncs all files below a folder to disk, then the folders."""
    files, folders = [], []
    for directory, _, names in os.walk(folder, topdown=False):
        files += [path for name in names if not os.path.islink(path := os.path.join(directory, name))]
        folders.append(directory)
    # A journal writes what several threads wait for at once: 1,800 small files take 0.3 s instead of 5 s.
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        list(threads.map(sync, files))
    for directory in folders:
        sync(directory)


def _cannot_write(path: str, error: OSError) -> UserError:
    hint = ""
    if error.errno in _NO_SPACE:
        hint = "Free some space, or choose another folder."
    elif error.errno == errno.EBUSY:
        hint = "It may be a mount point, which cannot be replaced: choose a folder below it."
    return UserError(f"Cannot write {path}", received=error.strerror, hint=hint)
