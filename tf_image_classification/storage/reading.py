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
from tf_image_classification.storage import gcs, local_files
from tf_image_classification.storage.local_files import Stat
from tf_image_classification.storage.paths import is_gcs, mounted


def exists(path: str) -> bool:
    """Whether a file or folder exists."""
    if is_gcs(path):
        return gcs.find(path) is not None or is_dir(path)
    return os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether a path is a folder; on gs://, whether there is an object below it."""
    if is_gcs(path):
        return next(walk(path), None) is not None
    return os.path.isdir(path)


def glob(pattern: str) -> list[str]:
    """The files and folders that match a path or glob, sorted; [] for a path that does not exist."""
    if is_gcs(pattern):
        if GLOB_CHARACTERS.isdisjoint(pattern):
            return [pattern] if exists(pattern) else []
        return gcs.glob(pattern)
    if os.path.exists(pattern):  # also a file whose own name has a * in it
        return [pattern]
    return sorted(local_glob.glob(pattern, recursive=True))


def names_in(folder: str) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; [] if it does not exist."""
    if is_gcs(folder):
        return gcs.names_in(folder)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def stat(path: str) -> Stat:
    """Size and version of one file.

    Raises:
        FileNotFoundError: file not found.
    """
    return gcs.stat(path) if is_gcs(path) else local_files.stat(path)


def walk(folder: str) -> Iterator[Stat]:
    """All files below a folder, sorted by path. Hidden files and folders are left out.

    A file that has no status, such as a dangling link, is listed with size and version 0: opening it raises the reason.

    Raises:
        PermissionError: a folder cannot be listed.
    """
    return gcs.list_objects(folder) if is_gcs(folder) else local_files.walk(folder)


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: file not found.
        PermissionError: no permission to read it.
    """
    path = mounted(path)
    return gcs.read(path) if is_gcs(path) else Path(path).read_bytes()


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
