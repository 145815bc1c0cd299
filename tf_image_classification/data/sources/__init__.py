"""Metadata: the text of --train_metadata and --eval_metadata -> sources -> images with their labels, or TFRecord files.

Nothing here opens an image. A further kind of source is a class in a file of its own, listed in KINDS.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.data.sources.base import (
    AS_GIVEN,
    Candidate,
    Entry,
    FingerprintItem,
    ImageSource,
    ReadOptions,
    RecordFile,
    RecordSource,
    Rejected,
    Source,
)
from tf_image_classification.data.sources.built_data_set import BuiltDataSet
from tf_image_classification.data.sources.class_folder import NOT_IN_CLASS_FOLDER, ClassFolder
from tf_image_classification.data.sources.csv_file import CsvFile
from tf_image_classification.data.sources.image_paths import NO_BUCKET, folder_of, normalize
from tf_image_classification.data.sources.image_roots import ImageRoots
from tf_image_classification.data.sources.path_list import split_metadata
from tf_image_classification.data.sources.tfrecord_files import TFRecordFiles
from tf_image_classification.data.sources.vertex_json_lines import VertexJsonLines
from tf_image_classification.errors import DataError, FlagError

__all__ = [
    "AS_GIVEN",
    "KINDS",
    "NOT_IN_CLASS_FOLDER",
    "NO_BUCKET",
    "BuiltDataSet",
    "Candidate",
    "ClassFolder",
    "CsvFile",
    "Entry",
    "FingerprintItem",
    "ImageRoots",
    "ImageSource",
    "ReadOptions",
    "RecordFile",
    "RecordSource",
    "Rejected",
    "Source",
    "TFRecordFiles",
    "VertexJsonLines",
    "check_split_column",
    "expand",
    "order_labels",
    "read_entries",
    "roots_of",
    "split_metadata",
    "split_of",
    "task_names",
]

# In the order in which they are tried on a path. TFRecordFiles matches any file, so it is last.
KINDS: tuple[type[Source], ...] = (CsvFile, VertexJsonLines, ClassFolder, BuiltDataSet, TFRecordFiles)

_INTEGER = re.compile(r"[+-]?[0-9]+")


def expand(metadata: str) -> list[Source]:
    """The sources that a metadata text names, separated by commas; globs are resolved.

    Returns:
        At least one source; all of them are ImageSources, or all are RecordSources.

    Raises:
        FlagError: a part names nothing, images and TFRecords are mixed, or a TFRecord file is named twice.
    """
    if not storage.is_unicode(metadata):  # manifest.json and the report could not name it
        raise FlagError(
            "The metadata's path is not UTF-8",
            received=ascii(metadata),
            expected="a path that UTF-8 can hold",
            hint="Rename the folder or file; names below it need not be UTF-8.",
        )
    sources = [source for part in split_metadata(metadata) for source in _expand_part(part)]
    if not sources:
        raise FlagError("The metadata names no data", received=repr(metadata), expected=_expected())
    records = [source for source in sources if isinstance(source, RecordSource)]
    if 0 < len(records) < len(sources):
        raise FlagError(
            "The metadata mixes images with TFRecords",
            received=metadata,
            expected=_either(kind for kind in KINDS if issubclass(kind, ImageSource))
            + "; or else "
            + _either(kind for kind in KINDS if issubclass(kind, RecordSource)),
            hint="Build TFRecords of the images first.",
        )
    counts = Counter(storage.as_prefix(storage.canonical(path)) for source in records for path in source.named_paths)
    if duplicates := [path for path, count in counts.items() if count > 1]:
        raise FlagError(
            "The metadata names TFRecords twice",
            received=", ".join(path.removesuffix("/") for path in duplicates[:5]),
            expected="each file once",
        )
    return sources


def check_split_column(sources: Iterable[Source], options: ReadOptions) -> None:
    """Refuses --split_column where a source cannot have it.

    Raises:
        FlagError: a source is no list with columns.
    """
    if options.split_column and (others := [source for source in sources if not source.takes_split_column]):
        raise FlagError(
            f"--split_column names a column, and a {others[0].kind} has none",
            received=f"--split_column {options.split_column}, and {others[0].path}",
            expected="CSVs with this column everywhere, or no --split_column",
            hint="Vertex AI's import files name their splits without it, and other sources take theirs from "
            "--eval_metadata or --eval_fraction.",
        )


def task_names(sources: Sequence[ImageSource], options: ReadOptions = AS_GIVEN) -> tuple[str, ...]:
    """What the images of these sources are labelled with: a name per label column.

    Raises:
        DataError: a source does not name them, or the sources disagree.
    """
    names = {source.path: source.task_names(options) for source in sources}
    if len(set(names.values())) > 1:
        raise DataError(
            "The sources have different label columns",
            received="; ".join(f"{path}: {', '.join(tasks)}" for path, tasks in names.items()),
            expected="the same label columns everywhere",
        )
    return next(iter(names.values()))


def read_entries(sources: Sequence[ImageSource], options: ReadOptions = AS_GIVEN) -> Iterator[Entry | Rejected]:
    """Everything that the sources name, one source after the other; see `ImageSource.entries`.

    Raises:
        DataError: a source is not readable as one of its kind.
    """
    for source in sources:
        yield from source.entries(options)


def roots_of(sources: Iterable[Source], options: ReadOptions) -> ImageRoots:
    """The folders that the images of all these sources are read from."""
    images = [source for source in sources if isinstance(source, ImageSource)]
    folders = [normalize(item.path) if isinstance(item, ClassFolder) else folder_of(item.path) for item in images]
    return ImageRoots(options.image_root, *folders)


def order_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their ids: sorted, as numbers if all of them are."""
    distinct = sorted(set(names))
    return tuple(sorted(distinct, key=int)) if all(_INTEGER.fullmatch(name) for name in distinct) else tuple(distinct)


def split_of(filename: str, eval_fraction: float) -> str:
    """The split of an image: the SHA-256 of its relative path decides, so that adding images moves none."""
    digest = hashlib.sha256(os.fsencode(filename)).digest()
    return manifest.EVAL if int.from_bytes(digest[:8]) / 2**64 < eval_fraction else manifest.TRAIN


def _expand_part(part: str) -> Iterator[Source]:
    matches = storage.glob(part)
    if not matches and (other := storage.other_form(part)):
        matches = [other]
    if not matches:
        kind = next((kind.kind for kind in KINDS if kind.suffixes and part.lower().endswith(kind.suffixes)), None)
        problem = f"The {kind} does not exist" if kind else "The metadata names files that do not exist"
        raise FlagError(problem, received=part, expected=_expected())
    for path in matches:
        yield _recognize(path)


def _recognize(path: str) -> Source:
    candidate = Candidate(path)
    for kind in KINDS:
        if source := kind.match(candidate):
            return source
    raise FlagError(
        "The folder has no class sub-folders",
        received=path,
        expected=_expected(),
        hint="If this is the folder of one class, give the folder that holds all of them.",
    )


def _expected() -> str:
    return f"{_either(KINDS)}, or several, separated by commas"


def _either(kinds: Iterable[type[Source]]) -> str:
    *first, last = [kind.description for kind in kinds]
    return f"{', '.join(first)} or {last}" if first else last
