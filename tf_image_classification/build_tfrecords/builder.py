"""The build from metadata to a finished data set, in the order in which it happens."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import existing_tfrecords, local, quality, report, statistics
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.image_splits import ImageSplits
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES
from tf_image_classification.data import manifest, sources
from tf_image_classification.data.fingerprint import fingerprint as fingerprint_of
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Split, Task
from tf_image_classification.data.sources import AS_GIVEN, ImageSource, ReadOptions, Source
from tf_image_classification.data.tasks import label_feature
from tf_image_classification.errors import DataError, FlagError, UserError

CHECK_FILE = "check.json"  # of a check: what manifest.json would say of the images

_FREE_SPACE = "Free some space and build again."

_log = logging.getLogger(__name__)


def build(
    train_metadata: str,
    output_dir: str,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    eval_fraction: float = 0.2,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int | None = None,
    workers: int | None = None,
    fingerprint: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Builds a data set of a training and an evaluation split. Equal inputs give equal shards, whatever the number of
    workers.

    TFRecords given as metadata are checked and listed, not copied.

    Args:
        train_metadata: see sources.expand.
        output_dir: folder or gs:// folder; appears, or replaces an older data set, when everything is written.
        eval_metadata: None holds out `eval_fraction` of the training images, or takes the evaluation split of a built
            data set.
        labels_file: class names by id; None takes the sorted names of the training images.
        options: how the metadata is read.
        allow_missing_classes: accept classes without a training example.
        max_duplicates_across_splits: most evaluation images that may be near duplicates of training images; None for
            any number.
        workers: processes; None takes one per core.
        fingerprint: of the sources; '' computes it.
        shard_bytes: a shard holds this much to twice that.

    Raises:
        FlagError: the metadata names nothing, or the output cannot be written there.
        DataError: the images, labels or TFRecords cannot be used.
        UserError: the disk is full, a worker process died, and the like.
    """
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    labels = manifest.read_labels(labels_file, numbered=True) if labels_file else None
    work = _Build(given, options, eval_fraction, workers or local.cores(), shard_bytes, max_duplicates_across_splits)
    work.check_output(output_dir, manifest.FILE_NAME)
    if not fingerprint:
        fingerprint = fingerprint_of(
            train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
        )
    return work.write(output_dir, labels, None, fingerprint)


def check(
    train_metadata: str,
    output_dir: str | None = None,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    eval_fraction: float = 0.2,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int | None = None,
    workers: int | None = None,
) -> Manifest:
    """Does all that `build` does, except for writing shards and a manifest.

    Args:
        output_dir: folder or gs:// folder for statistics.html, rejected.csv and check.json; it may replace that of an
            earlier check, never a data set. None writes nothing.
        train_metadata, eval_metadata, labels_file, eval_fraction, options, allow_missing_classes,
            max_duplicates_across_splits, workers: as for `build`.

    Returns:
        What the manifest would be, with one nameless shard of each split that is built from images.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    labels = manifest.read_labels(labels_file, numbered=True) if labels_file else None
    work = _Build(given, options, eval_fraction, workers or local.cores(), SHARD_BYTES, max_duplicates_across_splits)
    if output_dir is not None:
        work.check_output(output_dir, CHECK_FILE)
    fingerprint = fingerprint_of(
        train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
    )
    return work.check(output_dir, labels, fingerprint)


def build_eval(
    eval_metadata: str,
    output_dir: str,
    tasks: Sequence[Task],
    *,
    options: ReadOptions = AS_GIVEN,
    workers: int | None = None,
    fingerprint: str = "",
) -> Manifest:
    """Builds an evaluation split alone, for a model that exists.

    Args:
        tasks: the model's; images of classes that they do not have are rejected.
        eval_metadata, output_dir, options, workers, fingerprint: as for `build`.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    work = _Build({EVAL: eval_metadata}, options, 1.0, workers or local.cores(), SHARD_BYTES)
    work.check_output(output_dir, manifest.FILE_NAME)
    fingerprint = fingerprint or fingerprint_of(eval_metadata, options=options)
    return work.write(output_dir, None, tuple(tasks), fingerprint)


@dataclass
class _Build:
    """One build: what was given, and what it collects for the statistics page."""

    given: dict[str, str]
    options: ReadOptions
    eval_fraction: float
    workers: int
    shard_bytes: int
    max_duplicates_across_splits: int | None = None
    pixels: statistics.Pixels = field(default_factory=statistics.Pixels)
    samples: statistics.Samples = field(default_factory=statistics.Samples)
    expanded: dict[str, list[Source]] = field(init=False)
    index: ImageIndex = field(init=False)
    duplicates: DuplicateIndex = field(init=False)

    def __post_init__(self) -> None:
        self.expanded = {split: sources.expand(metadata) for split, metadata in self.given.items()}
        if self.max_duplicates_across_splits is not None:
            quality.check_images_only(itertools.chain(*self.expanded.values()))

    def check_output(self, output_dir: str, marker: str) -> None:
        """Refuses to replace anything but a folder of the same kind, and to write into the data or over it."""
        given = list(itertools.chain(*self.expanded.values()))
        storage.check_replaceable(output_dir, marker, [source.path for source in given])
        for source in given:
            if _absolute(output_dir).startswith(_absolute(source.path)):
                raise FlagError(
                    "--output_dir is inside the data",
                    received=f"{output_dir} and {source.path}",
                    expected="folders apart from each other",
                )

    def write(
        self, output_dir: str, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None, fingerprint: str
    ) -> Manifest:
        """Builds into `output_dir`; `tasks` are given when a model's are to be used."""
        started = time.monotonic()
        with self._collecting(output_dir), storage.replacing_dir(output_dir, manifest.FILE_NAME) as folder:
            data = self._described(self._write_splits(folder, labels, tasks), fingerprint)
            self._check_duplicates(data)
            report.write(folder, data, self.index, self.duplicates, self.pixels, self.samples)
            data.write(folder)
        _log.info("%s, in %.1f s: %s", report.summary(data), time.monotonic() - started, output_dir)
        return replace(data, folder=output_dir)

    def check(self, output_dir: str | None, labels: tuple[str, ...] | None, fingerprint: str) -> Manifest:
        """Does the same without shards; `output_dir` is for the report, which a data set of too many duplicates gets
        too."""
        started = time.monotonic()
        with self._collecting(output_dir or "the report"):
            data = self._described(self._write_splits(None, labels, None), fingerprint)
            if output_dir is not None:
                with storage.replacing_dir(output_dir, CHECK_FILE) as folder:
                    report.write(folder, data, self.index, self.duplicates, self.pixels, self.samples)
                    storage.write_text(os.path.join(folder, CHECK_FILE), data.to_json(shards=False))
            for line in quality.remarks(data.quality) if data.quality else ():
                _log.info("%s", line)
            _log.info("Checked %s in %.1f s", report.summary(data, shards=False), time.monotonic() - started)
            self._check_duplicates(data)
        return data

    @contextlib.contextmanager
    def _collecting(self, output_dir: str) -> Iterator[None]:
        """Opens what images are collected in, on disk, and names the disk if it is full."""
        self.index, self.duplicates = ImageIndex(), DuplicateIndex()
        try:
            yield
        except UserError:  # also a bucket's refusal, which is an OSError too
            raise
        except (OSError, sqlite3.OperationalError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise UserError(
                "The data set cannot be written", received=f"{output_dir}: {problem}", hint=_FREE_SPACE
            ) from error
        finally:
            self.index.close()
            self.duplicates.close()

    def _described(self, data: Manifest, fingerprint: str) -> Manifest:
        """`data` with its origin and quality, and a line for what a training would suffer from."""
        found = None
        if _image_sources(self.expanded):
            found = quality.measure(self.duplicates, self.pixels, data.splits, data.tasks)
            for line in quality.warnings(found):
                _log.warning("%s", line)
        return replace(data, sources=self.given, fingerprint=fingerprint, versions=report.versions(), quality=found)

    def _check_duplicates(self, data: Manifest) -> None:
        if data.quality is not None:
            quality.check_across_splits(data.quality, self.max_duplicates_across_splits, self.duplicates)

    def _write_splits(
        self, folder: str | None, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None
    ) -> Manifest:
        """Checks all images and records, and writes the shards; `folder` None writes none."""
        index = self.index
        record_sources = existing_tfrecords.record_sources(self.expanded)
        contents = existing_tfrecords.check_files(record_sources, EVAL not in self.expanded, self.workers)
        files = [file for split in contents for file in contents[split]]

        image_sources = _image_sources(self.expanded)
        self._fill(index, image_sources)
        if tasks is None and TRAIN in image_sources:
            tasks = self._tasks_of_images(index, sources.task_names(image_sources[TRAIN]), labels)
        if files and tasks:
            tasks = existing_tfrecords.fit(files, tasks)
        elif files:
            tasks = existing_tfrecords.tasks_of(files, labels or existing_tfrecords.recorded_labels(record_sources))
        assert tasks is not None, "metadata names images or TFRecords"

        splits = {}
        if image_sources:
            tasks = _with_built_features(tasks, beside_tfrecords=bool(files))
            _check_columns(image_sources, tasks)
            index.reject_unknown(tasks)
            splits = self._write_images(folder, tasks, list(image_sources))
        splits |= {split: existing_tfrecords.as_split(contents[split], tasks) for split in contents}
        for label, thumbnail in existing_tfrecords.thumbnails(files, tasks):
            if self.samples.wants(label):
                self.samples.add(label, thumbnail)
        quality.check_several_classes(tasks)
        return Manifest(
            tasks=tasks,
            splits={split: splits[split] for split in (TRAIN, EVAL) if split in splits},
            rejected_reasons=index.reasons(TRAIN, EVAL),
            reencoded=self.pixels.reencoded,
        )

    def _fill(self, index: ImageIndex, image_sources: Mapping[str, list[ImageSource]]) -> None:
        for split, given in image_sources.items():
            eval_fraction = 1.0 if split == EVAL else 0.0 if EVAL in self.expanded else self.eval_fraction
            index.add(split, sources.read_entries(given, self.options), eval_fraction)
        if both := index.count_in_both():
            _log.warning(
                "%s images are in the training and in the evaluation metadata: the evaluation will be too good",
                f"{both:,}",
            )

    def _tasks_of_images(
        self, index: ImageIndex, names: Sequence[str], labels: tuple[str, ...] | None
    ) -> tuple[Task, ...]:
        """The tasks of the training metadata's images: their classes are those of a labels file, or the ones that
        occur."""
        if labels and len(names) > 1:
            raise DataError(
                "A labels file names the classes of one task", received=", ".join(names), expected="one label column"
            )
        # Held-out images are training metadata too: a class that has no others is an error, not unknown.
        splits = (TRAIN,) if EVAL in self.expanded else (TRAIN, EVAL)
        tasks = []
        for column, name in enumerate(names):
            occurring = {label for split in splits for label in index.class_counts(split, column)}
            tasks.append(Task(name, labels or sources.order_labels(occurring)))
        return tuple(tasks)

    def _write_images(self, folder: str | None, tasks: tuple[Task, ...], splits: list[str]) -> dict[str, Split]:
        held_out = EVAL not in self.expanded
        writer = ImageSplits(
            folder,
            self.index,
            tasks,
            [*splits, EVAL] if held_out else splits,
            self.eval_fraction if held_out else None,
            self.pixels,
            self.samples,
            self.duplicates,
        )
        return writer.write(self.workers, self.shard_bytes)


def _image_sources(expanded: Mapping[str, Sequence[Source]]) -> dict[str, list[ImageSource]]:
    """The splits whose metadata names images, with their sources."""
    found = {}
    for split, given in expanded.items():
        if of_images := [source for source in given if isinstance(source, ImageSource)]:
            found[split] = of_images
    return found


def _with_built_features(tasks: Sequence[Task], beside_tfrecords: bool) -> tuple[Task, ...]:
    """`tasks` with the feature names of shards that are built here."""
    built = tuple(replace(task, feature=label_feature(task.name, len(tasks))) for task in tasks)
    if beside_tfrecords and built != tuple(tasks):
        raise DataError(
            "One split is images, the other TFRecords with other features",
            received=", ".join(task.feature for task in tasks),
            expected=", ".join(task.feature for task in built),
            hint="Build TFRecords of both splits from images, or give TFRecords for both.",
        )
    return built


def _check_columns(image_sources: Mapping[str, list[ImageSource]], tasks: Sequence[Task]) -> None:
    """Checks that every split's label columns are the tasks, in their order."""
    expected = tuple(task.name for task in tasks)
    for split, given in image_sources.items():
        if (names := sources.task_names(given)) != expected:
            raise DataError(
                f"The {split} metadata has other label columns", received=", ".join(names), expected=", ".join(expected)
            )


def _absolute(folder: str) -> str:
    return storage.canonical(folder).rstrip("/") + "/"
