"""The build from metadata to a finished data set, in the order in which it happens."""

from __future__ import annotations

import csv
import itertools
import logging
import os
import platform
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tf_image_classification import __version__, progress, storage, versions
from tf_image_classification.build_tfrecords import existing_tfrecords, local, records, statistics
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES, ShardWriter
from tf_image_classification.build_tfrecords.worker import Job
from tf_image_classification.data import manifest, sources
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Split, Task
from tf_image_classification.data.sources import TFRECORD, Source
from tf_image_classification.errors import DataError, FlagError, UserError

REJECTED_FILE = "rejected.csv"

_CHUNK = 32  # images per job
_FEW_IMAGES = 200  # below, starting processes takes longer than the work
_REASONS_TOLD = 5
_PARTS = ".parts"
_FREE_SPACE = "Free some space and build again."

_log = logging.getLogger(__name__)


def build(
    train_metadata: str,
    output_dir: str,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    image_root: str | None = None,
    eval_fraction: float = 0.2,
    workers: int | None = None,
    fingerprint: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Builds a data set of a training and an evaluation side. Equal inputs give equal shards, whatever the number of
    workers.

    TFRecords given as metadata are checked and listed, not copied.

    Args:
        train_metadata: see sources.expand.
        output_dir: folder or gs:// folder; appears, or replaces the data set that is there, when everything is written.
        eval_metadata: None holds out `eval_fraction` of the training images, or takes the evaluation side of a built
            data set.
        labels_file: class names by id; None takes the sorted names of the training images.
        image_root: see sources.read_entries.
        workers: processes; None takes one per core.
        fingerprint: of the sources; '' computes it.
        shard_bytes: a shard holds this much to twice that.

    Raises:
        FlagError: the metadata names nothing, or the output cannot be written there.
        DataError: no data set can be made of what the metadata names.
        UserError: the disk is full, a worker process died, and the like.
    """
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    labels = manifest.read_labels(labels_file, numbered=True) if labels_file else None
    expanded = {side: sources.expand(metadata) for side, metadata in given.items()}
    _check_output(output_dir, expanded)
    if not fingerprint:
        fingerprint = sources.fingerprint(
            train_metadata, eval_metadata, labels_file=labels_file, image_root=image_root, eval_fraction=eval_fraction
        )
    work = _Build(given, expanded, image_root or None, eval_fraction, workers or local.cores(), shard_bytes)
    return work.write(output_dir, labels, None, fingerprint)


def build_eval(
    eval_metadata: str,
    output_dir: str,
    tasks: Sequence[Task],
    *,
    image_root: str | None = None,
    workers: int | None = None,
    fingerprint: str = "",
) -> Manifest:
    """Builds an evaluation side alone, for a model that exists.

    Args:
        tasks: the model's; images of classes that they do not have are rejected.
        eval_metadata, output_dir, image_root, workers, fingerprint: as for `build`.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    given = {EVAL: eval_metadata}
    expanded = {EVAL: sources.expand(eval_metadata)}
    _check_output(output_dir, expanded)
    fingerprint = fingerprint or sources.fingerprint(eval_metadata, image_root=image_root)
    work = _Build(given, expanded, image_root or None, 1.0, workers or local.cores(), SHARD_BYTES)
    return work.write(output_dir, None, tuple(tasks), fingerprint)


@dataclass
class _Build:
    """One build and what it gathers on its way."""

    given: dict[str, str]
    expanded: dict[str, list[Source]]
    image_root: str | None
    eval_fraction: float
    workers: int
    shard_bytes: int
    pixels: statistics.Pixels = field(default_factory=statistics.Pixels)
    samples: statistics.Samples = field(default_factory=statistics.Samples)

    def write(
        self, output_dir: str, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None, fingerprint: str
    ) -> Manifest:
        """Builds into `output_dir`; `tasks` are given when a model's are to be used."""
        started = time.monotonic()
        images = ImageIndex()
        try:
            with storage.replacing_dir(output_dir, manifest.FILE_NAME) as folder:
                made = self._make(folder, images, labels, tasks)
                made = replace(made, sources=self.given, fingerprint=fingerprint, versions=_versions())
                _write_rejected(folder, images)
                page = statistics.render(
                    made, self.pixels, self.samples, itertools.islice(images.rejected(), statistics.REJECTED_SHOWN)
                )
                storage.write_text(os.path.join(folder, statistics.FILE_NAME), page)
                made.write(folder)
        except UserError:  # also a bucket's refusal, which is an OSError too
            raise
        except (OSError, sqlite3.OperationalError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise UserError(
                "The data set cannot be written", received=f"{output_dir}: {problem}", hint=_FREE_SPACE
            ) from error
        finally:
            images.close()
        _log.info("%s in %.1f s: %s", _summary(made), time.monotonic() - started, output_dir)
        return replace(made, folder=output_dir)

    def _make(
        self, folder: str, images: ImageIndex, labels: tuple[str, ...] | None, tasks: tuple[Task, ...] | None
    ) -> Manifest:
        image_sources = {side: given for side, given in self.expanded.items() if given[0].kind != TFRECORD}
        records_of = existing_tfrecords.gather(self.expanded, self.workers)
        contents = [file for files in records_of.values() for file in files]

        if image_sources:
            self._fill(images, image_sources)
            if tasks is None and TRAIN in image_sources:
                # Held-out images are training metadata too: a class that has no others is an error, not unknown.
                named_in = (TRAIN,) if EVAL in self.expanded else (TRAIN, EVAL)
                tasks = _tasks_of_images(images, named_in, sources.task_names(image_sources[TRAIN]), labels)
        if contents:
            tasks = (
                existing_tfrecords.fit(contents, tasks)
                if tasks
                else existing_tfrecords.tasks_of(contents, labels or existing_tfrecords.built_labels(self.expanded))
            )
        assert tasks is not None
        if image_sources:
            tasks = _tasks_for_images(tasks, bool(contents))
            _check_task_names(image_sources, tasks)
            images.reject_unknown(tasks)
            splits = self._write_images(folder, images, tasks)
        else:
            splits = {}
        splits |= {side: existing_tfrecords.split_of(files, tasks) for side, files in records_of.items()}
        for label, thumbnail in existing_tfrecords.thumbnails(contents, tasks):
            if self.samples.wants(label):
                self.samples.add(label, thumbnail)
        for task in tasks:
            if len(task.labels) == 1:
                raise DataError(
                    "The data set has a single class: there is nothing to learn",
                    received=task.labels[0],
                    expected="two or more",
                )
        in_order = {side: splits[side] for side in (TRAIN, EVAL) if side in splits}
        return Manifest(
            tasks=tasks, splits=in_order, rejected_reasons=images.reasons(TRAIN, EVAL), reencoded=self.pixels.reencoded
        )

    def _fill(self, images: ImageIndex, image_sources: Mapping[str, list[Source]]) -> None:
        for side, given in image_sources.items():
            eval_fraction = 1.0 if side == EVAL else 0.0 if EVAL in self.expanded else self.eval_fraction
            images.add(side, sources.read_entries(given, self.image_root), eval_fraction)
        if both := images.count_in_both():
            _log.warning(
                "%s images are in the training and in the evaluation metadata: the evaluation will be too good",
                f"{both:,}",
            )

    def _write_images(self, folder: str, images: ImageIndex, tasks: tuple[Task, ...]) -> dict[str, Split]:
        wanted = (TRAIN, EVAL) if TRAIN in self.expanded else (EVAL,)
        sides = [side for side in wanted if side not in self.expanded or self.expanded[side][0].kind != TFRECORD]
        for side in sides:
            self._check_side(
                side, {task.name: images.class_counts(side, index) for index, task in enumerate(tasks)}, tasks, images
            )
        os.mkdir(os.path.join(folder, _PARTS))
        counts = {side: {task.name: Counter[str]() for task in tasks} for side in sides}
        writers = {side: ShardWriter(folder, side, self.shard_bytes) for side in sides}
        total = sum(images.count(side) for side in sides)
        workers = 1 if total <= _FEW_IMAGES else min(self.workers, -(-total // _CHUNK))
        with progress.track("Building", total, "images") as advance:
            for job, answer in local.run_jobs(self._jobs(folder, images, tasks, sides), workers):
                lengths = []
                for (path, _, labels, _), result in zip(job["entries"], answer["results"], strict=True):
                    if isinstance(result, str):
                        images.reject(job["side"], path, result)
                        continue
                    length, height, width, image_format, reencoded, thumbnail = result
                    lengths.append(length)
                    self.pixels.add(height, width, image_format, reencoded)
                    for task, (_, label) in zip(tasks, labels, strict=True):
                        counts[job["side"]][task.name][label] += 1
                    if thumbnail:
                        self.samples.add(labels[0][1], thumbnail)
                writers[job["side"]].append(job["part"], lengths)
                advance(len(job["entries"]))
        os.rmdir(os.path.join(folder, _PARTS))
        splits = {}
        for side in sides:
            self._check_side(side, counts[side], tasks, images)
            class_counts = {
                task.name: {label: counts[side][task.name][label] for label in task.labels} for task in tasks
            }
            shards = writers[side].finish()
            written, rejected = sum(shard.examples for shard in shards), images.count_rejected(side)
            splits[side] = Split(shards, images=written + rejected, rejected=rejected, class_counts=class_counts)
        return splits

    def _jobs(self, folder: str, images: ImageIndex, tasks: tuple[Task, ...], sides: Sequence[str]) -> Iterator[Job]:
        ids = [{label: class_id for class_id, label in enumerate(task.labels)} for task in tasks]
        names = [task.name for task in tasks]
        for side in sides:
            entries = images.shuffled(side)
            for number in itertools.count():
                chunk = [
                    [
                        path,
                        filename,
                        [[of[label], label] for of, label in zip(ids, labels, strict=True)],
                        self.samples.wants(labels[0]),
                    ]
                    for path, filename, labels in itertools.islice(entries, _CHUNK)
                ]
                if not chunk:
                    break
                yield {
                    "side": side,
                    "part": os.path.join(folder, _PARTS, f"{side}-{number}"),
                    "tasks": names,
                    "entries": chunk,
                }

    def _check_side(
        self, side: str, counts: Mapping[str, Mapping[str, int]], tasks: Sequence[Task], images: ImageIndex
    ) -> None:
        """Checks that a side has images, and the training side some of every class."""
        if not any(any(of_task.values()) for of_task in counts.values()):
            if side == EVAL and EVAL not in self.expanded:
                raise DataError(
                    "No image falls on the evaluation side",
                    received=f"{images.count(TRAIN):,} images, --eval_fraction {self.eval_fraction:g}",
                    hint="Raise --eval_fraction, or give --eval_metadata.",
                )
            reasons = itertools.islice(images.reasons(side).items(), _REASONS_TOLD)
            raise DataError(
                f"No {'training' if side == TRAIN else 'evaluation'} image is left",
                received="; ".join(f"{number:,} x {reason}" for reason, number in reasons) or "none to begin with",
                expected="images that can be read, with a label",
            )
        if side == TRAIN:
            for task in tasks:
                if missing := [label for label in task.labels if not counts[task.name].get(label)]:
                    raise DataError(
                        f"{len(missing)} of {len(task.labels)} classes have no training image",
                        received=", ".join(missing[:10]) + (", ..." if len(missing) > 10 else ""),
                        expected="at least one readable training image of every class",
                        hint=(
                            "Add images, give --eval_metadata or a smaller --eval_fraction, or take "
                            "the class out of the labels."
                        ),
                    )


def _tasks_of_images(
    images: ImageIndex, sides: Sequence[str], names: Sequence[str], labels: tuple[str, ...] | None
) -> tuple[Task, ...]:
    """The tasks of images, whose classes are those of a labels file or the ones that occur on `sides`."""
    if labels and len(names) > 1:
        raise DataError(
            "A labels file names the classes of one task", received=", ".join(names), expected="one label column"
        )
    occurring = [{label for side in sides for label in images.class_counts(side, index)} for index in range(len(names))]
    return tuple(
        Task(name, labels or sources.order_labels(found)) for name, found in zip(names, occurring, strict=True)
    )


def _tasks_for_images(tasks: Sequence[Task], beside_tfrecords: bool) -> tuple[Task, ...]:
    """`tasks` with the feature names of shards that are built here."""
    named = tuple(replace(task, feature=records.label_prefix(task.name, len(tasks)) + "label") for task in tasks)
    if beside_tfrecords and named != tuple(tasks):
        raise DataError(
            "One side is images, the other TFRecords with other features",
            received=", ".join(task.feature for task in tasks),
            expected=", ".join(task.feature for task in named),
            hint="Build TFRecords of both sides from images, or give TFRecords for both.",
        )
    return named


def _check_task_names(image_sources: Mapping[str, list[Source]], tasks: Sequence[Task]) -> None:
    expected = tuple(task.name for task in tasks)
    for side, given in image_sources.items():
        if (names := sources.task_names(given)) != expected:
            raise DataError(
                f"The {side} metadata has other label columns", received=", ".join(names), expected=", ".join(expected)
            )


def _check_output(output_dir: str, expanded: Mapping[str, list[Source]]) -> None:
    """Refuses to replace anything but a data set, and to write into the data or over it."""
    given = list(itertools.chain(*expanded.values()))
    storage.check_replaceable(output_dir, manifest.FILE_NAME, [source.path for source in given])
    for source in given:
        if source.kind != sources.CSV and _absolute(output_dir).startswith(_absolute(source.path)):
            raise FlagError(
                "--output_dir lies in the data",
                received=f"{output_dir} and {source.path}",
                expected="folders apart from each other",
            )


def _absolute(folder: str) -> str:
    return storage.canonical(folder).rstrip("/") + "/"


def _write_rejected(folder: str, images: ImageIndex) -> None:
    with open(os.path.join(folder, REJECTED_FILE), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "reason"])
        writer.writerows(images.rejected())


def _versions() -> dict[str, str]:
    own = {"tf-image-classification": __version__, "python": platform.python_version()}
    return own | versions.installed("pillow", "protobuf")


def _summary(made: Manifest) -> str:
    sides = " and ".join(f"{split.examples:,} {side}" for side, split in made.splits.items())
    shards = sum(len(split.shards) for split in made.splits.values())
    size = statistics.human_bytes(sum(statistics.split_bytes(split) for split in made.splits.values()))
    rejected = sum(split.rejected for split in made.splits.values())
    return (
        f"{sides} examples in {shards:,} shards ({size}), {rejected:,} images rejected, {made.reencoded:,} re-encoded,"
    )
