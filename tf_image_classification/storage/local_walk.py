"""Local folders, listed in a time that grows with what is on the disk, not with the paths that lead to it.

A link may lead to a folder that holds further links, two of which lead on: forty such folders have a million million
paths. So a folder is listed under its own name, and once more through the first link that leads to it; a link to a
folder that it is in is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tf_image_classification.errors import FlagError
from tf_image_classification.storage.local_files import Stat

_SHOWN_PATH = 200  # characters of a path in a message

_Identity = tuple[int, int]  # device and inode


@dataclass(slots=True)
class Folder:
    """What is directly in a folder.

    Attributes:
        path: of the folder.
        folders: its sub-folders, sorted by name: what is taken out of the list is not entered.
        files: all else, sorted by name.
        is_repeated: whether it is a link to a folder that it is in, or a link before has led to it: it is not listed.
    """

    path: str
    folders: list[os.DirEntry[str]]
    files: list[os.DirEntry[str]]
    is_repeated: bool = False


def walk(folder: str, hidden: bool = False, sizes: bool = True) -> Iterator[Stat]:
    """All files below a folder; links are followed, see above.

    Args:
        hidden: also list hidden files, and each folder that is not entered as one entry with a slash at its end: a
            hidden one, and one that is listed elsewhere.
        sizes: False saves a system call per file: size and version are 0.

    Raises:
        PermissionError: a folder cannot be listed.
        FlagError: likewise, for another reason.
    """
    for found in folders_below(folder):
        if found.is_repeated:
            if hidden:
                yield Stat(os.path.join(found.path, ""), 0, 0)
            continue
        if hidden:
            for entry in found.folders:
                if entry.name.startswith("."):
                    yield Stat(os.path.join(entry.path, ""), 0, 0)
        found.folders[:] = [entry for entry in found.folders if not entry.name.startswith(".")]
        found.files.reverse()
        while found.files:  # not kept with their status, which takes most of the memory of a folder of millions
            entry = found.files.pop()
            if hidden or not entry.name.startswith("."):
                yield _stat(entry) if sizes else Stat(entry.path, 0, 0, entry.is_symlink())


def folders_below(folder: str) -> Iterator[Folder]:
    """A folder, if it exists, and all folders below it, each before its sub-folders.

    Raises:
        PermissionError, FlagError: see `walk`.
    """
    above = _ancestors(folder)  # the folders that the current one is in
    linked: set[_Identity] = set()  # those that a link has led to, and the ones below them
    # Path, whether it is a link or below one, and for a folder whose sub-folders are all listed what it is.
    pending: list[tuple[str, bool, _Identity | None]] = [(folder, False, None)]
    while pending:
        path, is_linked, listed = pending.pop()
        if listed:
            above.discard(listed)
            continue
        try:
            identity = _identity(os.stat(path))
            if identity in above or (is_linked and identity in linked):
                yield Folder(path, [], [], is_repeated=True)
                continue
            found = _listed(path)
        except (FileNotFoundError, NotADirectoryError):  # removed meanwhile, or never there
            continue
        except PermissionError:
            raise
        except OSError as error:
            raise cannot_list(path, error) from error
        above.add(identity)
        if is_linked:
            linked.add(identity)
        yield found
        pending.append((path, is_linked, identity))
        pending += [(entry.path, is_linked or entry.is_symlink(), None) for entry in reversed(found.folders)]


def _ancestors(folder: str) -> set[_Identity]:
    """The folders that a folder is in."""
    found, path = set(), os.path.realpath(folder)
    while path != (path := os.path.dirname(path)):
        with contextlib.suppress(OSError):
            found.add(_identity(os.stat(path)))
    return found


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _listed(path: str) -> Folder:
    found = Folder(path, [], [])
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            (found.folders if _is_dir(entry) else found.files).append(entry)
    return found


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a circle of links, for example: opening it raises the reason
        return False


def _stat(entry: os.DirEntry[str]) -> Stat:
    try:
        status = entry.stat()
    except OSError:
        return Stat(entry.path, 0, 0)
    return Stat(entry.path, status.st_size, status.st_mtime_ns, entry.is_symlink())


def cannot_list(path: str, error: OSError) -> FlagError:
    """The error that a folder cannot be listed."""
    received = f"{path[:_SHOWN_PATH]}{'...' if len(path) > _SHOWN_PATH else ''}"
    if error.errno == errno.ENAMETOOLONG:
        return FlagError(
            "Folders are nested too deeply: a path is longer than the system allows",
            received=f"{len(os.fsencode(path)):,} bytes: {received}",
            expected="paths of at most 4,095 bytes",
        )
    return FlagError(
        "A folder cannot be listed", received=f"{received}: {error.strerror}", expected="a folder that can be read"
    )
