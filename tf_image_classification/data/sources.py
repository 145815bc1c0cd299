"""Metadata: the text of --train_metadata and --eval_metadata -> sources -> images with their labels.

A source is a CSV, a folder with one sub-folder per class, or TFRecord files. Nothing here opens an image.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError, FlagError

CSV, FOLDER, TFRECORD = "csv", "folder", "tfrecord"

OUTSIDE_ROOT = "outside image_root"
NOT_IN_CLASS_FOLDER = "not in a class folder"
NO_BUCKET = "names no bucket"

_PATH_COLUMNS = frozenset(
    {"uris", "uri", "path", "paths", "image", "images", "file", "files", "filename", "image_path", "file_path"}
)
_TASK_NAME = re.compile(r"[\w.-]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_STATS_AT_ONCE = 32  # requests to a bucket at a time; each takes tens of milliseconds


@dataclass(frozen=True, slots=True)
class Source:
    """One part of a metadata text.

    Attributes:
        kind: `csv`, `folder` (one sub-folder per class) or `tfrecord`.
        path: as given: the CSV, the folder, the TFRecord file.
        files: the TFRecord files; empty for the other kinds and for a built data set, whose manifest lists them.
    """

    kind: str
    path: str
    files: tuple[str, ...] = ()

    @property
    def is_built(self) -> bool:
        """Whether this is a folder that build_tfrecords wrote."""
        return self.kind == TFRECORD and not self.files


class Entry(NamedTuple):
    """An image that a source names.

    Attributes:
        path: as storage opens it.
        filename: relative to its root, with POSIX separators.
        labels: a class name per task.
    """

    path: str
    filename: str
    labels: tuple[str, ...]


class Rejected(NamedTuple):
    """An image that a source names and that cannot be used, and why."""

    path: str
    reason: str


def expand(metadata: str) -> list[Source]:
    """The sources that a metadata text names, separated by commas; globs are resolved.

    Raises:
        FlagError: a part names nothing, images and TFRecords are mixed, or a TFRecord file is named twice.
    """
    parts = (
        [metadata] if "," in metadata and storage.exists(metadata) else [part.strip() for part in metadata.split(",")]
    )
    sources = [source for part in parts if part for source in _expand_part(part)]
    if not sources:
        raise FlagError("The metadata names no data", received=repr(metadata), expected=_EXPECTED)
    if len({source.kind == TFRECORD for source in sources}) > 1:
        raise FlagError(
            "The metadata mixes images with TFRecords",
            received=metadata,
            expected="either CSVs and folders of images, or TFRecords",
            hint="Build TFRecords of the images first.",
        )
    times = Counter(
        os.path.normpath(path)
        for source in sources
        if source.kind == TFRECORD
        for path in source.files or (source.path,)
    )
    if twice := [path for path, number in times.items() if number > 1]:
        raise FlagError("The metadata names TFRecords twice", received=", ".join(twice[:5]), expected="each file once")
    return sources


_EXPECTED = "a CSV, a folder with one sub-folder per class, or TFRecord files or globs, separated by commas"


def _expand_part(part: str) -> Iterator[Source]:
    matches = storage.glob(part)
    if not matches and storage.is_dir(part):  # on gs://, a folder is what objects lie under
        matches = [part]
    if not matches:
        what = (
            "The CSV does not exist" if part.lower().endswith(".csv") else "The metadata names files that do not exist"
        )
        raise FlagError(what, received=part, expected=_EXPECTED)
    for match in matches:
        if storage.is_dir(match):
            yield _expand_folder(match)
        elif match.lower().endswith(".csv"):
            yield Source(CSV, match)
        else:
            yield Source(TFRECORD, match, (match,))


def _expand_folder(folder: str) -> Source:
    loose: list[str] = []
    for file in _walk(folder):
        if "/" in file.filename:
            return Source(FOLDER, folder)
        loose.append(file.filename)
    if manifest.FILE_NAME in loose:
        return Source(TFRECORD, folder)
    if records := sorted(name for name in loose if ".tfrecord" in name):
        return Source(TFRECORD, folder, tuple(storage.join(folder, name) for name in records))
    raise FlagError(
        "The folder has no class sub-folders",
        received=folder,
        expected="a folder with one sub-folder of images per class",
        hint="If this is the folder of one class, give the folder that holds all of them.",
    )


class _File(NamedTuple):
    path: str
    filename: str
    size: int
    version: int


def _walk(folder: str) -> Iterator[_File]:
    root = folder.rstrip("/") or "/"
    skip = len(root.rstrip("/")) + 1
    try:
        for path, size, version in storage.walk(root):
            yield _File(path, path[skip:], size, version)
    except PermissionError as error:
        raise FlagError(
            "A folder cannot be read", received=error.filename, expected="a folder whose files can be listed"
        ) from error


def task_names(sources: Sequence[Source]) -> tuple[str, ...]:
    """What the images of these sources are labelled with: a name per label column.

    Raises:
        DataError: a CSV's first line says nothing usable, or the sources disagree.
    """
    names = {
        source.path: _csv_tasks(source.path) if source.kind == CSV else (manifest.DEFAULT_TASK,) for source in sources
    }
    if len(set(names.values())) > 1:
        raise DataError(
            "The sources have different label columns",
            received="; ".join(f"{path}: {', '.join(tasks)}" for path, tasks in names.items()),
            expected="the same label columns everywhere",
        )
    return next(iter(names.values()))


def read_entries(sources: Sequence[Source], image_root: str | None = None) -> Iterator[Entry | Rejected]:
    """Everything that the sources name, in a fixed order: a CSV's lines, a folder's files. It may name an image twice.

    Args:
        sources: of images.
        image_root: folder that relative paths are relative to and that everything must lie under; by default each CSV's
            own folder, under which relative paths must stay, while absolute ones and gs:// are taken as they are.

    Raises:
        DataError: a CSV is not readable as one.
    """
    root = None if image_root is None else _normal(image_root)
    for source in sources:
        if source.kind == CSV:
            yield from _read_csv(source.path, root)
        else:
            yield from _read_folder(source.path, root)


def _read_folder(folder: str, root: str | None) -> Iterator[Entry | Rejected]:
    folder = _normal(folder)
    inside = root is None or _is_below(folder + "/", root)
    for path, filename, _, _ in _walk(folder):
        label, slash, _ = filename.partition("/")
        if not inside:
            yield Rejected(path, OUTSIDE_ROOT)
        elif not slash:
            yield Rejected(path, NOT_IN_CLASS_FOLDER)
        else:
            yield _checked(Entry(path, filename, (label.strip(),)))


def _read_csv(path: str, root: str | None) -> Iterator[Entry | Rejected]:
    columns = len(_csv_tasks(path)) + 1
    folder = _normal(os.path.dirname(path) or ".")
    for number, fields in _rows(path):
        if number == 0 and _is_header(fields):
            continue
        if len(fields) != columns:
            yield Rejected(fields[0] or path, f"{len(fields)} columns instead of {columns}")
        elif not fields[0]:
            yield Rejected(path, "no path")
        else:
            yield _locate(fields[0], tuple(fields[1:]), folder, root)


def _locate(text: str, labels: tuple[str, ...], folder: str, root: str | None) -> Entry | Rejected:
    absolute = text.startswith(("/", storage.GCS_SCHEME))
    if storage.is_gcs(text):
        try:
            storage.split_gcs(text)
        except FlagError:
            return Rejected(text, NO_BUCKET)
    if absolute and root is None:
        return _checked(Entry(_normal(text), text.removeprefix(storage.GCS_SCHEME).lstrip("/"), labels))
    base = folder if root is None else root
    path = _normal(text if absolute else storage.join(base, text))
    if not _is_below(path, base):
        return Rejected(text, OUTSIDE_ROOT)
    return _checked(Entry(path, path[len(base.rstrip("/")) + 1 :], labels))


def _checked(entry: Entry) -> Entry | Rejected:
    for label in entry.labels:
        if not label:
            return Rejected(entry.path, "no label")
        if len(label.splitlines()) > 1:
            return Rejected(entry.path, "label has a line break")
        if not label.isascii() and label.encode(errors="replace") != label.encode(errors="surrogatepass"):
            return Rejected(entry.path, "label is not UTF-8")
    return entry


def _normal(path: str) -> str:
    """An absolute path without `.` and `..`. It follows no links: an image may be a link to anywhere."""
    path = storage.canonical(path)
    if storage.is_gcs(path):
        bucket, name = storage.split_gcs(path)
        return storage.GCS_SCHEME + posixpath.normpath(f"{bucket}/{name}")
    return path


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _csv_tasks(path: str) -> tuple[str, ...]:
    number_and_fields = next(_rows(path), None)
    if number_and_fields is None:
        raise DataError("The CSV is empty", received=path, expected=_CSV_EXPECTED)
    fields = number_and_fields[1]
    if len(fields) < 2:
        raise DataError("The CSV has a single column", received=f"{path}: {fields[0]}", expected=_CSV_EXPECTED)
    if len(fields) == 2:
        return (manifest.DEFAULT_TASK,)
    if not _is_header(fields):
        raise DataError(
            f"The CSV has {len(fields)} columns and no header",
            received=f"{path}: {','.join(fields)}",
            expected="a first line such as path,age,gender that names the label columns, or two columns",
            hint="A path or label that contains a comma must stand in double quotes.",
        )
    names = tuple(fields[1:])
    if len(set(names)) < len(names) or not all(_TASK_NAME.fullmatch(name) for name in names):
        raise DataError(
            "The CSV's header does not name its label columns",
            received=f"{path}: {','.join(fields)}",
            expected="different names of letters, digits, '_', '-' and '.'",
        )
    return names


_CSV_EXPECTED = "lines of path,label, or a header URIs,labels and such lines"


def _is_header(fields: Sequence[str]) -> bool:
    return fields[0].lower() in _PATH_COLUMNS


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, counted from 0, as fields without the spaces around them."""
    with contextlib.ExitStack() as stack:
        try:
            local = storage.fetch(path, stack.enter_context(storage.temporary_dir()))
            file = stack.enter_context(open(local, encoding="utf-8-sig", newline=""))
            lines = ([field.strip() for field in fields] for fields in csv.reader(file, skipinitialspace=True))
            yield from enumerate(fields for fields in lines if any(fields))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                "The CSV cannot be read", received=f"{path}: {error}", expected="UTF-8 text of " + _CSV_EXPECTED
            ) from error
        except OSError as error:
            raise FlagError(
                "The CSV cannot be read", received=f"{path}: {error.strerror}", expected="a readable file"
            ) from error


def order_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their ids: sorted, as numbers if all of them are."""
    distinct = sorted(set(names))
    return tuple(sorted(distinct, key=int)) if all(_INTEGER.fullmatch(name) for name in distinct) else tuple(distinct)


def split_of(filename: str, eval_fraction: float) -> str:
    """The side that an image falls on: the SHA-256 of its relative path decides, so that adding images moves none."""
    digest = hashlib.sha256(os.fsencode(filename)).digest()
    return manifest.EVAL if int.from_bytes(digest[:8]) / 2**64 < eval_fraction else manifest.TRAIN


def fingerprint(
    train_metadata: str,
    eval_metadata: str | None = None,
    *,
    labels_file: str | None = None,
    image_root: str | None = None,
    eval_fraction: float | None = None,
) -> str:
    """What the data is now: a SHA-256 over CSVs, relative names, sizes and versions of images and TFRecords, and the
    labels file.

    No image is read. The order of listings plays no part: the digests of the items are added up.

    Args:
        eval_fraction: part of the fingerprint when it decides what is held out: when there is no `eval_metadata`.

    Returns:
        64 hexadecimal digits.

    Raises:
        FlagError: the metadata names nothing, or there is no labels file.
    """
    sides = [(manifest.TRAIN, train_metadata)] + ([(manifest.EVAL, eval_metadata)] if eval_metadata else [])
    items: Iterator[tuple[object, ...]] = itertools.chain(
        [] if eval_metadata else [("eval_fraction", eval_fraction)],
        [("labels", _labels_digest(labels_file))] if labels_file else [],
        *(_items(side, source, image_root or None) for side, metadata in sides for source in expand(metadata)),
    )
    total = sum(int.from_bytes(hashlib.sha256(json.dumps(item).encode()).digest()) for item in items)
    return f"{total % 2**256:064x}"


def _items(side: str, source: Source, image_root: str | None) -> Iterator[tuple[object, ...]]:
    if source.kind == FOLDER:
        for _, filename, size, version in _walk(source.path):
            yield side, "image", filename, size, version
    elif source.kind == CSV:
        yield side, "csv", _digest(storage.read_bytes(source.path))
        entries = (entry for entry in read_entries([source], image_root) if isinstance(entry, Entry))
        yield from _stat_items(side, ((entry.path, entry.filename) for entry in entries))
    else:
        files: Sequence[str] = source.files
        if source.is_built:
            yield side, "manifest", _digest(storage.read_bytes(storage.join(source.path, manifest.FILE_NAME)))
            built = manifest.read(source.path)
            files = [path for split in built.splits for path in built.shard_paths(split)]
        yield from _stat_items(side, ((path, posixpath.basename(path)) for path in files))


def _stat_items(side: str, files: Iterator[tuple[str, str]]) -> Iterator[tuple[object, ...]]:
    with ThreadPoolExecutor(_STATS_AT_ONCE) as executor:
        while some := list(itertools.islice(files, 8 * _STATS_AT_ONCE)):
            map_ = executor.map if any(storage.is_gcs(path) for path, _ in some) else map
            for (_, filename), (size, version) in zip(
                some, map_(_size_and_version, (path for path, _ in some)), strict=True
            ):
                yield side, "image", filename, size, version


def _size_and_version(path: str) -> tuple[int, int]:
    try:
        _, size, version = storage.stat(path)
    except (OSError, ValueError):  # a missing image is part of what the data is now
        return -1, 0
    return size, version


def _labels_digest(labels_file: str) -> str:
    try:
        return _digest(storage.read_bytes(labels_file))
    except (FileNotFoundError, IsADirectoryError):
        raise FlagError(
            "--labels_file does not exist", received=labels_file, expected="a text file with one class name per line"
        ) from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
