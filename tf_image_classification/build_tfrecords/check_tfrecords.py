"""One TFRecord file given as metadata: every record is checked. Files are not copied."""

from __future__ import annotations

import base64
import math
import os
from collections import Counter
from dataclasses import dataclass, field

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images
from tf_image_classification.build_tfrecords.worker_messages import Contents, LabelValues, RecordsJob, Thumbnail
from tf_image_classification.data import class_names, tfrecord
from tf_image_classification.data.manifest import ORIGINAL, SLIM
from tf_image_classification.data.tasks import is_slim_label, text_beside
from tf_image_classification.errors import DataError, UserError

MAX_CLASSES = 100_000  # more distinct values than that are no classes

_IMAGE = {SLIM: "image/encoded", ORIGINAL: "image_bytes"}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG")


def check_file(job: RecordsJob) -> Contents:
    """Reads and checks one TFRecord file: CRCs, the same features in all records, one label per task, decodable images.

    Raises:
        DataError: a record cannot be used; names it.
        UserError: the file cannot be read.
    """
    try:
        with storage.temporary_dir() as folder:
            return _contents_of(job, storage.fetch(job.path, folder))
    except OSError as error:
        raise UserError("A TFRecord file cannot be read", received=f"{job}: {error.strerror or error}") from error


def _contents_of(job: RecordsJob, local: str) -> Contents:
    records = _Records(job.num_thumbnails)
    for record in tfrecord.read(local):
        try:
            records.add(tfrecord.parse_example(record))
        except (ValueError, images.RejectedImage) as error:
            raise DataError(
                f"{job.path} holds a record that cannot be used: {error}",
                received=f"record {records.count}, counted from 0",
                expected="image/encoded and image/class/label (int64), or image_bytes and a float per label",
            ) from error
    return Contents(
        path=job.path if storage.is_gcs(job.path) else os.path.abspath(job.path),
        examples=records.count,
        bytes=os.path.getsize(local),
        crc32c=tfrecord.file_crc32c(local),
        compression=tfrecord.compression(local),
        schema=records.schema,
        labels=records.label_values(),
        thumbnails=tuple(records.thumbnails),
    )


@dataclass
class _Records:
    """The records of one file so far."""

    num_thumbnails: int
    count: int = 0
    schema: str = SLIM
    counts: dict[str, Counter[float]] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    thumbnails: list[Thumbnail] = field(default_factory=list)

    def add(self, features: tfrecord.Features) -> None:
        """Checks and counts a record.

        Raises:
            ValueError, RejectedImage: it cannot be used.
        """
        self.schema, names = _layout(features)
        if self.count == 0:
            self.counts, self.texts = {name: Counter() for name in names}, {name: {} for name in names}
        elif self.counts.keys() != set(names):
            raise ValueError(f"its labels are {', '.join(names)}, those of the first record {', '.join(self.counts)}")
        image = _image_of(features, self.schema)
        values = {name: _label_of(features, name) for name in names}
        for name, value in values.items():
            if len(self.counts[name]) < MAX_CLASSES:
                self.counts[name][value] += 1
            _note_text(features, name, int(value), self.texts[name])
        if self.count < self.num_thumbnails:
            jpeg = base64.b64encode(images.thumbnail(image)).decode()
            self.thumbnails.append(Thumbnail(names[0], values[names[0]], jpeg))
        self.count += 1

    def label_values(self) -> dict[str, LabelValues]:
        """What each label feature holds."""
        return {
            name: LabelValues(dict(sorted(self.counts[name].items())), dict(sorted(self.texts[name].items())))
            for name in self.counts
        }


def _layout(features: tfrecord.Features) -> tuple[str, list[str]]:
    """Schema of a record and names of its label features, sorted."""
    if _IMAGE[SLIM] in features:
        schema, names = SLIM, [name for name in features if is_slim_label(name)]
    elif _IMAGE[ORIGINAL] in features:
        schema, names = ORIGINAL, [name for name, values in features.items() if values and isinstance(values[0], float)]
    else:
        raise ValueError(f"its features are {', '.join(sorted(features)) or 'none'}")
    if not names:
        raise ValueError("it has no label")
    return schema, sorted(names)


def _image_of(features: tfrecord.Features, schema: str) -> bytes:
    values = features[_IMAGE[schema]]
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise ValueError(f"{_IMAGE[schema]} holds no image")
    if not values[0].startswith(_SIGNATURES):
        raise ValueError("its image is neither JPEG nor PNG")
    images.prepare(values[0])
    return values[0]


def _label_of(features: tfrecord.Features, name: str) -> float:
    values = features[name]
    if len(values) != 1 or isinstance(values[0], bytes) or not math.isfinite(values[0]):
        raise ValueError(f"{name} is not one number")
    return values[0]


def _note_text(features: tfrecord.Features, name: str, class_id: int, texts: dict[int, str]) -> None:
    """Adds the class name beside a label to `texts`."""
    values = features.get(text_beside(name)) if name.endswith("label") else None
    text = " ".join(values[0].decode(errors="replace").split()) if values and isinstance(values[0], bytes) else ""
    text = class_names.canonical(text)
    if text and texts.setdefault(class_id, text) != text:
        raise ValueError(f"it calls class {class_id} {text}, an earlier one {texts[class_id]}")
