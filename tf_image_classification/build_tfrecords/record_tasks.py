"""What TFRecords given as metadata are labelled with: their tasks, and where the names of the class ids come from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tf_image_classification.build_tfrecords.worker_messages import Contents
from tf_image_classification.data.class_names import MAX_CLASSES
from tf_image_classification.data.manifest import SLIM, Task
from tf_image_classification.data.sources import RecordSource
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES, is_slim_label, task_name, text_beside
from tf_image_classification.errors import DataError, abridged

_LABELS_FILE = "the labels file"
_IMAGES = "the classes of the training images"
_MODEL = "the model's classes"
_DATA_SET = "the data set's classes"
_OTHER_FILES = "the names that the other TFRecords give"

_log = logging.getLogger(__name__)


def recorded_tasks(sources: Mapping[str, Sequence[RecordSource]]) -> tuple[Task, ...]:
    """The tasks that the first source which records its tasks gives.

    Raises:
        DataError: another source records other class names.
    """
    recorded = [tasks for split in sources for source in sources[split] if (tasks := source.tasks())]
    for tasks in recorded[1:]:
        _check_recorded(recorded[0], tasks)
    return recorded[0] if recorded else ()


def tasks_of(
    contents: Sequence[Contents], labels: tuple[str, ...] | None, recorded: Sequence[Task], *, allow_missing: bool
) -> tuple[Task, ...]:
    """What TFRecord files are labelled with.

    Args:
        contents: of the files.
        labels: class names by id, of a labels file; None takes the recorded ones, those beside the ids, else the ids.
        recorded: tasks as the manifest of some of the files records them.
        allow_missing: accept ids without names that are fewer than the names of a list.

    Raises:
        DataError: the files differ in schema or labels, or the ids do not fit the labels.
    """
    schema, features = _layout_of(contents)
    if labels and len(features) > 1:
        raise DataError(
            "A labels file names the classes of one task",
            received=f"TFRecords with {', '.join(features)}",
            expected="one label",
        )
    by_feature = {task.feature: task.labels for task in recorded}
    tasks = []
    for feature in features:
        names = labels or by_feature.get(feature) or _labels_of(contents, feature, allow_missing)
        tasks.append(Task(task_name(feature, schema, len(features)), names, feature))
    check_labels(contents, tasks)
    for task in tasks:
        if labels:
            _announce_list(contents, task, _LABELS_FILE)
        elif by_feature.get(task.feature):
            _check_listed(_foreign(contents), task, _DATA_SET, allow_missing)
        elif _has_texts(contents, task):
            _check_listed(contents, task, _OTHER_FILES, allow_missing)
            _announce_own(contents, task)
        else:
            _announce_own(contents, task)
    return tuple(tasks)


def of_training(
    contents: Sequence[Contents], tasks: Sequence[Task], recorded: Sequence[Task], *, allow_missing: bool
) -> tuple[Task, ...]:
    """The tasks of training images as TFRecord files hold them: with the files' feature names.

    Args:
        contents, recorded, allow_missing: see `tasks_of`.

    Raises:
        DataError: the files are labelled with something else, or have other class names or ids.
    """
    fitted = _with_features(contents, tasks)
    _check_recorded(fitted, recorded)
    check_labels(contents, fitted)
    for task in fitted:
        _check_listed(_foreign(contents), task, _IMAGES, allow_missing)
    return tuple(fitted)


def of_model(
    contents: Sequence[Contents], tasks: Sequence[Task], recorded: Sequence[Task], *, allow_missing: bool
) -> tuple[Task, ...]:
    """The tasks of a model as TFRecord files hold them: with the files' feature names, and their own class names where
    they have any. Only ids without names are taken for the model's.

    Args:
        contents, recorded, allow_missing: see `tasks_of`.

    Raises:
        DataError: the files are labelled with something else, or have ids without a name.
    """
    by_feature = {task.feature: task.labels for task in recorded}
    found = []
    for task in _with_features(contents, tasks):
        names, files, where = task.labels, contents, _MODEL
        if by_feature.get(task.feature):
            names, files, where = by_feature[task.feature], _foreign(contents), _DATA_SET
        elif _has_texts(contents, task):
            names, where = _labels_of(contents, task.feature, allow_missing), _OTHER_FILES
        fitted = replace(task, labels=names)
        check_labels(contents, [fitted])
        _check_listed(files, fitted, where, allow_missing)
        found.append(fitted)
    return tuple(found)


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
                        hint=_ids_from_1(contents, task),
                    )
            for class_id, text in label.texts.items():
                if task.labels[class_id] != text:
                    raise DataError(
                        f"{file.path} has other class names than the labels",
                        received=f"{text} for class {class_id}",
                        expected=task.labels[class_id],
                    )


def _layout_of(contents: Sequence[Contents]) -> tuple[str, tuple[str, ...]]:
    """Schema and label features of files, which all have the same."""
    layouts = {(file.schema, tuple(sorted(file.labels))): file.path for file in contents if file.examples}
    if len(layouts) != 1:
        raise DataError(
            "The TFRecords do not hold the same features" if layouts else "The TFRecords hold no examples",
            received="; ".join(f"{path}: {', '.join(features)}" for (_, features), path in layouts.items()) or None,
            expected="the same schema and labels in all files",
        )
    return next(iter(layouts))


def _with_features(contents: Sequence[Contents], tasks: Sequence[Task]) -> list[Task]:
    schema, features = _layout_of(contents)
    found = {task_name(feature, schema, len(features)): feature for feature in features}
    if found.keys() != {task.name for task in tasks}:
        raise DataError(
            "The TFRecords are labelled with something else",
            received=", ".join(found),
            expected=", ".join(task.name for task in tasks),
        )
    return [replace(task, feature=found[task.name]) for task in tasks]


def _ids(contents: Sequence[Contents], feature: str) -> list[float]:
    """The distinct values of a label feature, sorted."""
    return sorted({value for file in contents if file.examples for value in file.labels[feature].counts})


def _texts(contents: Sequence[Contents], feature: str) -> dict[int, str]:
    texts: dict[int, str] = {}
    for file in contents:
        for class_id, text in file.labels[feature].texts.items() if file.examples else ():
            texts.setdefault(class_id, text)
    return texts


def _labels_of(contents: Sequence[Contents], feature: str, allow_missing: bool) -> tuple[str, ...]:
    """Class names from the texts beside the ids, else the ids; none if the values are no ids (a regression)."""
    values = _ids(contents, feature)
    if any(value != int(value) for value in values):
        return ()
    if len(values) >= MAX_CLASSES or values[-1] >= MAX_CLASSES:
        _check_are_numbers(contents, feature, values[-1], allow_missing)
        return ()
    if values[0] < 0:
        raise DataError(
            "The TFRecords hold examples without a label",
            received=f"{feature} {values[0]:g}",
            expected="class ids from 0",
        )
    texts = _texts(contents, feature)
    names = tuple(texts.get(class_id, str(class_id)) for class_id in range(int(values[-1]) + 1))
    if len(set(names)) < len(names):
        counts = Counter(names)
        twice = sorted({name for name in texts.values() if counts[name] > 1})
        raise DataError(
            "The TFRecords give two classes the same name",
            received=abridged(twice, MAX_NAMED_CLASSES),
            hint="Give a --labels_file.",
        )
    return names


def _check_are_numbers(contents: Sequence[Contents], feature: str, largest: float, allow_missing: bool) -> None:
    """Checks that int64 values that are too large for class ids are meant to be predicted as numbers."""
    if allow_missing or not any(file.examples and file.schema == SLIM for file in contents):
        return
    raise DataError(
        "The TFRecords hold labels that are too large for class ids",
        received=f"{feature} {int(largest)}",
        expected=f"class ids from 0 to {MAX_CLASSES - 1:,}",
        hint="Number the classes from 0, instead of by hashes or other identifiers. If the labels are numbers to "
        "predict and no class ids, give --allow_missing_classes.",
    )


def _has_texts(contents: Sequence[Contents], task: Task) -> bool:
    """Whether class names are beside the ids in some of the files."""
    return any(file.labels[task.feature].texts for file in contents if file.examples)


def _foreign(contents: Sequence[Contents]) -> list[Contents]:
    """The files that no manifest lists: nothing but themselves can name their classes."""
    return [file for file in contents if not file.in_manifest]


def _nameless(contents: Sequence[Contents], task: Task) -> list[Contents]:
    """The files without class names beside the ids of a classification. Names that are the ids say nothing."""
    if not task.labels or task.holds_numbers:
        return []
    return [file for file in contents if file.examples and not file.labels[task.feature].texts]


def _announce_own(contents: Sequence[Contents], task: Task) -> None:
    """Warns of class ids that are their own names, because the records do not name their classes."""
    texts = _texts(contents, task.feature)
    nameless = [str(int(value)) for value in _ids(contents, task.feature) if int(value) not in texts]
    if task.labels and nameless:
        beside = f" (no {text_beside(task.feature)})" if is_slim_label(task.feature) else ""
        _log.warning(
            "The TFRecords have no names%s for %d class ids, which are taken for the names themselves: %s. A "
            "--labels_file names them",
            beside,
            len(nameless),
            abridged(nameless, MAX_NAMED_CLASSES),
        )


def _announce_list(contents: Sequence[Contents], task: Task, where: str) -> None:
    """Warns of class ids that are taken for positions in a list, because the records do not name their classes."""
    if _nameless(contents, task):
        mapping = [f"{class_id} = {label}" for class_id, label in enumerate(task.labels)]
        _log.warning(
            "The TFRecords do not name their classes: the ids of %s are taken for positions in %s, counted from 0: %s",
            task.feature,
            where,
            abridged(mapping, MAX_NAMED_CLASSES),
        )


def _check_listed(contents: Sequence[Contents], task: Task, where: str, allow_missing: bool) -> None:
    """Announces that ids without names are taken for positions in a list, and checks that there are as many."""
    if not (nameless := _nameless(contents, task)):
        return
    ids = _ids(nameless, task.feature)
    if len(ids) != len(task.labels) and not allow_missing:
        raise DataError(
            "The TFRecords do not name their classes, and have fewer of them than the list that would name them",
            received=f"{len(ids)} in {task.feature}: " + abridged([f"{value:g}" for value in ids], MAX_NAMED_CLASSES),
            expected=f"{len(task.labels)}, as {where}: {abridged(task.labels, MAX_NAMED_CLASSES)}",
            hint=(
                "If the ids are positions in that list, counted from 0, and some classes just have no example, give "
                "--allow_missing_classes. Else write the names beside the ids, as image/class/text."
            ),
        )
    _announce_list(contents, task, where)


def _check_recorded(tasks: Sequence[Task], recorded: Sequence[Task]) -> None:
    """Checks that the class names that a data set records are those of `tasks`, as far as both have any."""
    by_name = {task.name: task.labels for task in recorded}
    for task in tasks:
        for class_id, (label, other) in enumerate(zip(task.labels, by_name.get(task.name, ()), strict=False)):
            if label != other:
                raise DataError(
                    f"A data set has other class names for the ids of {task.name}",
                    received=f"{other} for class {class_id}",
                    expected=label,
                )


def _ids_from_1(contents: Sequence[Contents], task: Task) -> str:
    """A hint, where ids that are one too high begin at 1."""
    ids = _ids(contents, task.feature)
    if (ids[0], ids[-1]) == (1, len(task.labels)):
        return "The ids start at 1 (off by one): subtract 1 from them, or name class 0 too if it is a background class."
    return ""
