"""One value for the current content of the data, by which caches of a pipeline and of a training notice a change."""

from __future__ import annotations

import array
import gzip
import hashlib
import io
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool

from tf_image_classification import storage
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import EVAL, TRAIN
from tf_image_classification.data.sources import AS_GIVEN, FingerprintItem, ReadOptions, listing
from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)

# Local files are read as long as that takes seconds: above one of these, their modification times count.
CONTENT_BYTES = 2 * 2**30
CONTENT_FILES = 100_000
_PER_TASK = 32  # files
_BLOCK = 4096  # files of which so much is in memory as their names take
_SMALL_BYTES = 2**16
_THREADS = 8  # a network file system takes a millisecond to open a file


def fingerprint(
    train_metadata: str,
    eval_metadata: str | None = None,
    *,
    labels_file: str | None = None,
    eval_fraction: float | None = None,
    options: ReadOptions = AS_GIVEN,
) -> str:
    """A SHA-256 over lists of images, the labels file, and relative names, sizes and versions of images and TFRecords.

    The version of a local file is the SHA-256 of its content, so that a copy has the fingerprint of the original; of
    more than `CONTENT_BYTES` or `CONTENT_FILES`, it is the modification time. The version of an object in a bucket is
    its generation or, on s3://, its ETag. The order of listings plays no part: the digests of the items are added up.

    Args:
        eval_fraction: part of the fingerprint only without `eval_metadata`, when it decides what is held out.

    Returns:
        64 hexadecimal digits.

    Raises:
        FlagError: the metadata names nothing, or the labels file does not exist.
    """
    return listed(
        train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
    ).digest()


class CheckedFiles:
    """The local files that a build has read and hashed, so that their fingerprint needs no second look.

    Attributes:
        total: the sum of their digests.
    """

    def __init__(self) -> None:
        self.total = 0
        self._names = array.array("q")  # hashes: a hundred thousand strings would take megabytes

    def __len__(self) -> int:
        return len(self._names)

    def add(self, split: str, path: str, filename: str, digest: int) -> None:
        """Adds a file.

        Args:
            split: `train` or `eval`: the metadata that names it.
            path: absolute.
            filename: in the fingerprint.
            digest: from `file_digest`.
        """
        self.total += digest
        self._names.append(hash((split, path, filename)))

    def left_over(self, files: Iterable[tuple[str, listing.File]]) -> Iterator[tuple[str, listing.File]]:
        """Those of the files, by their splits, that are not among these. One that is named twice is so once."""
        known = set(self._names)
        for split, file in files:
            name = hash((split, storage.canonical(file.path), file.filename))
            if name in known:
                known.remove(name)
            else:
                yield split, file


class Listed:
    """What a fingerprint is made of, before the contents of files are read; see `listed`."""

    def __init__(self, items: Iterable[tuple[str, FingerprintItem]]) -> None:
        """Takes pairs of a split, '' for none, and an item."""
        self.by_content = True
        self._total = self._num_objects = self._num_local = local_bytes = 0
        self._kept = io.BytesIO()  # compressed, as the names in a folder have much in common
        block: list[tuple[object, ...]] = []
        with gzip.open(self._kept, "wb", compresslevel=1) as to_read:  # the local files, until they become too many
            for split, item in items:
                is_object = isinstance(item, listing.File) and storage.is_remote(item.path)
                if isinstance(item, listing.File) and item.size >= 0 and not is_object:
                    self._num_local, local_bytes = self._num_local + 1, local_bytes + item.size
                    self.by_content = self._num_local <= CONTENT_FILES and local_bytes <= CONTENT_BYTES
                    if self.by_content:
                        block.append((split, *item[:4]))
                        if len(block) == _BLOCK:
                            to_read.write(json.dumps(block).encode() + b"\n")
                            block.clear()
                        continue
                self._total += _item_digest(split, item)
                self._num_objects += is_object
            to_read.write(json.dumps(block).encode() + b"\n")

    def digest(self, checked: CheckedFiles | None = None) -> str:
        """The fingerprint.

        Args:
            checked: files that need not be read, all of them listed; where modification times count, none.
        """
        total = self._total
        block_digest = _contents_digest if self.by_content else _times_digest
        if checked:
            total += checked.total
        if not checked or len(checked) < self._num_local:
            files = itertools.chain.from_iterable(self._blocks())
            remaining = checked.left_over(files) if checked else files
            while block := list(itertools.islice(remaining, _BLOCK)):
                total += block_digest(block)
        result = f"{total % 2**256:064x}"
        version = "content" if self.by_content else "size and modification time"
        used = {
            f"{self._num_local:,} files by {version}": self._num_local,
            f"{self._num_objects:,} objects by version": self._num_objects,
        }
        shown = " and ".join(text for text, count in used.items() if count) or "no files"
        _log.info("Data fingerprint: %s, of %s", result[:12], shown)
        return result

    def _blocks(self) -> Iterator[list[tuple[str, listing.File]]]:
        """The files that were kept, by their splits, some thousand at a time."""
        self._kept.seek(0)
        with gzip.open(self._kept) as blocks:
            for block in map(json.loads, blocks):
                yield [(split, listing.File(*file)) for split, *file in block]


def listed(
    train_metadata: str,
    eval_metadata: str | None = None,
    *,
    labels_file: str | None = None,
    eval_fraction: float | None = None,
    options: ReadOptions = AS_GIVEN,
) -> Listed:
    """The first half of `fingerprint`, with its arguments and errors: all but the contents of files."""
    return Listed(_items(train_metadata, eval_metadata, labels_file, eval_fraction, options))


def file_digest(split: str, filename: str, content: bytes) -> int:
    """What a file adds to a fingerprint.

    Args:
        split: `train` or `eval`: the metadata that names it.
        filename: in the fingerprint.
    """
    return _item_digest(split, listing.File("", filename, len(content), listing.digest(content)))


def _contents_digest(block: Sequence[tuple[str, listing.File]]) -> int:
    """The sum of the digests of files whose versions are those of their contents."""
    digests = content_digests(file.path for _, file in block)
    return sum(
        _item_digest(split, file._replace(version=digest or file.version))
        for (split, file), digest in zip(block, digests, strict=True)
    )


def _times_digest(block: Sequence[tuple[str, listing.File]]) -> int:
    """The sum of the digests of files whose versions are their modification times."""
    return sum(itertools.starmap(_item_digest, block))


def content_digests(paths: Iterable[str]) -> Iterator[str | None]:
    """The SHA-256 of the contents of local files, in order, as 64 hexadecimal digits each.

    It is None for an object in a bucket, and for a file that cannot be read.
    """
    with ThreadPool(_THREADS) as pool:
        yield from pool.imap(_content_digest, paths, chunksize=_PER_TASK)


def _content_digest(path: str) -> str | None:
    if storage.is_remote(path):
        return None
    try:
        descriptor, size = storage.open_descriptor(path)
        with open(descriptor, "rb", buffering=0) as file:
            # hashlib.file_digest takes a buffer of 256 KiB, whose zeros take longer than a small file.
            if size <= _SMALL_BYTES:
                return listing.digest(storage.read_descriptor(descriptor, size))
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a pipe or device, which could be read for ever and has no size
        return _digest_of_nothing(path)


def _digest_of_nothing(path: str) -> str | None:
    """The SHA-256 of a file without content, which need not be opened for it; None for others."""
    try:
        return None if storage.stat(path).size else listing.digest(b"")
    except (OSError, ValueError):
        return None


def _item_digest(split: str, item: FingerprintItem) -> int:
    values = ("image", item.filename, item.size, item.version) if isinstance(item, listing.File) else item
    content = (split, *values) if split else values
    return int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest())


def _items(
    train_metadata: str,
    eval_metadata: str | None,
    labels_file: str | None,
    eval_fraction: float | None,
    options: ReadOptions,
) -> Iterator[tuple[str, FingerprintItem]]:
    """Pairs of a split, '' for none, and an item."""
    if not eval_metadata:
        yield "", ("eval_fraction", eval_fraction)
    for name in ("split_column", "image_feature", "label_feature", "max_image_pixels", "max_image_mib", "max_side"):
        if (value := getattr(options, name)) != getattr(AS_GIVEN, name):
            yield "", (name, value)
    if labels_file:
        yield "", ("labels", _labels_digest(labels_file))
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    for split, metadata in given.items():
        found = sources.expand(metadata)
        sources.check_split_column(found, options)
        for source in found:
            for item in source.fingerprint_items(options):
                yield split, item


def _labels_digest(labels_file: str) -> str:
    try:
        return listing.digest(storage.read_bytes(labels_file, storage.MAX_TEXT_BYTES))
    except (FileNotFoundError, IsADirectoryError):
        raise FlagError(
            "--labels_file does not exist", received=labels_file, expected="a text file with one class name per line"
        ) from None
