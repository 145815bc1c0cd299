"""Local copies of files and folders in buckets, for code that needs a local path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

from tf_image_classification.storage import bucket_folders, local_files
from tf_image_classification.storage.paths import as_prefix, is_remote, mounted
from tf_image_classification.storage.stores import store_of, transfers_of

_MAX_NAME_BYTES = 200  # of a local file, beside what a staging path adds


def fetch(path: str, folder: str) -> str:
    """The local path of a file: itself, or its mount, or a new copy below `folder`.

    Copies of the files of one folder are in one folder, under their own names.

    Raises:
        FileNotFoundError: file not found.
    """
    path = mounted(path)
    if not is_remote(path):
        return path
    target = _copy_path(folder, path)
    staging = local_files.staging_path(target)
    try:
        bucket_folders.download(path, staging)
        os.replace(staging, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
        raise
    return target


def fetch_dir(folder: str, target: str) -> str:
    """The local path of a folder: itself, or a copy at `target`, which appears whole or not at all.

    One in a bucket comes from the service also where it is mounted: a mount may show older content.

    Raises:
        FileNotFoundError: folder not found, or empty.
        ConflictError: it was replaced while it was copied.
    """
    if not is_remote(folder):
        return folder
    found = list(store_of(folder).list_objects(folder))
    if not found:
        raise local_files.not_found_error(folder)
    staging = local_files.staging_path(target)
    files = [bucket_folders.local_path(staging, item.path.removeprefix(as_prefix(folder))) for item in found]
    try:
        transfers_of(folder).download_files(found, files)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def _copy_path(folder: str, path: str) -> str:
    """Where an object is copied to: its name need not be the path of a file, and may begin with that of another."""
    parent, _, name = path.rpartition("/")
    if name in ("", ".", "..") or len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = _digest(name)
    return os.path.join(folder, _digest(parent), name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
