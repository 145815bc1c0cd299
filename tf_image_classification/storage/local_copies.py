"""Local copies of files and folders on gs://, for code that needs a local path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

from tf_image_classification.storage import gcs, gcs_folders, local_files
from tf_image_classification.storage.paths import as_prefix, is_gcs, mounted

_MAX_NAME_BYTES = 200  # of a local file, beside what a staging path adds


def fetch(path: str, folder: str) -> str:
    """The local path of a file: itself, or its mount, or a new copy below `folder`.

    Copies of the files of one folder are in one folder, under their own names.

    Raises:
        FileNotFoundError: file not found.
    """
    path = mounted(path)
    if not is_gcs(path):
        return path
    target = _copy_path(folder, path)
    staging = local_files.staging_path(target)
    try:
        gcs_folders.download(path, staging)
        os.replace(staging, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staging)
        raise
    return target


def fetch_dir(folder: str, target: str) -> str:
    """The local path of a folder: itself, or a copy at `target`, which appears whole or not at all.

    One on gs:// comes from the service also where it is mounted: a mount may show older content.

    Raises:
        FileNotFoundError: folder not found, or empty.
        ConflictError: it was replaced while it was copied.
    """
    if not is_gcs(folder):
        return folder
    found = list(gcs.list_objects(folder))
    if not found:
        raise local_files.not_found_error(folder)
    staging = local_files.staging_path(target)
    files = [gcs_folders.local_path(staging, item.path.removeprefix(as_prefix(folder))) for item in found]
    try:
        gcs_folders.download_files(found, files)
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
