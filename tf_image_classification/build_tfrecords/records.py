"""One TFRecord file given as metadata: every record is checked. Files are not copied."""

from __future__ import annotations

import base64
import math
import os
import re
from collections import Counter
from typing import Any

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import tfrecord
from tf_image_classification.data.manifest import ORIGINAL, SLIM
from tf_image_classification.errors import DataError

Contents = dict[str, Any]

SLIM_LABEL = re.compile(r"image/class/(?:(?P<task>.+)/)?label")
_IMAGE = {SLIM: "image/encoded", ORIGINAL: "image_bytes"}
_READABLE = (b"\xff\xd8\xff", b"\x89PNG")
MOST_CLASSES = 100_000  # more distinct values than that are no classes


def label_prefix(task: str, tasks: int) -> str:
    """What the names of a task's label features begin with, of so many tasks."""
    return "image/class/" if tasks == 1 else f"image/class/{task}/"


def inspect(path: str, num_thumbnails: int) -> Contents:
    """Reads and checks one TFRecord file: CRCs, the same features in all records, one label per task, decodable images.

    Args:
        path: local or gs://.
        num_thumbnails: how many thumbnails to make, of the first records.

    Returns:
        `path`, `examples`, `bytes`, `crc32c`, `compression`, `schema` and `labels`: feature name -> `counts`, pairs of
        value and number of examples, and `texts`, pairs of class id and name; `thumbnails`: a label's feature name, its
        value and a JPEG in base64, of each of the first records.

    Raises:
        DataError: a record cannot be used; names it.
    """
    with storage.temporary_dir() as folder:
        local = storage.fetch(path, folder)
        schema, counts, texts, thumbnails, examples = (
            SLIM,
            dict[str, Counter[float]](),
            dict[str, dict[int, str]](),
            [],
            0,
        )
        for record in tfrecord.read(local):
            try:
                features = tfrecord.parse_example(record)
                schema, names = _layout(features)
                if examples == 0:
                    counts, texts = {name: Counter() for name in names}, {name: {} for name in names}
                elif counts.keys() != set(names):
                    raise ValueError(
                        f"its labels are {', '.join(names)}, those of the first record {', '.join(counts)}"
                    )
                data = _image_of(features, schema)
                for name in names:
                    label = _label_of(features, name)
                    if len(counts[name]) < MOST_CLASSES:
                        counts[name][label] += 1
                    _note_text(features, name, int(label), texts[name])
                if examples < num_thumbnails:
                    thumbnails.append(
                        [names[0], features[names[0]][0], base64.b64encode(images.thumbnail(data)).decode()]
                    )
            except (ValueError, images.RejectedImage) as error:
                raise DataError(
                    f"{path} holds a record that cannot be used: {error}",
                    received=f"record {examples}, counted from 0",
                    expected="image/encoded and image/class/label (int64), or image_bytes and a float per label",
                ) from error
            examples += 1
        return {
            "path": path if storage.is_gcs(path) else os.path.abspath(path),
            "examples": examples,
            "bytes": os.path.getsize(local),
            "crc32c": tfrecord.file_crc32c(local),
            "compression": tfrecord.compression(local),
            "schema": schema,
            "labels": {
                name: {"counts": sorted(counts[name].items()), "texts": sorted(texts[name].items())} for name in counts
            },
            "thumbnails": thumbnails,
        }


def _layout(features: tfrecord.Features) -> tuple[str, list[str]]:
    if _IMAGE[SLIM] in features:
        schema, names = SLIM, [name for name in features if SLIM_LABEL.fullmatch(name)]
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
    if not values[0].startswith(_READABLE):
        raise ValueError("its image is neither JPEG nor PNG")
    images.prepare(values[0])
    return values[0]


def _label_of(features: tfrecord.Features, name: str) -> float:
    values = features[name]
    if len(values) != 1 or isinstance(values[0], bytes) or not math.isfinite(values[0]):
        raise ValueError(f"{name} is not one number")
    return values[0]


def _note_text(features: tfrecord.Features, name: str, class_id: int, texts: dict[int, str]) -> None:
    values = features.get(name.removesuffix("label") + "text") if name.endswith("label") else None
    text = " ".join(values[0].decode(errors="replace").split()) if values and isinstance(values[0], bytes) else ""
    if text and texts.setdefault(class_id, text) != text:
        raise ValueError(f"it calls class {class_id} {text}, an earlier one {texts[class_id]}")
