"""One value for the current content of the data, by which caches of a pipeline and of a training notice a change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from tf_image_classification import storage
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import EVAL, TRAIN
from tf_image_classification.data.sources import AS_GIVEN, FingerprintItem, ReadOptions, listing
from tf_image_classification.errors import FlagError


def fingerprint(
    train_metadata: str,
    eval_metadata: str | None = None,
    *,
    labels_file: str | None = None,
    eval_fraction: float | None = None,
    options: ReadOptions = AS_GIVEN,
) -> str:
    """A SHA-256 over CSVs, relative names, sizes and versions of images and TFRecords, and the labels file.

    No image is read. The order of listings plays no part: the digests of the items are added up.

    Args:
        eval_fraction: part of the fingerprint only without `eval_metadata`, when it decides what is held out.

    Returns:
        64 hexadecimal digits.

    Raises:
        FlagError: the metadata names nothing, or the labels file does not exist.
    """
    total = 0
    for item in _items(train_metadata, eval_metadata, labels_file, eval_fraction, options):
        total += int.from_bytes(hashlib.sha256(json.dumps(item).encode()).digest())
    return f"{total % 2**256:064x}"


def _items(
    train_metadata: str,
    eval_metadata: str | None,
    labels_file: str | None,
    eval_fraction: float | None,
    options: ReadOptions,
) -> Iterator[FingerprintItem]:
    if not eval_metadata:
        yield "eval_fraction", eval_fraction
    for name in ("split_column", "image_feature", "label_feature", "max_image_pixels", "max_image_mib"):
        if (value := getattr(options, name)) != getattr(AS_GIVEN, name):
            yield name, value
    if labels_file:
        yield "labels", _labels_digest(labels_file)
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    for split, metadata in given.items():
        found = sources.expand(metadata)
        sources.check_split_column(found, options)
        for source in found:
            for item in source.fingerprint_items(options):
                yield split, *item


def _labels_digest(labels_file: str) -> str:
    try:
        return listing.digest(storage.read_bytes(labels_file))
    except (FileNotFoundError, IsADirectoryError):
        raise FlagError(
            "--labels_file does not exist", received=labels_file, expected="a text file with one class name per line"
        ) from None
