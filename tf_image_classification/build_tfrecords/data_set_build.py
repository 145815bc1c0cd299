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
from tf_image_classification.build_tfrecords import (
    assigning,
    class_spellings,
    existing_tfrecords,
    large_images,
    missing_classes,
    quality,
    record_tasks,
    report,
    statistics,
    unknown_classes,
)
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.build_tfrecords.engines import Engine, LocalEngine
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.image_splits import ImageSplits
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex
from tf_image_classification.data import class_names, manifest, sources
from tf_image_classification.data.fingerprint import CheckedFiles, Listed
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Split, Task
from tf_image_classification.data.sources import ImageRoots, ImageSource, ReadOptions, Source
from tf_image_classification.data.tasks import label_feature
from tf_image_classification.errors import DataError, FlagError, UserError, abridged

CHECK_FILE = "check.json"  # of a check: what manifest.json would say of the images

_FREE_SPACE = "Free some space and build again."

_log = logging.getLogger(__name__)


@dataclass
class DataSetBuild:
    """One build: what was given, and what it collects for the statistics page."""

    given: dict[str, str]
    options: ReadOptions
    eval_fraction: float
    allow_missing_classes: bool
    workers: int
    shard_bytes: int
    max_duplicates_across_splits: int | None = None
    runner: BeamRunner | None = None
    checked_files: CheckedFiles = field(default_factory=CheckedFiles)
    pixels: statistics.Pixels = field(default_factory=statistics.Pixels)
    samples: statistics.Samples = field(default_factory=statistics.Samples)
    expanded: dict[str, list[Source]] = field(init=False)
    index: ImageIndex = field(init=False)
    duplicates: DuplicateIndex = field(init=False)
    roots: ImageRoots = field(init=False)
    fingerprint: str | Listed = field(init=False)

    def __post_init__(self) -> None:
        self.expanded = {split: sources.expand(metadata) for split, metadata in self.given.items()}
        for found in self.expanded.values():
            sources.check_split_column(found, self.options)
        self.roots = sources.roots_of(itertools.chain(*self.expanded.values()), self.options)
        existing_tfrecords.check_max_side(self.options, itertools.chain(*self.expanded.values()))
        if self.max_duplicates_across_splits is not None:
            quality.check_images_only(itertools.chain(*self.expanded.values()))
        if self.runner:
            self.runner.check_sources(itertools.chain(*self.expanded.values()), self.options)

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
        self, output_dir: str, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None, fingerprint: str | Listed
    ) -> Manifest:
        """Builds into `output_dir`; `tasks` are given when a model's are to be used. The workers hash the contents of a
        fingerprint that is only listed."""
        self.fingerprint = fingerprint
        started = time.monotonic()
        # Other machines may lack a mount of the bucket that this one has.
        target = storage.canonical(output_dir) if self.runner else output_dir
        with (
            self._collecting(output_dir),
            self._engine(target) as engine,
            storage.replacing_dir(target, manifest.FILE_NAME, engine.elsewhere) as folder,
        ):
            data = self._described(self._write_splits(folder, engine, labels, tasks))
            self._check_duplicates(data)
            report.write(folder, data, self.index, self.duplicates, self.pixels, self.samples, self.roots)
            data.write(folder)
            self._announce_rejected()
        _log.info("%s, in %.1f s: %s", report.summary(data), time.monotonic() - started, output_dir)
        self._advise()
        return replace(data, folder=output_dir)

    def check(self, output_dir: str | None, labels: tuple[str, ...] | None, fingerprint: Listed) -> Manifest:
        """Does the same without shards; `output_dir` is for the report, which a data set of too many duplicates gets
        too."""
        self.fingerprint = fingerprint
        started = time.monotonic()
        with self._collecting(output_dir or "the report"):
            engine = LocalEngine(self.workers, self.shard_bytes)
            data = self._described(self._write_splits(None, engine, labels, None))
            if output_dir is not None:
                with storage.replacing_dir(output_dir, CHECK_FILE) as folder:
                    report.write(folder, data, self.index, self.duplicates, self.pixels, self.samples, self.roots)
                    storage.write_text(os.path.join(folder, CHECK_FILE), data.to_json(shards=False))
            self._announce_rejected()
            for line in quality.remarks(data.quality) if data.quality else ():
                _log.info("%s", line)
            _log.info("Checked %s in %.1f s", report.summary(data, shards=False), time.monotonic() - started)
            self._advise()
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

    def _engine(self, output_dir: str) -> contextlib.AbstractContextManager[Engine]:
        if self.runner is None:
            return contextlib.nullcontext(LocalEngine(self.workers, self.shard_bytes))
        from tf_image_classification.build_tfrecords import beam_engine

        return beam_engine.running(self.runner, output_dir, self.shard_bytes)

    def _described(self, data: Manifest) -> Manifest:
        """`data` with its origin and quality, and a line for what a training would suffer from."""
        known = self.fingerprint
        fingerprint = known if isinstance(known, str) else known.digest(self.checked_files)
        found = None
        if _image_sources(self.expanded):
            found = quality.measure(self.duplicates, self.pixels, data.splits, data.tasks)
            for line in quality.warnings(found):
                _log.warning("%s", line)
        return replace(data, sources=self.given, fingerprint=fingerprint, versions=report.versions(), quality=found)

    def _announce_rejected(self) -> None:
        if reasons := report.reasons(self.index, TRAIN, EVAL):
            _log.warning("Rejected: %s", reasons)

    def _advise(self) -> None:
        advice = self.pixels.large.advice
        if advice and not self.options.max_side:
            _log.info("%s", advice)

    def _check_duplicates(self, data: Manifest) -> None:
        if data.quality is not None:
            quality.check_across_splits(data.quality, self.max_duplicates_across_splits, self.duplicates)

    def _write_splits(
        self, folder: str | None, engine: Engine, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None
    ) -> Manifest:
        """Checks all images and records, and writes the shards; `folder` None writes none."""
        index = self.index
        record_sources = existing_tfrecords.record_sources(self.expanded)
        contents = existing_tfrecords.check_files(record_sources, EVAL not in self.expanded, self.options, self.workers)
        files = [file for split in contents for file in contents[split]]
        recorded = record_tasks.recorded_tasks(record_sources)

        image_sources = _image_sources(self.expanded)
        assigning.fill(index, image_sources, list(self.expanded), self.options, self.eval_fraction)
        allow_missing = self.allow_missing_classes
        if tasks and files:
            tasks = record_tasks.of_model(files, tasks, recorded, allow_missing=allow_missing)
        elif tasks:
            tasks = unknown_classes.appended(index, tasks)
        elif TRAIN in image_sources:
            tasks = self._tasks_of_images(index, sources.task_names(image_sources[TRAIN], self.options), labels)
            if files:
                tasks = record_tasks.of_training(files, tasks, recorded, allow_missing=allow_missing)
        else:
            tasks = record_tasks.tasks_of(files, labels, recorded, allow_missing=allow_missing)
        class_spellings.warn(tasks)

        splits = {}
        if image_sources:
            tasks = _with_built_features(tasks, beside_tfrecords=bool(files))
            self._check_columns(image_sources, tasks)
            unknown_classes.reject(index, tasks)
            splits = self._write_images(folder, engine, tasks, list(image_sources))
        splits |= {split: existing_tfrecords.as_split(contents[split], tasks) for split in contents}
        if TRAIN in contents:
            missing_classes.check_records(contents[TRAIN], tasks, splits, allowed=allow_missing)
        for label, thumbnail in existing_tfrecords.thumbnails(files, tasks):
            if self.samples.wants(label):
                self.samples.add(label, thumbnail)
        quality.check_several_classes(tasks, itertools.chain(*self.expanded.values()))
        for task in tasks:
            class_names.announce_unseen(task.name, task.labels)
        built = [self.pixels.large.done(self.options.max_side)] if image_sources and self.options.max_side else []
        return Manifest(
            tasks=tasks,
            splits={split: splits[split] for split in (TRAIN, EVAL) if split in splits},
            rejected_reasons=index.reasons(TRAIN, EVAL),
            reencoded=self.pixels.reencoded,
            downscaled=large_images.together([*built, *existing_tfrecords.downscaled(record_sources)]),
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
            if len(occurring) > class_names.MAX_CLASSES and not labels:
                raise DataError(
                    f"The images have too many classes of {name}",
                    received=f"{len(occurring):,}, such as {abridged(sorted(occurring))}",
                    expected=f"at most {class_names.MAX_CLASSES:,}",
                    hint="Is the column of labels one of names or numbers that differ for each image? A --labels_file "
                    "takes the images of its classes alone.",
                )
            tasks.append(Task(name, labels or sources.order_labels(occurring)))
        if len(tasks) > 1:
            found = [f"{task.name} ({len(task.labels):,} classes)" for task in tasks]
            _log.info("Each label column is a task: %s", ", ".join(found))
        return tuple(tasks)

    def _check_columns(self, image_sources: Mapping[str, list[ImageSource]], tasks: Sequence[Task]) -> None:
        """Checks that every split's label columns are the tasks, in their order."""
        expected = tuple(task.name for task in tasks)
        for split, given in image_sources.items():
            if (names := sources.task_names(given, self.options)) != expected:
                raise DataError(
                    f"The {split} metadata has other label columns",
                    received=", ".join(names),
                    expected=", ".join(expected),
                )

    def _write_images(
        self, folder: str | None, engine: Engine, tasks: tuple[Task, ...], splits: list[str]
    ) -> dict[str, Split]:
        held_out = EVAL not in self.expanded
        writer = ImageSplits(
            folder,
            self.index,
            tasks,
            [*splits, EVAL] if held_out else splits,
            self.eval_fraction if held_out else None,
            self.allow_missing_classes,
            self.pixels,
            self.samples,
            self.duplicates,
            self.roots,
            self.options.limits,
            self.options.max_side,
            self._fingerprinted(),
            self.checked_files,
        )
        return writer.write(engine)

    def _fingerprinted(self) -> dict[str, str]:
        """See ImageSplits: of a single metadata, whichever it is, the fingerprint is that of training metadata."""
        if isinstance(self.fingerprint, str) or not self.fingerprint.by_content:
            return {}
        return {TRAIN: TRAIN, EVAL: EVAL if len(self.given) > 1 else TRAIN}


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


def _absolute(folder: str) -> str:
    return storage.as_prefix(storage.canonical(folder))
