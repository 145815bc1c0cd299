"""Reading and listing files, local, mounted or gs://.

Contents of gs:// paths are read through their /gcs/ mount where there is one, else through google-cloud-storage.
Listings and versions of gs:// paths always come from google-cloud-storage: a mount has no generations, and may show for
a while what was there before.
"""

from __future__ import annotations

import contextlib
import glob as local_glob
import os
from collections.abc import Iterator
from pathlib import Path

from tf_image_classification.flag_types import GLOB_CHARACTERS
from tf_image_classification.storage import gcs, local_files, unicode_forms
from tf_image_classification.storage.local_files import Stat
from tf_image_classification.storage.paths import is_gcs, mounted


def exists(path: str) -> bool:
    """Whether a file or folder exists; on gs://, a folder without files does not."""
    if is_gcs(path):
        found = gcs.find(path)
        return (found is not None and not gcs.is_placeholder(found)) or is_dir(path)
    return os.path.exists(path)


def other_form(path: str) -> str | None:
    """The other Unicode form in which a file or folder exists that does not exist as it is written; None if none does.

    For a program that found nothing at `path`: it costs a look-up per form.
    """
    return next((form for form in unicode_forms.other_forms(path) if exists(form)), None)


def is_dir(path: str) -> bool:
    """Whether a path is a folder; on gs://, whether there is an object below it."""
    if is_gcs(path):
        return next(walk(path), None) is not None
    return os.path.isdir(path)


def glob(pattern: str) -> list[str]:
    """The files and folders that match a path or glob, sorted; [] for a path that does not exist.

    A path that exists as it is written, and each of its folders that does, is no glob, whatever characters it has.
    """
    if exists(pattern):
        return [pattern]
    if GLOB_CHARACTERS.isdisjoint(pattern) or "\0" in pattern:
        return []
    parts = pattern.split("/")
    for index, part in enumerate(parts[:-1]):
        if not GLOB_CHARACTERS.isdisjoint(part):
            if not is_dir("/".join(pattern.split("/")[: index + 1])):
                break
            parts[index] = local_glob.escape(part)
    pattern = "/".join(parts)
    return gcs.glob(pattern) if is_gcs(pattern) else sorted(local_glob.glob(pattern, recursive=True))


def names_in(folder: str) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; [] if it does not exist."""
    if is_gcs(folder):
        return gcs.names_in(folder)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def folders_in(folder: str) -> list[str]:
    """The names of the folders directly in a folder, sorted; [] if it does not exist.

    Raises:
        PermissionError: the folder cannot be listed.
    """
    if is_gcs(folder):
        return gcs.names_in(folder, folders_only=True)
    return [name for name in names_in(folder) if os.path.isdir(os.path.join(folder, name))]


def stat(path: str) -> Stat:
    """Size and version of one file.

    Raises:
        FileNotFoundError: file not found.
    """
    return gcs.stat(path) if is_gcs(path) else local_files.stat(path)


def walk(folder: str, hidden: bool = False) -> Iterator[Stat]:
    """All files below a folder, sorted by path. Hidden files and folders are left out.

    A file that has no status, such as a dangling link, is listed with size and version 0: opening it raises the reason.

    Args:
        hidden: also list hidden files, and each hidden folder as one entry with a slash at its end.

    Raises:
        PermissionError: a folder cannot be listed.
    """
    return gcs.list_objects(folder, hidden) if is_gcs(folder) else local_files.walk(folder, hidden)


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The content of a file.

    Args:
        max_bytes: of an object on gs:// that is not mounted, whose download ends there; None for no limit.

    Raises:
        OSError: EFBIG, the object has more bytes.
        FileNotFoundError: file not found.
        PermissionError: no permission to read it.
    """
    path = mounted(path)
    return gcs.read(path, max_bytes) if is_gcs(path) else Path(path).read_bytes()


def read_text(path: str) -> str:
    """The content of a UTF-8 text file, with or without a byte-order mark."""
    return read_bytes(path).decode("utf-8-sig")


def read_version(path: str) -> tuple[bytes | None, int]:
    """The content and version of a file, for `write_bytes(if_version=)`; (None, 0) if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        if is_gcs(path):
            return gcs.read_version(path)
        # The version is read first: with a content newer than its version, a later conditional write fails; with an
        # older one it would overwrite what this process has never seen.
        version = stat(path).version
        return read_bytes(path), version
    return None, 0
