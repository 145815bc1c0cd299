"""The build from metadata to a finished data set, in the order in which it happens."""

from __future__ import annotations

import csv
import itertools
import logging
import os
import platform
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tf_image_classification import __version__, storage, versions
from tf_image_classification.build_tfrecords import (
    assigning,
    class_spellings,
    existing_tfrecords,
    local,
    missing_classes,
    record_tasks,
    statistics,
    unknown_classes,
)
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.image_splits import ImageSplits
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES
from tf_image_classification.data import class_names, manifest, sources
from tf_image_classification.data.fingerprint import fingerprint as fingerprint_of
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Split, Task
from tf_image_classification.data.sources import (
    AS_GIVEN,
    ClassFolder,
    ImageSource,
    ReadOptions,
    Source,
    folder_layout,
)
from tf_image_classification.data.tasks import label_feature
from tf_image_classification.errors import DataError, FlagError, UserError

REJECTED_FILE = "rejected.csv"

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
    expanded = {split: sources.expand(metadata) for split, metadata in given.items()}
    for found in expanded.values():
        sources.check_split_column(found, options)
    _check_output(output_dir, expanded)
    if not fingerprint:
        fingerprint = fingerprint_of(
            train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
        )
    work = _Build(given, expanded, options, eval_fraction, allow_missing_classes, workers or local.cores(), shard_bytes)
    return work.write(output_dir, labels, None, fingerprint)


def build_eval(
    eval_metadata: str,
    output_dir: str,
    tasks: Sequence[Task],
    *,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    workers: int | None = None,
    fingerprint: str = "",
) -> Manifest:
    """Builds an evaluation split alone, for a model that exists.

    Args:
        tasks: the model's. Classes of the data that they do not have get further ids: their images are evaluated too.
        allow_missing_classes: accept TFRecords that do not name their classes and have fewer than the model.
        eval_metadata, output_dir, options, workers, fingerprint: as for `build`.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    given = {EVAL: eval_metadata}
    expanded = {EVAL: sources.expand(eval_metadata)}
    sources.check_split_column(expanded[EVAL], options)
    _check_output(output_dir, expanded)
    fingerprint = fingerprint or fingerprint_of(eval_metadata, options=options)
    work = _Build(given, expanded, options, 1.0, allow_missing_classes, workers or local.cores(), SHARD_BYTES)
    return work.write(output_dir, None, tuple(tasks), fingerprint)


@dataclass
class _Build:
    """One build: what was given, and what it collects for the statistics page."""

    given: dict[str, str]
    expanded: dict[str, list[Source]]
    options: ReadOptions
    eval_fraction: float
    allow_missing_classes: bool
    workers: int
    shard_bytes: int
    pixels: statistics.Pixels = field(default_factory=statistics.Pixels)
    samples: statistics.Samples = field(default_factory=statistics.Samples)

    def write(
        self, output_dir: str, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None, fingerprint: str
    ) -> Manifest:
        """Builds into `output_dir`; `tasks` are given when a model's are to be used."""
        started = time.monotonic()
        index = ImageIndex()
        try:
            with storage.replacing_dir(output_dir, manifest.FILE_NAME) as folder:
                data = self._write_splits(folder, index, labels, tasks)
                data = replace(data, sources=self.given, fingerprint=fingerprint, versions=_versions())
                _write_rejected(folder, index)
                first_rejected = itertools.islice(index.rejected(), statistics.REJECTED_SHOWN)
                page = statistics.render(data, self.pixels, self.samples, first_rejected)
                storage.write_text(os.path.join(folder, statistics.FILE_NAME), page)
                data.write(folder)
        except UserError:  # also a bucket's refusal, which is an OSError too
            raise
        except (OSError, sqlite3.OperationalError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise UserError(
                "The data set cannot be written", received=f"{output_dir}: {problem}", hint=_FREE_SPACE
            ) from error
        finally:
            index.close()
        _log.info("%s in %.1f s: %s", _summary(data), time.monotonic() - started, output_dir)
        return replace(data, folder=output_dir)

    def _write_splits(
        self, folder: str, index: ImageIndex, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None
    ) -> Manifest:
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
            splits = self._write_images(folder, index, tasks, list(image_sources))
        splits |= {split: existing_tfrecords.as_split(contents[split], tasks) for split in contents}
        if TRAIN in contents:
            missing_classes.check_records(contents[TRAIN], tasks, splits, allowed=allow_missing)
        for label, thumbnail in existing_tfrecords.thumbnails(files, tasks):
            if self.samples.wants(label):
                self.samples.add(label, thumbnail)
        _check_several_classes(tasks, self.expanded)
        for task in tasks:
            class_names.announce_unseen(task.name, task.labels)
        return Manifest(
            tasks=tasks,
            splits={split: splits[split] for split in (TRAIN, EVAL) if split in splits},
            rejected_reasons=index.reasons(TRAIN, EVAL),
            reencoded=self.pixels.reencoded,
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
        self, folder: str, index: ImageIndex, tasks: tuple[Task, ...], splits: list[str]
    ) -> dict[str, Split]:
        held_out = EVAL not in self.expanded
        writer = ImageSplits(
            folder,
            index,
            tasks,
            [*splits, EVAL] if held_out else splits,
            self.eval_fraction if held_out else None,
            self.allow_missing_classes,
            self.pixels,
            self.samples,
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


def _check_several_classes(tasks: Sequence[Task], expanded: Mapping[str, Sequence[Source]]) -> None:
    folders = [source.path for given in expanded.values() for source in given if isinstance(source, ClassFolder)]
    for task in tasks:
        if len(task.labels) == 1:
            inner = next(filter(None, map(folder_layout.inner_folder, folders)), None)
            raise DataError(
                "The data set has a single class: there is nothing to learn",
                received=task.labels[0],
                expected="two or more",
                hint=f"If the classes are the sub-folders of {inner}, give this folder." if inner else "",
            )


def _check_output(output_dir: str, expanded: Mapping[str, list[Source]]) -> None:
    """Refuses to replace anything but a data set, and to write into the data or over it."""
    given = list(itertools.chain(*expanded.values()))
    storage.check_replaceable(output_dir, manifest.FILE_NAME, [source.path for source in given])
    for source in given:
        if _absolute(output_dir).startswith(_absolute(source.path)):
            raise FlagError(
                "--output_dir is inside the data",
                received=f"{output_dir} and {source.path}",
                expected="folders apart from each other",
            )


def _absolute(folder: str) -> str:
    return storage.as_prefix(storage.canonical(folder))


def _write_rejected(folder: str, index: ImageIndex) -> None:
    with open(os.path.join(folder, REJECTED_FILE), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "reason"])
        writer.writerows(index.rejected())


def _versions() -> dict[str, str]:
    own = {"tf-image-classification": __version__, "python": platform.python_version()}
    return own | versions.installed("pillow", "protobuf")


def _summary(data: Manifest) -> str:
    examples = " and ".join(f"{split.examples:,} {name}" for name, split in data.splits.items())
    shards = sum(len(split.shards) for split in data.splits.values())
    size = statistics.human_bytes(sum(statistics.split_bytes(split) for split in data.splits.values()))
    rejected = sum(split.rejected for split in data.splits.values())
    return (
        f"{examples} examples in {shards:,} shards ({size}), {rejected:,} images rejected, "
        f"{data.reencoded:,} re-encoded,"
    )
