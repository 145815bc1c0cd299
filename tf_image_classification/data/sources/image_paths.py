"""Paths and labels of images as sources name them -> entries, or the reason why they cannot be one."""

from __future__ import annotations

import os

from tf_image_classification import storage
from tf_image_classification.data import class_names
from tf_image_classification.data.sources.base import Entry, Rejected
from tf_image_classification.errors import FlagError

OUTSIDE_ROOT = "outside image_root"
NO_BUCKET = "names no bucket"
NOT_UNICODE = "path is not UTF-8"


def locate(text: str, labels: tuple[str, ...], folder: str, image_root: str | None) -> Entry | Rejected:
    """The entry of an image that a list names.

    Args:
        text: path as listed: relative, absolute or gs://. A gs:// one is the exact name of an object.
        labels: a class name per task.
        folder: absolute folder of the list, see `folder_of`.
        image_root: see `ReadOptions`; absolute.
    """
    if not storage.is_unicode(text):
        return Rejected(ascii(text), NOT_UNICODE)
    absolute = text.startswith(("/", storage.GCS_SCHEME))
    if storage.is_gcs(text):
        try:
            storage.split_gcs(text)
        except FlagError:
            return Rejected(text, NO_BUCKET)
    if absolute and image_root is None:
        return check_labels(Entry(normalize(text), text.removeprefix(storage.GCS_SCHEME).lstrip("/"), labels))
    base = folder if image_root is None else image_root
    path = normalize(text) if absolute else _resolve(base, text)
    if path is None or not is_below(path, base):
        return Rejected(text, OUTSIDE_ROOT)
    return check_labels(Entry(path, path[len(storage.as_prefix(base)) :], labels))


def check_labels(entry: Entry) -> Entry | Rejected:
    """The entry with its labels in the form in which they are compared, or its rejection when one of them
    can be no class's."""
    labels = tuple(map(class_names.canonical, entry.labels))
    for label in labels:
        if reason := class_names.fault(label):
            return Rejected(entry.path, reason)
    return entry._replace(labels=labels)


def folder_of(path: str) -> str:
    """The absolute folder of a file: relative paths in a list are relative to it."""
    folder = storage.canonical(path).rpartition("/")[0] + "/"
    return folder if storage.is_gcs(folder) else normalize(folder)


def normalize(path: str) -> str:
    """An absolute path; a local one without `.` and `..`. It follows no links: an image may be a link to anywhere."""
    return storage.canonical(path)


def is_below(path: str, root: str) -> bool:
    """Whether a normalized path is in a normalized folder."""
    return path.startswith(storage.as_prefix(root))


def _resolve(base: str, text: str) -> str | None:
    """The absolute path of a relative one; None for one that leads to `base` or above it.

    `.` and `..` mean here what they do to a person, also on gs://, where an object could be called so.
    """
    if not storage.is_gcs(base):
        return normalize(os.path.join(base, text))
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return storage.join(base, *parts) if any(parts) else None
