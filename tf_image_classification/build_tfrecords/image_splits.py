"""The splits that are built from images: chunks of the index through the workers into shards, counted on the way."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tf_image_classification import progress
from tf_image_classification.build_tfrecords import local, missing_classes, part_file, report
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex, Picture
from tf_image_classification.build_tfrecords.shards import ShardCounter, ShardWriter
from tf_image_classification.build_tfrecords.statistics import Pixels, Samples
from tf_image_classification.build_tfrecords.worker_messages import ChunkImage, ClassLabel, ImageChunk, PartResult
from tf_image_classification.data.manifest import EVAL, TRAIN, Split, Task
from tf_image_classification.data.sources import ImageRoots, Rejected
from tf_image_classification.errors import DataError
from tf_image_classification.image_limits import ImageLimits

ClassCounts = Mapping[str, Mapping[str, int]]  # task -> class name -> number of images

_CHUNK = 32  # images per job
_FEW_IMAGES = 200  # below, starting processes takes longer than the work
_PARTS = ".parts"


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

    def write(self, workers: int, shard_bytes: int) -> dict[str, Split]:
        """Writes the shards of every split.

        Args:
            workers: processes.
            shard_bytes: see ShardWriter.

        Raises:
            DataError: a split has no images, or a class no training image.
            UserError: see part_file.write_part and local.run_jobs.
        """
        for split in self.splits:
            indexed = {task.name: self.index.class_counts(split, column) for column, task in enumerate(self.tasks)}
            self._check_split(split, indexed)
            if split == TRAIN and not self.allow_missing_classes:
                self._check_classes(indexed)
        writers = {split: self._writer(split, shard_bytes) for split in self.splits}
        counts: dict[str, dict[str, Counter[str]]] = {}
        for split in self.splits:
            counts[split] = {task.name: Counter() for task in self.tasks}
        total = sum(self.index.count(split) for split in self.splits)
        workers = 1 if total <= _FEW_IMAGES else min(workers, -(-total // _CHUNK))
        if self.folder is not None:
            os.mkdir(self._part(""))
        with progress.track("Checking" if self.folder is None else "Building", total, "images") as advance:
            for chunk, part in local.run_jobs(part_file.write_part, self._chunks(), workers):
                lengths = self._count(chunk, part, counts[chunk.split])
                writers[chunk.split].append(chunk.part, lengths)
                advance(len(chunk.images))
        if self.folder is not None:
            os.rmdir(self._part(""))
        return {split: self._finish(split, writers[split], counts[split]) for split in self.splits}

    def _writer(self, split: str, shard_bytes: int) -> ShardWriter | ShardCounter:
        return ShardCounter() if self.folder is None else ShardWriter(self.folder, split, shard_bytes)

    def _part(self, name: str) -> str:
        return os.devnull if self.folder is None else os.path.join(self.folder, _PARTS, name)

    def _chunks(self) -> Iterator[ImageChunk]:
        """The images in the order of the shards. Changes `samples`, which counts the thumbnails that it wants."""
        names = tuple(task.name for task in self.tasks)
        ids = [dict(zip(task.labels, itertools.count())) for task in self.tasks]
        for split in self.splits:
            entries = self.index.shuffled(split)
            for number in itertools.count():
                images = []
                for path, filename, labels, _ in itertools.islice(entries, _CHUNK):
                    classes = [ClassLabel(of_task[label], label) for of_task, label in zip(ids, labels, strict=True)]
                    images.append(ChunkImage(path, filename, tuple(classes), self.samples.wants(labels[0])))
                if not images:
                    break
                part = self._part(f"{split}-{number}")
                yield ImageChunk(split, part, names, tuple(images), self.roots, self.limits, self.max_side)

    def _count(self, chunk: ImageChunk, part: PartResult, counts: Mapping[str, Counter[str]]) -> list[int]:
        """Adds the results of a chunk to `counts`, the index and the statistics.

        Returns:
            Bytes of each record in the chunk's part.
        """
        lengths, pictures = [], []
        for image, result in zip(chunk.images, part.images, strict=True):
            if isinstance(result, Rejected):
                self.index.reject(chunk.split, result.path, result.reason)
                continue
            lengths.append(result.record_bytes)
            self.pixels.add(result)
            for task, label in zip(chunk.tasks, image.labels, strict=True):
                counts[task][label.name] += 1
            if result.thumbnail:
                self.samples.add(image.labels[0].name, result.thumbnail)
            names = tuple(label.name for label in image.labels)
            pictures.append(Picture(image.path, image.filename, chunk.split, names))
        self.duplicates.add(zip(pictures, part.looks, strict=True))
        return lengths

    def _finish(self, split: str, writer: ShardWriter | ShardCounter, counts: ClassCounts) -> Split:
        self._check_split(split, counts)
        if split == TRAIN:
            self._check_classes(counts)
        shards = writer.finish()
        written, rejected = sum(shard.examples for shard in shards), self.index.count_rejected(split)
        class_counts = {}
        for task in self.tasks:
            of_task = counts[task.name]
            class_counts[task.name] = {label: of_task[label] for label in task.labels}
        return Split(shards, images=written + rejected, rejected=rejected, class_counts=class_counts)

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
