"""Paths and labels of images as sources name them -> entries, or the reason why they cannot be one."""

from __future__ import annotations

import posixpath

from tf_image_classification import storage
from tf_image_classification.data.sources.base import Entry, Rejected
from tf_image_classification.errors import FlagError

OUTSIDE_ROOT = "outside image_root"
NO_BUCKET = "names no bucket"


def locate(text: str, labels: tuple[str, ...], folder: str, image_root: str | None) -> Entry | Rejected:
    """The entry of an image that a list names.

    Args:
        text: path as listed: relative, absolute or gs://.
        labels: a class name per task.
        folder: absolute folder of the list.
        image_root: see `ReadOptions`; absolute.
    """
    absolute = text.startswith(("/", storage.GCS_SCHEME))
    if storage.is_gcs(text):
        try:
            storage.split_gcs(text)
        except FlagError:
            return Rejected(text, NO_BUCKET)
    if absolute and image_root is None:
        return check_labels(Entry(normalize(text), text.removeprefix(storage.GCS_SCHEME).lstrip("/"), labels))
    base = folder if image_root is None else image_root
    path = normalize(text if absolute else storage.join(base, text))
    if not is_below(path, base):
        return Rejected(text, OUTSIDE_ROOT)
    return check_labels(Entry(path, path[len(base.rstrip("/")) + 1 :], labels))


def check_labels(entry: Entry) -> Entry | Rejected:
    """The entry, or its rejection when a labels file could not hold one of its labels."""
    for label in entry.labels:
        if not label:
            return Rejected(entry.path, "no label")
        if len(label.splitlines()) > 1:
            return Rejected(entry.path, "label has a line break")
        if not label.isascii() and label.encode(errors="replace") != label.encode(errors="surrogatepass"):
            return Rejected(entry.path, "label is not UTF-8")
    return entry


def normalize(path: str) -> str:
    """An absolute path without `.` and `..`. It follows no links: an image may be a link to anywhere."""
    path = storage.canonical(path)
    if storage.is_gcs(path):
        bucket, name = storage.split_gcs(path)
        return storage.GCS_SCHEME + posixpath.normpath(f"{bucket}/{name}")
    return path


def is_below(path: str, root: str) -> bool:
    """Whether a normalized path is in a normalized folder."""
    return path.startswith(root.rstrip("/") + "/")
