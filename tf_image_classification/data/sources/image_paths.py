"""Paths and labels of images as sources name them -> entries, or the reason why they cannot be one."""

from __future__ import annotations

import functools
import os

from tf_image_classification import storage
from tf_image_classification.data import class_names
from tf_image_classification.data.sources.base import Entry, Rejected
from tf_image_classification.data.sources.path_list import is_absolute
from tf_image_classification.errors import FlagError

NO_BUCKET = "names no bucket"
NOT_UNICODE = "path is not UTF-8"
HAS_NUL = "path has a NUL byte"

_KNOWN_LABELS = 1024  # whose check is not repeated for every image


def locate(text: str, base: str) -> str | Rejected:
    """The path of an image as a list names it: normalized, or why it cannot be one.

    Args:
        text: relative, absolute or remote. A remote one is the exact name of an object.
        base: absolute folder that a relative one is relative to.
    """
    if not storage.is_unicode(text):
        return Rejected(ascii(text), NOT_UNICODE)
    if "\0" in text:  # JSON can hold one
        return Rejected(ascii(text), HAS_NUL)
    if not is_absolute(text):
        return _joined(base, text)
    if storage.is_remote(text):
        try:
            storage.split_remote(text)
        except FlagError:
            return Rejected(text, NO_BUCKET)
    return normalize(text)


def check_labels(entry: Entry) -> Entry | Rejected:
    """The entry with its labels in the form in which they are compared, or its rejection when one of them
    can be no class's."""
    labels, reason = _checked(entry.labels)
    if reason:
        return Rejected(entry.path, reason)
    return entry if labels == entry.labels else entry._replace(labels=labels)


@functools.lru_cache(_KNOWN_LABELS)
def _checked(labels: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """The labels in their canonical form, and what is wrong with the first of them that can be no class's."""
    names = tuple(map(class_names.canonical, labels))
    return names, next(filter(None, map(class_names.fault, names)), None)


def folder_of(path: str) -> str:
    """The absolute folder of a file: relative paths in a list are relative to it."""
    folder = storage.canonical(path).rpartition("/")[0] + "/"
    return folder if storage.is_remote(folder) else normalize(folder)


def normalize(path: str) -> str:
    """An absolute path; a local one without `.` and `..`. It follows no links: `ImageRoots` does."""
    return storage.canonical(path)


def is_below(path: str, root: str) -> bool:
    """Whether a normalized path is in a normalized folder."""
    prefix = storage.as_prefix(root)
    return path.startswith(prefix) and path != prefix


def _joined(base: str, text: str) -> str:
    """The absolute path of a relative one. `.` and `..` mean here what they do to a person, also in a bucket, where an
    object could be called so."""
    if not storage.is_remote(base):
        return normalize(os.path.join(base, text))
    scheme, bucket, name = storage.split_remote(storage.as_prefix(base))
    parts = name.split("/")[:-1]
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]  # above the bucket is the bucket, as above / is /
        elif part != ".":
            parts.append(part)
    return f"{scheme}{bucket}/{'/'.join(parts)}"
