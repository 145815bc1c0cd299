"""One TFRecord file given as metadata: every record is checked. Files are not copied."""

from __future__ import annotations

import base64
import io
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images
from tf_image_classification.build_tfrecords.worker_messages import Contents, LabelValues, RecordsJob, Thumbnail
from tf_image_classification.data import class_names, tfrecord
from tf_image_classification.data.manifest import FILENAME_FEATURES, IMAGE_FEATURES, ORIGINAL, SLIM
from tf_image_classification.data.stored_images import OTHER, StoredCounts
from tf_image_classification.data.tasks import is_slim_label, text_beside
from tf_image_classification.errors import DataError, UserError, abridged

_LABEL_KINDS: dict[str, type] = {SLIM: int, ORIGINAL: float}
_KIND_NAMES: dict[type, str] = {bytes: "bytes", int: "int64", float: "float"}
_MAX_FEATURES = 20  # listed in a message
_OTHER_FEATURES = 2**20  # bytes of a record beside its image: labels, names, boxes
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG")


def check_file(job: RecordsJob) -> Contents:
    """Reads and checks one TFRecord file: CRCs, the same features in all records, of the kinds that training and
    evaluation parse, one label per task, decodable images.

    Raises:
        DataError: a record cannot be used; names it.
        UserError: the file cannot be read.
    """
    try:
        with storage.temporary_dir() as folder:
            local = storage.fetch(job.path, folder)
            storage.open_file(local).close()  # a pipe would block for ever
            return _contents_of(job, local)
    except OSError as error:
        raise UserError("A TFRecord file cannot be read", received=f"{job}: {error.strerror or error}") from error


def _contents_of(job: RecordsJob, local: str) -> Contents:
    records, record_bytes = _Records(job), 0
    for record in tfrecord.read(local, job.limits.max_bytes + _OTHER_FEATURES):
        record_bytes += len(record)
        try:
            records.add(tfrecord.parse_example(record))
        except (ValueError, images.RejectedImage) as error:
            raise DataError(
                f"{job.path} holds a record that cannot be used: {error}",
                received=f"record {records.count}, counted from 0",
                expected=_expected(job),
            ) from error
    return Contents(
        path=job.path if storage.is_remote(job.path) else os.path.abspath(job.path),
        examples=records.count,
        bytes=os.path.getsize(local),
        record_bytes=record_bytes,
        crc32c=tfrecord.file_crc32c(local),
        compression=tfrecord.compression(local),
        schema=records.layout.schema if records.layout else SLIM,
        image_feature=records.layout.image if records.layout else "",
        stored=records.stored.stored(),
        in_manifest=job.crc32c is not None,
        labels=records.label_values(),
        thumbnails=tuple(records.thumbnails),
    )


def _expected(job: RecordsJob) -> str:
    if job.image_feature or job.label_features:
        labels = ", ".join(job.label_features) or "the labels"
        return f"an encoded image (bytes) in {job.image_feature or 'image/encoded or image_bytes'}, int64 in {labels}"
    return (
        "image/encoded (bytes) and image/class/label (int64), or image_bytes and a float per label; other names as "
        "--image_feature and --label_feature"
    )


class _Layout(NamedTuple):
    """The features of a record that are read: the schema gives the kinds of its labels."""

    schema: str
    image: str
    labels: tuple[str, ...]


@dataclass
class _Records:
    """The records of one file so far."""

    job: RecordsJob
    count: int = 0
    stored: StoredCounts = field(default_factory=StoredCounts)
    layout: _Layout | None = None
    counts: dict[str, Counter[float]] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    thumbnails: list[Thumbnail] = field(default_factory=list)

    def add(self, features: tfrecord.Features) -> None:
        """Checks and counts a record.

        Raises:
            ValueError, RejectedImage: it cannot be used.
        """
        layout = _layout(features, self.job)
        names = layout.labels
        if self.layout is None:
            self.layout = layout
            self.counts, self.texts = {name: Counter() for name in names}, {name: {} for name in names}
        elif self.layout != layout:
            raise ValueError(
                f"its labels are {', '.join(names)}, those of the first record {', '.join(self.layout.labels)}"
                if names != self.layout.labels
                else f"its image is in {layout.image} and its labels are {layout.schema}'s, unlike the first record's"
            )
        image = _image_of(features, layout.image)
        prepared = images.prepare(image, self.job.limits)
        self.stored.add(OTHER if prepared.reencoded else prepared.format, prepared.height, prepared.width)
        if (filename := FILENAME_FEATURES[layout.schema]) in features:
            _one(features, filename, bytes)
        values = {name: _label_of(features, name, layout.schema) for name in names}
        for name, value in values.items():
            if len(self.counts[name]) < class_names.MAX_CLASSES:
                self.counts[name][value] += 1
                if is_slim_label(name) and text_beside(name) in features:
                    _note_text(_text_of(features, text_beside(name)), int(value), self.texts[name])
        if self.count < self.job.num_thumbnails:
            jpeg = base64.b64encode(images.thumbnail(image)).decode()
            self.thumbnails.append(Thumbnail(names[0], values[names[0]], jpeg))
        self.count += 1

    def label_values(self) -> dict[str, LabelValues]:
        """What each label feature holds."""
        return {
            name: LabelValues(dict(sorted(self.counts[name].items())), dict(sorted(self.texts[name].items())))
            for name in self.counts
        }


def _layout(features: tfrecord.Features, job: RecordsJob) -> _Layout:
    """Which features of a record hold what."""
    image = job.image_feature or next((name for name in IMAGE_FEATURES.values() if name in features), "")
    for name in (image, *job.label_features):
        if name not in features:
            missing = f"no feature {name}" if name else "neither image/encoded nor image_bytes"
            raise ValueError(f"it has {missing}; its features are {_described(features)}")
    names = list(job.label_features)
    if not names and image != IMAGE_FEATURES[ORIGINAL]:
        names = [name for name in features if is_slim_label(name)]
    if not names and image != IMAGE_FEATURES[SLIM]:
        names = [name for name, values in features.items() if values and isinstance(values[0], float)]
    if not names:
        raise ValueError(f"it has no label; its features are {_described(features)}")
    schema = SLIM
    if not any(is_slim_label(name) for name in names) and all(_holds(features[name], float) for name in names):
        schema = ORIGINAL
    return _Layout(schema, image, tuple(sorted(names)))


def _holds(values: Sequence[tfrecord.FeatureValue], kind: type) -> bool:
    return bool(values) and isinstance(values[0], kind)


def _one(features: tfrecord.Features, name: str, kind: type) -> tfrecord.FeatureValue:
    """The only value of a feature, which tf.io.FixedLenFeature([], kind) parses."""
    values = features[name]
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"{name} is {_kind(values)} instead of one value of kind {_KIND_NAMES[kind]}")
    return values[0]


def _kind(values: Sequence[tfrecord.FeatureValue]) -> str:
    """A feature as messages describe it: `int64`, `3 x float`, `empty`."""
    if not values:
        return "empty"
    kind = _KIND_NAMES[type(values[0])]
    return kind if len(values) == 1 else f"{len(values)} x {kind}"


def _described(features: tfrecord.Features) -> str:
    return abridged([f"{name} ({_kind(features[name])})" for name in sorted(features)], _MAX_FEATURES) or "none"


def _image_of(features: tfrecord.Features, name: str) -> bytes:
    """The encoded image of a record."""
    image = _one(features, name, bytes)
    assert isinstance(image, bytes)
    if not image.startswith(_SIGNATURES):
        raise ValueError(f"{name} is {_content_of(image)}, neither JPEG nor PNG: TFRecords are not rewritten")
    return image


def _content_of(image: bytes) -> str:
    """What bytes are that should be an image, in a few words."""
    if not image:
        return "empty"
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return str(opened.format)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return f"{len(image):,} bytes of no known image format (pixels that are not encoded?)"


def _label_of(features: tfrecord.Features, name: str, schema: str) -> float:
    value = _one(features, name, _LABEL_KINDS[schema])
    assert not isinstance(value, bytes)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, not a finite number")
    return value


def _text_of(features: tfrecord.Features, name: str) -> str:
    """The class name beside a label, as a line of a labels file; '' for none."""
    value = _one(features, name, bytes)
    assert isinstance(value, bytes)
    try:
        text = class_names.canonical(" ".join(value.decode().split()))
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8: {value[:100]!r}") from None
    if text and (reason := class_names.fault(text)):
        raise ValueError(f"{name} is no class name: {reason}: {value[:100]!r}")
    return text


def _note_text(text: str, class_id: int, texts: dict[int, str]) -> None:
    """Adds the class name beside a label to `texts`."""
    if text and texts.setdefault(class_id, text) != text:
        raise ValueError(f"it calls class {class_id} {text}, an earlier one {texts[class_id]}")
