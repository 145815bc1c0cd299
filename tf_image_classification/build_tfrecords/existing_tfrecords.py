"""TFRecords given as metadata: their files checked, and the split that they are together."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tf_image_classification import progress, storage
from tf_image_classification.build_tfrecords import check_tfrecords, local
from tf_image_classification.build_tfrecords.worker_messages import Contents, RecordsJob
from tf_image_classification.data import tfrecord
from tf_image_classification.data.manifest import EVAL, IMAGE_FEATURES, TRAIN, Downscaled, Shard, Split, Task
from tf_image_classification.data.sources import ReadOptions, RecordSource, Source
from tf_image_classification.data.stored_images import OTHER, StoredCounts
from tf_image_classification.errors import DataError, FlagError, abridged
from tf_image_classification.image_limits import DEFAULT, HIGHEST

_FEW_BYTES = 10 * 2**20  # below, starting processes takes longer than the work
_NUM_THUMBNAILS = 8  # per file

_log = logging.getLogger(__name__)


def record_sources(expanded: Mapping[str, Sequence[Source]]) -> dict[str, list[RecordSource]]:
    """The splits whose metadata names TFRecords, with their sources.

    Args:
        expanded: split -> sources, of images too.
    """
    found = {}
    for split, sources in expanded.items():
        if of_records := [source for source in sources if isinstance(source, RecordSource)]:
            found[split] = of_records
    return found


def downscaled(sources: Mapping[str, Sequence[RecordSource]]) -> list[Downscaled]:
    """What --max_side did to the images of each data set that was built with it, whichever of its splits are used.

    Args:
        sources: split -> sources.
    """
    by_path = {source.path: source for source in itertools.chain(*sources.values())}  # one may be of both splits
    return [found for source in by_path.values() if (found := source.downscaled())]


def check_features(options: ReadOptions, sources: Iterable[Source]) -> None:
    """Refuses names of features where no TFRecords are that they could be of.

    Raises:
        FlagError: there are none.
    """
    given = [name for name in ("image_feature", "label_feature") if getattr(options, name)]
    records = [source for source in sources if isinstance(source, RecordSource)]
    if given and all(source.has_splits for source in records):
        raise FlagError(
            f"--{given[0]} has no effect",
            received=f"{getattr(options, given[0])}, and metadata of "
            + ("a built data set, which records its features" if records else "images"),
            expected="TFRecord files whose features have other names than slim's",
        )


def check_max_side(options: ReadOptions, sources: Iterable[Source]) -> None:
    """Refuses --max_side where TFRecords are, which are not written anew.

    Raises:
        FlagError: there are some.
    """
    records = [source for source in sources if isinstance(source, RecordSource)]
    if options.max_side and records:
        raise FlagError(
            "--max_side does not reduce images in TFRecords",
            received=records[0].path,
            expected="images in folders or lists",
            hint="Give the flag where the TFRecords are built from images.",
        )


def check_files(
    sources: Mapping[str, Sequence[RecordSource]], held_out: bool, options: ReadOptions, workers: int
) -> dict[str, list[Contents]]:
    """Checks TFRecord files.

    Args:
        sources: split -> sources.
        held_out: no metadata names the evaluation split: the training sources must have one.
        options: name the features of files that have no manifest.
        workers: processes.

    Returns:
        Split -> what its files hold.

    Raises:
        DataError: a file cannot be used, or TFRecords would have to be split.
        FlagError: the options name features, but there is no file that they could be of.
    """
    check_features(options, itertools.chain(*sources.values()))
    jobs = {split: _jobs(sources[split], split, options) for split in sources}
    if TRAIN in sources and held_out:
        if not all(source.has_splits for source in sources[TRAIN]):
            raise DataError(
                "TFRecords cannot be split for training and evaluation",
                received=f"--train_metadata {sources[TRAIN][0].path} without --eval_metadata",
                hint="Give the TFRecords to evaluate on as --eval_metadata.",
            )
        jobs[EVAL] = _jobs(sources[TRAIN], EVAL, options)
    contents: dict[str, list[Contents]] = {split: [] for split in jobs}
    in_order = [job for split in jobs for job in jobs[split]]
    if not in_order:
        return contents
    few = sum(_size(job.path) for job in in_order) < _FEW_BYTES
    workers = 1 if few else min(workers, len(in_order))
    with progress.track("Checking TFRecords", len(in_order), "files") as advance:
        for job, file in local.run_jobs(check_tfrecords.check_file, in_order, workers):
            if job.crc32c not in (None, file.crc32c):
                raise DataError(
                    "A shard has changed since it was built",
                    received=f"{job.path} with CRC-32C {file.crc32c}",
                    expected=f"{job.crc32c}, as its manifest records",
                    hint="Build the data set again.",
                )
            contents[job.split].append(file)
            advance(1)
    if not_as_shown := sum(file.stored.formats.get(OTHER, 0) for split in contents for file in contents[split]):
        _log.warning(
            "%s images of the TFRecords may train with other pixels than a viewer shows: they are CMYK, have 16 bits, "
            "a palette or transparency, or are turned by EXIF. Of images as files, the build re-encodes such",
            f"{not_as_shown:,}",
        )
    _announce_in_both(contents)
    return contents


def as_split(contents: Sequence[Contents], tasks: Sequence[Task]) -> Split:
    """The split that consists of TFRecord files.

    Raises:
        DataError: the files differ in compression or in where the image is, unpack to too much, or hold no examples.
    """
    compressions = {file.compression: file.path for file in contents}
    if len(compressions) > 1:
        raise DataError(
            "Some of the TFRecords are compressed, some are not",
            received=", ".join(compressions.values()),
            expected="all or none",
        )
    total = sum(file.bytes for file in contents)
    tfrecord.check_unpacked(sum(file.record_bytes for file in contents), total, abridged([*compressions.values()]))
    counts: dict[str, Counter[str]] = {task.name: Counter() for task in tasks}
    images = StoredCounts()
    for file in contents:
        images.add_all(file.stored)
        for task in tasks:
            if file.examples and task.labels:
                for value, number in file.labels[task.feature].counts.items():
                    counts[task.name][task.labels[int(value)]] += number
    shards = tuple(Shard(file.path, file.examples, file.bytes, file.crc32c) for file in contents)
    examples = sum(shard.examples for shard in shards)
    if not examples:
        raise DataError(
            "The TFRecords hold no examples",
            received=", ".join(shard.path for shard in shards[:5]),
            expected="at least one example",
        )
    class_counts = {}
    for task in tasks:
        of_task = counts[task.name]
        class_counts[task.name] = {label: of_task[label] for label in task.labels}
    schema, image_feature = _image_feature(contents)
    compression, stored = next(iter(compressions)), images.stored()
    return Split(shards, schema, image_feature, compression, examples, class_counts=class_counts, stored=stored)


def thumbnails(contents: Sequence[Contents], tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """Class names of one task and thumbnails, of the first records of each file."""
    by_feature = {task.feature: task for task in tasks}
    for file in contents:
        for feature, value, thumbnail in file.thumbnails:
            if labels := by_feature[feature].labels:
                yield labels[int(value)], thumbnail


def _announce_in_both(contents: Mapping[str, Sequence[Contents]]) -> None:
    """Warns of files of the training split whose bytes are also in the evaluation split."""
    trained = {(file.bytes, file.crc32c) for file in contents.get(TRAIN, ()) if file.examples}
    if both := [file for file in contents.get(EVAL, ()) if (file.bytes, file.crc32c) in trained]:
        _log.warning(
            "%s of the examples that are evaluated are in TFRecords that are also trained on: the evaluation will be "
            "too good: %s",
            f"{sum(file.examples for file in both):,}",
            abridged([file.path for file in both]),
        )


def _jobs(sources: Sequence[RecordSource], split: str, options: ReadOptions) -> list[RecordsJob]:
    labels = (options.label_feature,) if options.label_feature else ()
    return [
        RecordsJob(
            split,
            file.path,
            file.crc32c,
            _NUM_THUMBNAILS,
            file.image_feature or options.image_feature,
            file.label_features or labels,
            # A data set's own build may have had higher limits, which its training should not have to repeat.
            HIGHEST if file.crc32c and options.limits == DEFAULT else options.limits,
        )
        for source in sources
        for file in source.files(split)
    ]


def _image_feature(contents: Sequence[Contents]) -> tuple[str, str]:
    """Schema of files with examples, and the feature that holds their images as Split.image_feature names it."""
    images = {file.image_feature: file for file in contents if file.examples}
    if len(images) > 1:
        raise DataError(
            "The TFRecords hold their images in different features",
            received="; ".join(f"{file.path}: {feature}" for feature, file in images.items()),
            expected="the same feature in all files",
        )
    ((feature, file),) = images.items()
    return file.schema, "" if feature == IMAGE_FEATURES[file.schema] else feature


def _size(path: str) -> int:
    try:
        return storage.stat(path).size
    except FileNotFoundError:
        raise DataError("A shard is missing", received=path, hint="Build the data set again.") from None
