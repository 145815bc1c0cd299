"""Reading and listing files, local, mounted or remote.

Contents of gs:// paths are read through their /gcs/ mount where there is one, else through the service. Listings and
versions of remote paths always come from the service: a mount has no versions, and may show for a while what was there
before.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from glob import escape
from typing import Any

from tf_image_classification.errors import DataError
from tf_image_classification.flag_types import GLOB_CHARACTERS
from tf_image_classification.storage import local_files, local_glob, local_walk, unicode_forms
from tf_image_classification.storage.local_files import Stat, Version
from tf_image_classification.storage.object_names import is_placeholder
from tf_image_classification.storage.paths import is_remote, mounted
from tf_image_classification.storage.stores import store_of

MAX_TEXT_BYTES = 2**28  # of a file that is read whole as text: 100,000 class names of 1,000 bytes, and some


def check_bucket(path: str) -> None:
    """Checks that the bucket of a remote path exists and that this account may list it.

    Raises:
        FileNotFoundError: bucket not found.
        google.api_core.exceptions.GoogleAPICallError: Cloud Storage refuses.
        AccessError, ServiceError: S3 refuses.
    """
    store_of(path).check_bucket(path)


def exists(path: str) -> bool:
    """Whether a file or folder exists; in a bucket, a folder without files does not."""
    if is_remote(path):
        found = store_of(path).find(path)
        return (found is not None and not is_placeholder(found)) or is_dir(path)
    return os.path.exists(path)


def other_form(path: str) -> str | None:
    """The other Unicode form in which a file or folder exists that does not exist as it is written; None if none does.

    For a program that found nothing at `path`: it costs a look-up per form.
    """
    return next((form for form in unicode_forms.other_forms(path) if exists(form)), None)


def is_dir(path: str) -> bool:
    """Whether a path is a folder; in a bucket, whether there is an object below it."""
    if is_remote(path):
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
            parts[index] = escape(part)
    pattern = "/".join(parts)
    return store_of(pattern).glob(pattern) if is_remote(pattern) else local_glob.glob(pattern)


def names_in(folder: str) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; [] if it does not exist."""
    if is_remote(folder):
        return store_of(folder).names_in(folder)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def folders_in(folder: str) -> list[str]:
    """The names of the folders directly in a folder, sorted; [] if it does not exist.

    Raises:
        PermissionError: the folder cannot be listed.
    """
    if is_remote(folder):
        return store_of(folder).names_in(folder, folders_only=True)
    return [name for name in names_in(folder) if os.path.isdir(os.path.join(folder, name))]


def stat(path: str) -> Stat:
    """Size and version of one file.

    Raises:
        FileNotFoundError: file not found.
    """
    return store_of(path).stat(path) if is_remote(path) else local_files.stat(path)


def walk(folder: str, hidden: bool = False, sizes: bool = True) -> Iterator[Stat]:
    """All files below a folder, sorted by path. Hidden files and folders are left out.

    A file that has no status, such as a dangling link, is listed with size and version 0: opening it raises the reason.
    A local folder that several links lead to is listed once through them, and never inside of itself.

    Args:
        hidden: also list hidden files, and each folder that is not entered as one entry with a slash at its end: a
            hidden one, and one that is listed elsewhere.
        sizes: False: size and version of local files are 0, which saves a system call for each.

    Raises:
        PermissionError: a folder cannot be listed.
        FlagError: likewise, for another reason, such as a path that is too long.
    """
    if is_remote(folder):
        return store_of(folder).list_objects(folder, hidden)
    return local_walk.walk(folder, hidden, sizes)


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The content of a file.

    Args:
        max_bytes: a larger file is not read; None for no limit.

    Raises:
        FileNotFoundError: file not found.
        PermissionError: no permission to read it.
        DataError: it is larger, or a pipe or a device.
    """
    local = mounted(path)
    try:
        if is_remote(local):
            return store_of(local).read_version(local, max_bytes)[0]
        with local_files.open_file(local) as file:
            if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return file.read()
    except OSError as error:
        if error.errno != errno.EFBIG or max_bytes is None:
            raise
        raise DataError("A file is too large", received=path, expected=f"at most {max_bytes:,} bytes") from None


def read_text(path: str) -> str:
    """The content of a UTF-8 text file, with or without a byte-order mark.

    Raises:
        FileNotFoundError, PermissionError, DataError: see `read_bytes`; it has at most MAX_TEXT_BYTES.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, MAX_TEXT_BYTES).decode("utf-8-sig")


def read_json(path: str, *, expected: str, hint: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        expected, hint: for the message, see UserError.

    Raises:
        FileNotFoundError, PermissionError: see `read_bytes`.
        DataError: it holds something else.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read", received=repr(error), expected=expected, hint=hint) from error
    return parse_json(text, path, expected=expected, hint=hint)


def parse_json(text: str | bytes, path: str, *, expected: str, hint: str = "") -> dict[str, Any]:
    """The JSON object in the content of a file: what `read_json` is for a content that has been read."""
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # RecursionError: a thousand brackets in each other
        raise DataError(f"{path} cannot be read", received=repr(error), expected=expected, hint=hint) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{path} cannot be read", received=f"JSON of type {type(found).__name__}", expected=expected, hint=hint
        )
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two equal names, another reader could take the other value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has a name twice")
    return content


def read_version(path: str) -> tuple[bytes | None, Version]:
    """The content and version of a file, for `write_bytes(if_version=)`; (None, 0) if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        if is_remote(path):
            return store_of(path).read_version(path)
        # The version is read first: with a content newer than its version, a later conditional write fails; with an
        # older one it would overwrite what this process has never seen.
        version = stat(path).version
        return read_bytes(path, MAX_TEXT_BYTES), version
    return None, 0
