"""Jobs for the worker processes, and their results. Both are pickled on their way to another process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.data.sources import ImageRoots, Rejected
from tf_image_classification.data.stored_images import StoredImages
from tf_image_classification.image_limits import DEFAULT, ImageLimits


class ClassLabel(NamedTuple):
    """A class by its id and its name."""

    id: int
    name: str


class ChunkImage(NamedTuple):
    """An image of a chunk.

    Attributes:
        path: as storage opens it.
        filename: relative to its root.
        labels: a class per task.
        wants_thumbnail: whether the statistics page may show it.
    """

    path: str
    filename: str
    labels: tuple[ClassLabel, ...]
    wants_thumbnail: bool


@dataclass(frozen=True, slots=True)
class ImageChunk:
    """Images of one split whose records follow each other.

    Attributes:
        split: `train` or `eval`.
        tasks: names of the tasks.
        images: in the order of their records.
        roots: that they are read from.
        limits: of each image.
        max_side: see images.prepare.
        fingerprinted: metadata, `train` or `eval`, as part of which the contents of the files are in the fingerprint;
            '' where they are not, or the fingerprint is known.
        part: path of the file to write; '' where the records are not written to a file of their own.
    """

    split: str
    tasks: tuple[str, ...]
    images: tuple[ChunkImage, ...]
    roots: ImageRoots
    limits: ImageLimits = DEFAULT
    max_side: int = 0
    fingerprinted: str = ""
    part: str = ""

    def __str__(self) -> str:
        return f"{self.images[0].path} and the {len(self.images) - 1} images after it"


class WrittenImage(NamedTuple):
    """An image that a part holds.

    Attributes:
        record_bytes: length of its framed record.
        height, width: pixels.
        format: `jpeg` or `png`.
        reencoded: whether it is not stored byte for byte.
        downscaled_bytes: of the file, if --max_side reduced the image; else 0.
        thumbnail: JPEG in base64; None if none was wanted.
    """

    record_bytes: int
    height: int
    width: int
    format: str
    reencoded: bool
    downscaled_bytes: int
    thumbnail: str | None


ImageResult = WrittenImage | Rejected


class PartResult(NamedTuple):
    """What became of a chunk.

    Attributes:
        images: a result per image, in their order.
        looks: of the written images, in their order, what they are compared with other pictures by.
        digests: per image what its file adds to the data's fingerprint; None where that is not known. Empty where it
            was not asked for.
    """

    images: list[ImageResult]
    looks: list[Look]
    digests: Sequence[int | None] = ()


def record_lengths(part: PartResult) -> list[int]:
    """Bytes of each framed record of a chunk."""
    return [image.record_bytes for image in part.images if isinstance(image, WrittenImage)]


@dataclass(frozen=True, slots=True)
class RecordsJob:
    """A TFRecord file to check.

    Attributes:
        split: `train` or `eval`.
        path: local or gs://.
        crc32c: of the file, as its manifest records it; None when it has no manifest.
        num_thumbnails: how many of the first records to make thumbnails of.
        image_feature, label_features: names of the features; None and () for those of slim's or the original's schema.
        limits: of each image.
    """

    split: str
    path: str
    crc32c: str | None
    num_thumbnails: int
    image_feature: str | None = None
    label_features: tuple[str, ...] = ()
    limits: ImageLimits = DEFAULT

    def __str__(self) -> str:
        return self.path


class Thumbnail(NamedTuple):
    """A thumbnail of a record.

    Attributes:
        feature: name of the record's first label feature.
        value: the label.
        jpeg: in base64.
    """

    feature: str
    value: float
    jpeg: str


class LabelValues(NamedTuple):
    """What a label feature holds over all records of a file.

    Attributes:
        counts: value -> number of examples, sorted by value.
        texts: class id -> the class name beside it, sorted by id.
    """

    counts: dict[float, int]
    texts: dict[int, str]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checked TFRecord file holds.

    Attributes:
        path: absolute or gs://.
        examples: number of records.
        bytes: size of the file.
        record_bytes: of its records, unpacked.
        crc32c: of the file, 8 hexadecimal digits.
        compression: '' or 'GZIP'.
        schema: `slim` or `original`; of an empty file `slim`.
        image_feature: name of the feature that holds the image; '' for an empty file.
        stored: what its images are; TensorFlow may decode other formats to other pixels than a viewer shows.
        in_manifest: whether a manifest lists the file, and so names its classes.
        labels: label feature -> its values; empty for an empty file.
        thumbnails: of the first records.
    """

    path: str
    examples: int
    bytes: int
    record_bytes: int
    crc32c: str
    compression: str
    schema: str
    image_feature: str
    stored: StoredImages
    in_manifest: bool
    labels: dict[str, LabelValues]
    thumbnails: tuple[Thumbnail, ...]
