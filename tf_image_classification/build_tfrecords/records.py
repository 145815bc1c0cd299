"""TFRecords given as metadata: every record is checked, and what they hold is told to the manifest. They are not copied."""

from __future__ import annotations

import base64
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tf_image_classification import storage, tfrecord
from tf_image_classification.build_tfrecords import images
from tf_image_classification.errors import DataError
from tf_image_classification.manifest import DEFAULT_TASK, ORIGINAL, SLIM, Shard, Split, Task

Contents = dict[str, Any]

_SLIM_LABEL = re.compile(r"image/class/(?:(?P<task>.+)/)?label")
_IMAGE = {SLIM: "image/encoded", ORIGINAL: "image_bytes"}
_READABLE = (b"\xff\xd8\xff", b"\x89PNG")
_MOST_CLASSES = 100_000  # more distinct values than that are no classes


def label_prefix(task: str, tasks: int) -> str:
    """What the names of a task's label features begin with, of so many tasks."""
    return "image/class/" if tasks == 1 else f"image/class/{task}/"


def inspect(path: str, looks: int) -> Contents:
    """Reads and checks one TFRecord file: CRCs, the same features in all records, one label per task, decodable images.

    Args:
        path: local or gs://.
        looks: how many thumbnails to make, of the first records.

    Returns:
        `path`, `examples`, `bytes`, `crc32c`, `compression`, `schema` and `labels`: feature name -> `counts`, pairs of value and number
        of examples, and `texts`, pairs of class id and name; `looks`: pairs of the first label and a JPEG in base64.

    Raises:
        DataError: a record cannot be used; names it.
    """
    with storage.temporary_dir() as folder:
        local = storage.fetch(path, folder)
        schema, counts, texts, thumbnails, examples = SLIM, dict[str, Counter[float]](), dict[str, dict[int, str]](), [], 0
        for record in tfrecord.read(local):
            try:
                features = tfrecord.parse_example(record)
                schema, names = _layout(features)
                if examples == 0:
                    counts, texts = {name: Counter() for name in names}, {name: {} for name in names}
                elif counts.keys() != set(names):
                    raise ValueError(f"its labels are {', '.join(names)}, those of the first record {', '.join(counts)}")
                data = _image_of(features, schema)
                for name in names:
                    label = _label_of(features, name)
                    if len(counts[name]) < _MOST_CLASSES:
                        counts[name][label] += 1
                    _note_text(features, name, int(label), texts[name])
                if examples < looks:
                    thumbnails.append([features[names[0]][0], base64.b64encode(images.thumbnail(data)).decode()])
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
            "labels": {name: {"counts": sorted(counts[name].items()), "texts": sorted(texts[name].items())} for name in counts},
            "looks": thumbnails,
        }


def _layout(features: tfrecord.Features) -> tuple[str, list[str]]:
    if _IMAGE[SLIM] in features:
        schema, names = SLIM, [name for name in features if _SLIM_LABEL.fullmatch(name)]
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


def tasks_of(contents: Sequence[Contents], labels: tuple[str, ...] | None) -> tuple[Task, ...]:
    """What TFRecord files are labelled with.

    Args:
        contents: of the files, as `inspect` tells it.
        labels: class names by id, of a labels file; None takes the texts beside the ids, else the ids themselves.

    Raises:
        DataError: the files differ in schema or labels, or the ids do not fit the labels.
    """
    layouts = {(file["schema"], tuple(sorted(file["labels"]))): file["path"] for file in contents if file["examples"]}
    if len(layouts) != 1:
        raise DataError(
            "The TFRecords do not hold the same features" if layouts else "The TFRecords hold no examples",
            received="; ".join(f"{path}: {', '.join(features)}" for (_, features), path in layouts.items()) or None,
            expected="the same schema and labels in all files",
        )
    (schema, features), _ = layouts.popitem()
    if labels and len(features) > 1:
        raise DataError(
            "A labels file names the classes of one task", received=f"TFRecords with {', '.join(features)}", expected="one label"
        )
    tasks = tuple(
        Task(_task_name(schema, feature, len(features)), labels or _labels_of(contents, feature), feature) for feature in features
    )
    check_labels(contents, tasks)
    return tasks


def fit(contents: Sequence[Contents], tasks: Sequence[Task]) -> tuple[Task, ...]:
    """`tasks` as TFRecord files hold them: with the files' feature names.

    Raises:
        DataError: the files are labelled with something else.
    """
    found = {task.name: task for task in tasks_of(contents, None)}
    if found.keys() != {task.name for task in tasks}:
        raise DataError(
            "The TFRecords are labelled with something else", received=", ".join(found), expected=", ".join(task.name for task in tasks)
        )
    fitted = tuple(Task(task.name, task.labels, found[task.name].feature) for task in tasks)
    check_labels(contents, fitted)
    return fitted


def check_labels(contents: Sequence[Contents], tasks: Sequence[Task]) -> None:
    """Checks that every class id has a name, and the one that stands beside it in the records.

    Raises:
        DataError: otherwise.
    """
    for file in contents:
        for task in tasks:
            if not (file["examples"] and task.labels):
                continue
            label = file["labels"][task.feature]
            for value, _ in label["counts"]:
                if value != int(value) or not 0 <= value < len(task.labels):
                    raise DataError(
                        f"{file['path']} holds a label that is not in labels",
                        received=f"{task.feature} {value:g}",
                        expected=f"a class id from 0 to {len(task.labels) - 1}",
                    )
            for class_id, text in label["texts"]:
                if task.labels[class_id] != text:
                    raise DataError(
                        f"{file['path']} has other class names than the labels",
                        received=f"{text} for class {class_id}",
                        expected=task.labels[class_id],
                    )


def split_of(contents: Sequence[Contents], tasks: Sequence[Task]) -> Split:
    """The split that consists of TFRecord files.

    Raises:
        DataError: some of the files are compressed and some are not, or there are no examples.
    """
    compressions = {file["compression"]: file["path"] for file in contents}
    if len(compressions) > 1:
        raise DataError(
            "Some of the TFRecords are compressed, some are not", received=", ".join(compressions.values()), expected="all or none"
        )
    counts: dict[str, Counter[str]] = {task.name: Counter() for task in tasks}
    for file in contents:
        for task in tasks:
            if file["examples"] and task.labels:
                counts[task.name].update({task.labels[int(value)]: number for value, number in file["labels"][task.feature]["counts"]})
    shards = tuple(Shard(file["path"], file["examples"], file["bytes"], file["crc32c"]) for file in contents)
    examples = sum(shard.examples for shard in shards)
    if not examples:
        raise DataError(
            "The TFRecords hold no examples", received=", ".join(shard.path for shard in shards[:5]), expected="at least one example"
        )
    class_counts = {task.name: {label: counts[task.name][label] for label in task.labels} for task in tasks}
    return Split(shards, next(file["schema"] for file in contents if file["examples"]), next(iter(compressions)), examples, 0, class_counts)


def _task_name(schema: str, feature: str, features: int) -> str:
    if features == 1:
        return DEFAULT_TASK
    match = _SLIM_LABEL.fullmatch(feature) if schema == SLIM else None
    return (match["task"] or DEFAULT_TASK) if match else feature


def _labels_of(contents: Sequence[Contents], feature: str) -> tuple[str, ...]:
    """Class names from the texts beside the ids, else the ids; none if the values are no ids (a regression)."""
    values = {value for file in contents if file["examples"] for value, _ in file["labels"][feature]["counts"]}
    if len(values) >= _MOST_CLASSES or any(value != int(value) for value in values):
        return ()
    if min(values) < 0:
        raise DataError("The TFRecords hold examples without a label", received=f"{feature} {min(values):g}", expected="class ids from 0")
    if max(values) >= _MOST_CLASSES:
        return ()
    texts: dict[int, str] = {}
    for file in contents:
        for class_id, text in file["labels"][feature]["texts"] if file["examples"] else ():
            texts.setdefault(class_id, text)
    names = tuple(texts.get(class_id, str(class_id)) for class_id in range(int(max(values)) + 1))
    if len(set(names)) < len(names):
        raise DataError("The TFRecords give two classes the same name", received=", ".join(names[:20]), hint="Give a --labels_file.")
    return names
