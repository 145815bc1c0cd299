"""The splits that are built from images: chunks of the index through an engine into shards, counted on the way."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tf_image_classification import progress
from tf_image_classification.build_tfrecords import missing_classes, report
from tf_image_classification.build_tfrecords.engines import CHUNK, Engine
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex, Picture
from tf_image_classification.build_tfrecords.statistics import Pixels, Samples
from tf_image_classification.build_tfrecords.worker_messages import ChunkImage, ClassLabel, ImageChunk, PartResult
from tf_image_classification.data.fingerprint import CheckedFiles
from tf_image_classification.data.manifest import EVAL, TRAIN, Split, Task
from tf_image_classification.data.sources import ImageRoots, Rejected
from tf_image_classification.data.stored_images import StoredCounts
from tf_image_classification.errors import DataError
from tf_image_classification.image_limits import ImageLimits

_KNOWN_LABELS = 1024  # of images that are not looked up again

ClassCounts = Mapping[str, Mapping[str, int]]  # task -> class name -> number of images


@dataclass
class ImageSplits:
    """Builds splits from the images of an index.

    Attributes:
        folder: where the shards go; None to check the images only.
        index: rejections are added to it.
        tasks: of every image.
        splits: which ones to build, in this order.
        eval_fraction: share of the training metadata's images that are held out; None if evaluation has metadata of its
            own.
        allow_missing_classes: warn only of classes without a training image.
        pixels, samples: for the statistics page; every written image is added to them.
        duplicates: every written image is added to it.
        roots: that images are read from.
        limits: of each image.
        max_side: see images.prepare.
        fingerprinted: split -> the metadata that names its images, where their contents are part of the fingerprint.
        checked_files: every image that has been hashed is added to it.
    """

    folder: str | None
    index: ImageIndex
    tasks: tuple[Task, ...]
    splits: Sequence[str]
    eval_fraction: float | None
    allow_missing_classes: bool
    pixels: Pixels
    samples: Samples
    duplicates: DuplicateIndex
    roots: ImageRoots
    limits: ImageLimits
    max_side: int
    fingerprinted: Mapping[str, str]
    checked_files: CheckedFiles

    def write(self, engine: Engine) -> dict[str, Split]:
        """Has an engine write the shards of every split.

        Raises:
            DataError: a split has no images, or a class no training image.
            UserError: see Engine.results.
        """
        for split in self.splits:
            indexed = {task.name: self.index.class_counts(split, column) for column, task in enumerate(self.tasks)}
            self._check_split(split, indexed)
            if split == TRAIN and not self.allow_missing_classes:
                self._check_classes(indexed)
        counts: dict[str, dict[str, Counter[str]]] = {}
        stored = {split: StoredCounts() for split in self.splits}
        for split in self.splits:
            counts[split] = {task.name: Counter() for task in self.tasks}
        total = sum(self.index.count(split) for split in self.splits)
        with progress.track("Checking" if self.folder is None else "Building", total, "images") as advance:
            for chunk, part in engine.results(self.folder, self._chunks(), total):
                self._count(chunk, part, counts[chunk.split], stored[chunk.split])
                advance(len(chunk.images))
        return {split: self._finish(split, engine, counts[split], stored[split]) for split in self.splits}

    def _chunks(self) -> Iterator[ImageChunk]:
        """The images in the order of the shards. Changes `samples`, which counts the thumbnails that it wants."""
        names = tuple(task.name for task in self.tasks)
        ids = [dict(zip(task.labels, itertools.count())) for task in self.tasks]

        @functools.lru_cache(_KNOWN_LABELS)  # one object for all images of a class is pickled once in a chunk
        def classes_of(labels: tuple[str, ...]) -> tuple[ClassLabel, ...]:
            return tuple(ClassLabel(of_task[label], label) for of_task, label in zip(ids, labels, strict=True))

        for split in self.splits:
            entries = self.index.shuffled(split)
            while True:
                images = [
                    ChunkImage(path, filename, classes_of(labels), self.samples.wants(labels[0]))
                    for path, filename, labels, _ in itertools.islice(entries, CHUNK)
                ]
                if not images:
                    break
                fingerprinted = self.fingerprinted.get(split, "")
                yield ImageChunk(split, names, tuple(images), self.roots, self.limits, self.max_side, fingerprinted)

    def _count(
        self, chunk: ImageChunk, part: PartResult, counts: Mapping[str, Counter[str]], stored: StoredCounts
    ) -> None:
        """Adds the results of a chunk to `counts`, `stored`, the index and the statistics."""
        pictures = []
        for image, result in zip(chunk.images, part.images, strict=True):
            if isinstance(result, Rejected):
                self.index.reject(chunk.split, result.path, result.reason)
                continue
            self.pixels.add(result)
            stored.add(result.format, result.height, result.width)
            if result.thumbnail:
                self.samples.add(image.labels[0].name, result.thumbnail)
            pictures.append(Picture(image.path, image.filename, chunk.split, _names(image.labels)))
        for labels, count in Counter(picture.labels for picture in pictures).items():
            for task, label in zip(chunk.tasks, labels, strict=True):
                counts[task][label] += count
        self.duplicates.add(zip(pictures, part.looks, strict=True))
        for image, digest in zip(chunk.images, part.digests, strict=False):
            if digest is not None:
                self.checked_files.add(chunk.fingerprinted, image.path, image.filename, digest)

    def _finish(self, split: str, engine: Engine, counts: ClassCounts, stored: StoredCounts) -> Split:
        self._check_split(split, counts)
        if split == TRAIN:
            self._check_classes(counts)
        shards = engine.finish(split)
        written, rejected = sum(shard.examples for shard in shards), self.index.count_rejected(split)
        class_counts = {}
        for task in self.tasks:
            of_task = counts[task.name]
            class_counts[task.name] = {label: of_task[label] for label in task.labels}
        images = written + rejected
        return Split(shards, images=images, rejected=rejected, class_counts=class_counts, stored=stored.stored())

    def _check_split(self, split: str, counts: ClassCounts) -> None:
        """Checks that a split has images."""
        if not any(any(of_task.values()) for of_task in counts.values()):
            self._refuse_empty(split)

    def _check_classes(self, counts: ClassCounts) -> None:
        """Checks that the training split has images of every class."""
        for task in self.tasks:
            missing_classes.check(
                task,
                counts[task.name],
                kind="image",
                hint=(
                    "Add images, give --eval_metadata or a smaller --eval_fraction, or take the class out of the "
                    "labels (a background line?)."
                ),
                allowed=self.allow_missing_classes,
            )

    def _refuse_empty(self, split: str) -> None:
        if split == EVAL and self.eval_fraction is not None:
            raise DataError(
                "No image falls into the evaluation split",
                received=f"{self.index.count(TRAIN):,} images, --eval_fraction {self.eval_fraction:g}",
                hint="Raise --eval_fraction, or give --eval_metadata. A list that names its splits needs lines for "
                "validation or test.",
            )
        raise DataError(
            f"No {'training' if split == TRAIN else 'evaluation'} image is left",
            received=report.reasons(self.index, split) or "no images in the metadata",
            expected="images that can be read, with a label",
        )


@functools.lru_cache(_KNOWN_LABELS)
def _names(labels: tuple[ClassLabel, ...]) -> tuple[str, ...]:
    return tuple(label.name for label in labels)
