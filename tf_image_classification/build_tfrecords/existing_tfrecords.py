"""TFRecords given as metadata, seen together: their tasks, their class names, and the split that they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tf_image_classification import progress, storage
from tf_image_classification.build_tfrecords import check_tfrecords, local
from tf_image_classification.build_tfrecords.check_tfrecords import MAX_CLASSES
from tf_image_classification.build_tfrecords.worker_messages import Contents, RecordsJob
from tf_image_classification.data.manifest import EVAL, TRAIN, Shard, Split, Task
from tf_image_classification.data.sources import RecordSource, Source
from tf_image_classification.data.tasks import task_name
from tf_image_classification.errors import DataError

_FEW_BYTES = 10 * 2**20  # below, starting processes takes longer than the work
_NUM_THUMBNAILS = 8  # per file


def record_sources(expanded: Mapping[str, Sequence[Source]]) -> dict[str, list[RecordSource]]:
    """The splits whose metadata names TFRecords, with their sources.

    Args:
        expanded: split -> sources, of images too.
    """
    found = {}
    for split, sources in expanded.items():
        if of_records := [source for source in sources if isinstance(source, RecordSource)]:
            found[split] = of_records
    return found


def check_files(
    sources: Mapping[str, Sequence[RecordSource]], held_out: bool, workers: int
) -> dict[str, list[Contents]]:
    """Checks TFRecord files.

    Args:
        sources: split -> sources.
        held_out: no metadata names the evaluation split: the training sources must have one.
        workers: processes.

    Returns:
        Split -> what its files hold.

    Raises:
        DataError: a file cannot be used, or TFRecords would have to be split.
    """
    jobs = {split: _jobs(sources[split], split) for split in sources}
    if TRAIN in sources and held_out:
        if not all(source.has_splits for source in sources[TRAIN]):
            raise DataError(
                "TFRecords cannot be split for training and evaluation",
                received=f"--train_metadata {sources[TRAIN][0].path} without --eval_metadata",
                hint="Give the TFRecords to evaluate on as --eval_metadata.",
            )
        jobs[EVAL] = _jobs(sources[TRAIN], EVAL)
    contents: dict[str, list[Contents]] = {split: [] for split in jobs}
    in_order = [job for split in jobs for job in jobs[split]]
    if not in_order:
        return contents
    few = sum(_size(job.path) for job in in_order) < _FEW_BYTES
    workers = 1 if few else min(workers, len(in_order))
    with progress.track("Checking TFRecords", len(in_order), "files") as advance:
        for job, file in local.run_jobs(check_tfrecords.check_file, in_order, workers):
            if job.crc32c not in (None, file.crc32c):
                raise DataError(
                    "A shard has changed since it was built",
                    received=f"{job.path} with CRC-32C {file.crc32c}",
                    expected=f"{job.crc32c}, as its manifest records",
                    hint="Build the data set again.",
                )
            contents[job.split].append(file)
            advance(1)
    return contents


def recorded_labels(sources: Mapping[str, Sequence[RecordSource]]) -> tuple[str, ...] | None:
    """The class names that the first source which records its tasks gives, if it has a single task."""
    recorded = [tasks for split in sources for source in sources[split] if (tasks := source.tasks())]
    return recorded[0][0].labels or None if recorded and len(recorded[0]) == 1 else None


def tasks_of(contents: Sequence[Contents], labels: tuple[str, ...] | None) -> tuple[Task, ...]:
    """What TFRecord files are labelled with.

    Args:
        contents: of the files.
        labels: class names by id, of a labels file; None takes the texts beside the ids, else the ids themselves.

    Raises:
        DataError: the files differ in schema or labels, or the ids do not fit the labels.
    """
    layouts = {(file.schema, tuple(sorted(file.labels))): file.path for file in contents if file.examples}
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
        Task(task_name(feature, schema, len(features)), labels or _labels_of(contents, feature), feature)
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
    """Checks that every class id has a name, the same as beside it in the records.

    Raises:
        DataError: otherwise.
    """
    for file in contents:
        for task in tasks:
            if not (file.examples and task.labels):
                continue
            label = file.labels[task.feature]
            for value in label.counts:
                if value != int(value) or not 0 <= value < len(task.labels):
                    raise DataError(
                        f"{file.path} holds a label that is not in labels",
                        received=f"{task.feature} {value:g}",
                        expected=f"a class id from 0 to {len(task.labels) - 1}",
                    )
            for class_id, text in label.texts.items():
                if task.labels[class_id] != text:
                    raise DataError(
                        f"{file.path} has other class names than the labels",
                        received=f"{text} for class {class_id}",
                        expected=task.labels[class_id],
                    )


def as_split(contents: Sequence[Contents], tasks: Sequence[Task]) -> Split:
    """The split that consists of TFRecord files.

    Raises:
        DataError: some of the files are compressed and some are not, or there are no examples.
    """
    compressions = {file.compression: file.path for file in contents}
    if len(compressions) > 1:
        raise DataError(
            "Some of the TFRecords are compressed, some are not",
            received=", ".join(compressions.values()),
            expected="all or none",
        )
    counts: dict[str, Counter[str]] = {task.name: Counter() for task in tasks}
    for file in contents:
        for task in tasks:
            if file.examples and task.labels:
                for value, number in file.labels[task.feature].counts.items():
                    counts[task.name][task.labels[int(value)]] += number
    shards = tuple(Shard(file.path, file.examples, file.bytes, file.crc32c) for file in contents)
    examples = sum(shard.examples for shard in shards)
    if not examples:
        raise DataError(
            "The TFRecords hold no examples",
            received=", ".join(shard.path for shard in shards[:5]),
            expected="at least one example",
        )
    class_counts = {}
    for task in tasks:
        of_task = counts[task.name]
        class_counts[task.name] = {label: of_task[label] for label in task.labels}
    schema = next(file.schema for file in contents if file.examples)
    return Split(shards, schema, next(iter(compressions)), images=examples, class_counts=class_counts)


def thumbnails(contents: Sequence[Contents], tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """Class names of one task and thumbnails, of the first records of each file."""
    by_feature = {task.feature: task for task in tasks}
    for file in contents:
        for feature, value, thumbnail in file.thumbnails:
            if labels := by_feature[feature].labels:
                yield labels[int(value)], thumbnail


def _jobs(sources: Sequence[RecordSource], split: str) -> list[RecordsJob]:
    files = [file for source in sources for file in source.files(split)]
    return [RecordsJob(split, file.path, file.crc32c, _NUM_THUMBNAILS) for file in files]


def _size(path: str) -> int:
    try:
        return storage.stat(path).size
    except FileNotFoundError:
        raise DataError("A shard is missing", received=path, hint="Build the data set again.") from None


def _labels_of(contents: Sequence[Contents], feature: str) -> tuple[str, ...]:
    """Class names from the texts beside the ids, else the ids; none if the values are no ids (a regression)."""
    values = {value for file in contents if file.examples for value in file.labels[feature].counts}
    if len(values) >= MAX_CLASSES or any(value != int(value) for value in values):
        return ()
    if min(values) < 0:
        raise DataError(
            "The TFRecords hold examples without a label",
            received=f"{feature} {min(values):g}",
            expected="class ids from 0",
        )
    if max(values) >= MAX_CLASSES:
        return ()
    texts: dict[int, str] = {}
    for file in contents:
        for class_id, text in file.labels[feature].texts.items() if file.examples else ():
            texts.setdefault(class_id, text)
    names = tuple(texts.get(class_id, str(class_id)) for class_id in range(int(max(values)) + 1))
    if len(set(names)) < len(names):
        raise DataError(
            "The TFRecords give two classes the same name", received=", ".join(names[:20]), hint="Give a --labels_file."
        )
    return names
