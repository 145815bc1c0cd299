"""TFRecords given as metadata, seen together: their tasks, their class names, and the split that they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tf_image_classification import progress, storage
from tf_image_classification.build_tfrecords import local
from tf_image_classification.build_tfrecords.records import MOST_CLASSES, SLIM_LABEL, Contents
from tf_image_classification.build_tfrecords.worker import Job
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import DEFAULT_TASK, EVAL, SLIM, TRAIN, Shard, Split, Task
from tf_image_classification.data.sources import TFRECORD, Source
from tf_image_classification.errors import DataError

_FEW_BYTES = 10 * 2**20  # below, starting processes takes longer than the work
_NUM_THUMBNAILS = 8  # thumbnails per file


def gather(expanded: Mapping[str, Sequence[Source]], workers: int) -> dict[str, list[Contents]]:
    """Checks the TFRecord files among the metadata.

    Args:
        expanded: split -> sources, of images too. Without `eval`, a built data set gives both of its sides.
        workers: processes.

    Returns:
        Split -> what its files hold, as records.inspect tells it.

    Raises:
        DataError: a file cannot be used, or the training side is to be split.
    """
    given = {side: some for side, some in expanded.items() if some[0].kind == TFRECORD}
    files = {side: [file for source in some for file in _files(source, side)] for side, some in given.items()}
    if TRAIN in given and EVAL not in expanded:
        if not all(source.is_built for source in given[TRAIN]):
            raise DataError(
                "TFRecords cannot be split into a training and an evaluation side",
                received=f"--train_metadata {given[TRAIN][0].path} without --eval_metadata",
                hint="Give the TFRecords of the evaluation side as --eval_metadata.",
            )
        files[EVAL] = [file for source in given[TRAIN] for file in _files(source, EVAL)]
    found: dict[str, list[Contents]] = {side: [] for side in files}
    jobs: list[Job] = [
        {"records": path, "num_thumbnails": _NUM_THUMBNAILS, "side": side, "crc32c": crc}
        for side in files
        for path, crc in files[side]
    ]
    if jobs:
        few = sum(_size(job["records"]) for job in jobs) < _FEW_BYTES
        with progress.track("Checking TFRecords", len(jobs), "files") as advance:
            for job, answer in local.run_jobs(jobs, 1 if few else min(workers, len(jobs))):
                if job["crc32c"] not in (None, answer["crc32c"]):
                    raise DataError(
                        "A shard has changed since it was built",
                        received=f"{job['records']} with CRC-32C {answer['crc32c']}",
                        expected=f"{job['crc32c']}, as its manifest says",
                        hint="Build the data set again.",
                    )
                found[job["side"]].append(answer)
                advance(1)
    return found


def built_labels(expanded: Mapping[str, Sequence[Source]]) -> tuple[str, ...] | None:
    """The class names of a data set that build_tfrecords made, if one of one task is among the metadata."""
    built = [manifest.read(source.path).tasks for some in expanded.values() for source in some if source.is_built]
    return built[0][0].labels or None if built and len(built[0]) == 1 else None


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
            "A labels file names the classes of one task",
            received=f"TFRecords with {', '.join(features)}",
            expected="one label",
        )
    tasks = tuple(
        Task(_task_name(schema, feature, len(features)), labels or _labels_of(contents, feature), feature)
        for feature in features
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
            "The TFRecords are labelled with something else",
            received=", ".join(found),
            expected=", ".join(task.name for task in tasks),
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
            "Some of the TFRecords are compressed, some are not",
            received=", ".join(compressions.values()),
            expected="all or none",
        )
    counts: dict[str, Counter[str]] = {task.name: Counter() for task in tasks}
    for file in contents:
        for task in tasks:
            if file["examples"] and task.labels:
                counts[task.name].update(
                    {task.labels[int(value)]: number for value, number in file["labels"][task.feature]["counts"]}
                )
    shards = tuple(Shard(file["path"], file["examples"], file["bytes"], file["crc32c"]) for file in contents)
    examples = sum(shard.examples for shard in shards)
    if not examples:
        raise DataError(
            "The TFRecords hold no examples",
            received=", ".join(shard.path for shard in shards[:5]),
            expected="at least one example",
        )
    class_counts = {task.name: {label: counts[task.name][label] for label in task.labels} for task in tasks}
    return Split(
        shards,
        next(file["schema"] for file in contents if file["examples"]),
        next(iter(compressions)),
        examples,
        0,
        class_counts,
    )


def thumbnails(contents: Sequence[Contents], tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """Class names of one task and thumbnails, of the first records of each file."""
    by_feature = {task.feature: task for task in tasks}
    for file in contents:
        for feature, value, thumbnail in file["thumbnails"]:
            if labels := by_feature[feature].labels:
                yield labels[int(value)], thumbnail


def _files(source: Source, side: str) -> list[tuple[str, str | None]]:
    """A source's files of one side, each with the CRC that its manifest gives, if it has one."""
    if not source.is_built:
        return [(path, None) for path in source.files]
    built = manifest.read(source.path)
    if side not in built.splits:
        raise DataError(
            f"The data set has no {side} side", received=source.path, hint=f"It has: {', '.join(built.splits)}."
        )
    return list(zip(built.shard_paths(side), [shard.crc32c for shard in built.splits[side].shards], strict=True))


def _size(path: str) -> int:
    try:
        return storage.stat(path).size
    except FileNotFoundError:
        raise DataError("A shard is missing", received=path, hint="Build the data set again.") from None


def _task_name(schema: str, feature: str, features: int) -> str:
    if features == 1:
        return DEFAULT_TASK
    match = SLIM_LABEL.fullmatch(feature) if schema == SLIM else None
    return (match["task"] or DEFAULT_TASK) if match else feature


def _labels_of(contents: Sequence[Contents], feature: str) -> tuple[str, ...]:
    """Class names from the texts beside the ids, else the ids; none if the values are no ids (a regression)."""
    values = {value for file in contents if file["examples"] for value, _ in file["labels"][feature]["counts"]}
    if len(values) >= MOST_CLASSES or any(value != int(value) for value in values):
        return ()
    if min(values) < 0:
        raise DataError(
            "The TFRecords hold examples without a label",
            received=f"{feature} {min(values):g}",
            expected="class ids from 0",
        )
    if max(values) >= MOST_CLASSES:
        return ()
    texts: dict[int, str] = {}
    for file in contents:
        for class_id, text in file["labels"][feature]["texts"] if file["examples"] else ():
            texts.setdefault(class_id, text)
    names = tuple(texts.get(class_id, str(class_id)) for class_id in range(int(max(values)) + 1))
    if len(set(names)) < len(names):
        raise DataError(
            "The TFRecords give two classes the same name", received=", ".join(names[:20]), hint="Give a --labels_file."
        )
    return names
