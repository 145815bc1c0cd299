"""manifest.json: the content of a built data set, with every image accounted for.

Written by build_tfrecords, read by training and evaluation. It imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_image_classification import storage
from tf_image_classification.data import class_names
from tf_image_classification.data.stored_images import StoredImages
from tf_image_classification.errors import DataError, MissingDataError, abridged

FILE_NAME, LABELS_FILE = "manifest.json", "labels.txt"
FORMAT = 1
TRAIN, EVAL = "train", "eval"
SLIM, ORIGINAL = "slim", "original"
DEFAULT_TASK = "label"
IMAGE_FEATURES = {SLIM: "image/encoded", ORIGINAL: "image_bytes"}
FILENAME_FEATURES = {SLIM: "image/filename", ORIGINAL: "image_uri"}

_BUILD_AGAIN = "Build the data set again."


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to predict of an image.

    Attributes:
        name: `label` unless the data has several label columns.
        labels: class names by class id; empty for a regression.
        feature: name of the shards' label feature: int64 class id in the slim schema, float in the original's.
    """

    name: str
    labels: tuple[str, ...]
    feature: str = "image/class/label"

    @property
    def labels_file(self) -> str:
        """Name of the file of class names, beside the manifest and in a model folder."""
        return LABELS_FILE if self.name == DEFAULT_TASK else f"labels.{self.name}.txt"

    @property
    def holds_numbers(self) -> bool:
        """Whether the labels are numbers: the task has no class names, or each of them is its own id."""
        return self.labels == tuple(map(str, range(len(self.labels))))


@dataclass(frozen=True, slots=True)
class Shard:
    """One TFRecord file.

    Attributes:
        path: relative to the manifest's folder for a shard that was built, absolute or gs:// for one that is only
            listed.
        examples: number of records.
        bytes: size of the file.
        crc32c: of the whole file, as 8 hexadecimal digits.
    """

    path: str
    examples: int
    bytes: int
    crc32c: str


@dataclass(frozen=True, slots=True)
class Split:
    """The training or the evaluation examples.

    Attributes:
        shards: in reading order.
        schema: `slim` (image/encoded, image/class/label, ...) or `original` (image_bytes and one float per task).
        image_feature: name of the feature that holds the encoded image; '' for the schema's own.
        compression: '' or 'GZIP', as tf.data.TFRecordDataset takes it.
        images: images that the sources named for this split: written plus rejected.
        rejected: those of them that are not in the shards, for the reasons in rejected.csv.
        class_counts: task -> class name -> number of examples.
        stored: what its images are; None in manifests of earlier versions.
    """

    shards: tuple[Shard, ...] = ()
    schema: str = SLIM
    image_feature: str = ""
    compression: str = ""
    images: int = 0
    rejected: int = 0
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    stored: StoredImages | None = None

    @property
    def examples(self) -> int:
        """Number of examples in the shards."""
        return sum(shard.examples for shard in self.shards)

    @property
    def encoded_feature(self) -> str:
        """Name of the feature that holds the encoded image."""
        return self.image_feature or IMAGE_FEATURES[self.schema]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Numbers of images that have a duplicate.

    Attributes:
        train, eval: images with a duplicate in their own split.
        across_splits: evaluation images with a duplicate among the training images.
        other_labels: images of both splits with a duplicate that is labelled otherwise.
    """

    train: int = 0
    eval: int = 0
    across_splits: int = 0
    other_labels: int = 0


@dataclass(frozen=True, slots=True)
class Quality:
    """What a look at the images shows, before a training. Images that were given as TFRecords do not count.

    Attributes:
        near_duplicates: of images that look the same, or nearly so; identical ones included.
        identical: of images whose stored bytes are the same.
        shorter_side_below: pixels -> number of images whose height or width is less.
        classes_below: number of training examples below which a class is small.
        small_classes: task -> class name -> number of training examples, of small classes.
    """

    near_duplicates: Duplicates
    identical: Duplicates
    shorter_side_below: dict[str, int]
    classes_below: int
    small_classes: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Downscaled:
    """What --max_side did, over both splits: of images, and of a data set that was given as TFRecords.

    Attributes:
        max_side: its value, in pixels; of several, the smallest that reduced an image.
        images: number of images whose shorter side was reduced to it; they count as re-encoded too.
        file_bytes: of their files.
        record_bytes: of their records in the shards.
    """

    max_side: int
    images: int
    file_bytes: int
    record_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A built data set.

    Attributes:
        tasks: what each example is labelled with.
        splits: `train` and `eval`; one of them may be missing.
        rejected_reasons: reason -> number of images, over both splits.
        reencoded: number of images that are not stored byte for byte, over both splits.
        downscaled: what --max_side did to large images; None without the flag.
        sources: split -> the metadata as given.
        fingerprint: identifies the sources' content.
        quality: what the images look like; None if all are in TFRecords, and in manifests of earlier versions.
        versions: package -> version that built it.
        folder: where the manifest was read from; not in the file.
    """

    tasks: tuple[Task, ...]
    splits: dict[str, Split]
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    reencoded: int = 0
    downscaled: Downscaled | None = None
    sources: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    quality: Quality | None = None
    versions: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    def shard_paths(self, split: str) -> list[str]:
        """Paths of a split's shards as they can be opened."""
        return [
            shard.path
            if shard.path.startswith(("/", *storage.REMOTE_SCHEMES))
            else storage.join(self.folder, shard.path)
            for shard in self.splits[split].shards
        ]

    def write(self, folder: str) -> None:
        """Writes manifest.json and the labels files into `folder`."""
        for task in self.tasks:
            if task.labels:
                write_labels(storage.join(folder, task.labels_file), task.labels)
        storage.write_text(storage.join(folder, FILE_NAME), self.to_json())

    def to_json(self, *, shards: bool = True) -> str:
        """The text of manifest.json, or of what it says without shards."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        del content["folder"]
        for name, split in self.splits.items():
            content["splits"][name]["examples"] = split.examples
            if not shards:
                del content["splits"][name]["shards"]
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read(folder: str) -> Manifest:
    """Reads the manifest of a built data set.

    Raises:
        DataError: the folder has no manifest, or not one that this version reads.
    """
    storage.restore_dir(folder)
    path = storage.join(folder, FILE_NAME)
    try:
        content = storage.read_json(path, expected="JSON as build_tfrecords writes it", hint=_BUILD_AGAIN)
        if content.pop("format") != FORMAT:
            raise ValueError("format")
        splits = {}
        for name, values in content.pop("splits").items():
            values.pop("examples")
            counts = {task: _canonical_counts(of_task) for task, of_task in values["class_counts"].items()}
            shards = tuple(Shard(**shard) for shard in values["shards"])
            for shard in shards:  # an absolute one was given as a TFRecord, and is where it was
                if not shard.path.startswith(("/", *storage.REMOTE_SCHEMES)) and ".." in shard.path.split("/"):
                    raise ValueError(f"a shard outside the folder: {shard.path}")
            stored = StoredImages(**values["stored"]) if values.get("stored") else None
            splits[name] = Split(**{**values, "shards": shards, "class_counts": counts, "stored": stored})
        tasks = tuple(
            Task(task["name"], tuple(map(class_names.canonical, task["labels"])), task["feature"])
            for task in content.pop("tasks")
        )
        for task in tasks:
            _check_names(task.labels)
        quality = _quality(content.pop("quality", None))
        reduced = content.pop("downscaled", None)
        downscaled = Downscaled(**reduced) if reduced else None
        return Manifest(tasks=tasks, splits=splits, folder=folder, quality=quality, downscaled=downscaled, **content)
    except FileNotFoundError:
        raise DataError(
            "No built data set found",
            received=folder,
            expected=f"a folder with a {FILE_NAME}, as build_tfrecords writes it",
        ) from None
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a manifest that this version reads", received=repr(error), hint=_BUILD_AGAIN
        ) from error


def _check_names(labels: Sequence[str]) -> None:
    """Raises ValueError if these cannot be the class names of a task."""
    if len(labels) > class_names.MAX_CLASSES:
        raise ValueError(f"{len(labels):,} classes; at most {class_names.MAX_CLASSES:,} are possible")
    if len(set(labels)) < len(labels):
        raise ValueError("two classes have one name, in two Unicode forms")
    if reason := next(filter(None, map(class_names.fault, labels)), None):
        raise ValueError(reason)


def _quality(content: dict[str, Any] | None) -> Quality | None:
    if content is None:
        return None
    near, identical = (Duplicates(**content.pop(name)) for name in ("near_duplicates", "identical"))
    return Quality(near, identical, **content)


def write_labels(path: str, labels: Sequence[str]) -> None:
    """Writes class names, one per line in the order of their ids."""
    storage.write_text(path, "".join(f"{label}\n" for label in labels))


def read_labels(path: str, *, numbered: bool = False) -> tuple[str, ...]:
    """Reads class names, one per line.

    Args:
        numbered: lines may be slim's `id:name`, if all of them are; not for files that this project wrote.

    Raises:
        MissingDataError: the file does not exist.
        DataError: it is not text, or empty, or names a class twice, or has a line that is no class name.
    """
    expected = "a text file with one class name per line"
    try:
        lines = [class_names.canonical(line) for line in storage.read_text(path).splitlines()]
    except (FileNotFoundError, IsADirectoryError):
        raise MissingDataError("The labels file does not exist", received=path, expected=expected) from None
    except UnicodeDecodeError:
        raise DataError("The labels file is not UTF-8 text", received=path, expected=expected) from None
    while lines and not lines[-1]:
        lines.pop()
    if numbered:
        parts = [line.partition(":") for line in lines]
        if all(number == str(index) and colon for index, (number, colon, _) in enumerate(parts)):
            lines = [class_names.canonical(name) for _, _, name in parts]
    if not lines or "" in lines:
        raise DataError(
            "The labels file has no class names or an empty line", received=path, expected="one class name per line"
        )
    if duplicates := sorted(line for line, count in Counter(lines).items() if count > 1):
        raise DataError(
            "The labels file names a class twice", received=abridged(duplicates), expected="each class once"
        )
    if len(lines) > class_names.MAX_CLASSES:
        raise DataError(
            "The labels file has too many classes",
            received=f"{len(lines):,} in {path}",
            expected=f"at most {class_names.MAX_CLASSES:,}",
        )
    for number, line in enumerate(lines, start=1):
        if reason := class_names.fault(line):
            raise DataError(
                "A line of the labels file is no class name",
                received=f"{path}, line {number}: {reason}",
                expected=expected,
            )
    return tuple(lines)


def _canonical_counts(counts: dict[str, int]) -> dict[str, int]:
    """Examples by class name, in the form that names have today: an older version may have stored another."""
    canonical: dict[str, int] = {}
    for name, count in counts.items():
        canonical[class_names.canonical(name)] = canonical.get(class_names.canonical(name), 0) + count
    return canonical
