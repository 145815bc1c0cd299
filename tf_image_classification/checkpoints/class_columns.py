"""The head of a warm start: the columns of classes that stayed are the checkpoint's, found by the classes' names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import keras
import numpy as np

from tf_image_classification.checkpoints.class_axes import ClassAxis
from tf_image_classification.checkpoints.class_names import ClassNames, are_equal, numbered, paired_tasks
from tf_image_classification.checkpoints.reader import Weights
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES
from tf_image_classification.errors import CheckpointError, abridged

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassMatch:
    """The classes of a task in the model and in the checkpoint.

    Attributes:
        task: of the model.
        labels: class names in the model, by class id.
        stored: those in the checkpoint.
    """

    task: str
    labels: Sequence[str]
    stored: Sequence[str]

    @property
    def kept(self) -> list[str]:
        """The classes that both have, in the model's order."""
        return _in(self.labels, self.stored, True)

    @property
    def new(self) -> list[str]:
        """The model's classes that the checkpoint does not have."""
        return _in(self.labels, self.stored, False)

    @property
    def dropped(self) -> list[str]:
        """The checkpoint's classes that the model does not have."""
        return _in(self.stored, self.labels, False)

    @property
    def ids(self) -> dict[int, int]:
        """Id in the model -> id in the checkpoint, of the classes that both have."""
        stored = {label: index for index, label in enumerate(self.stored)}
        return {index: stored[label] for index, label in enumerate(self.labels) if label in stored}

    def columns(self, initial: np.ndarray, stored: np.ndarray, axis: int) -> np.ndarray:
        """The initial values of a variable, with the checkpoint's in the columns of the classes that stayed."""
        values = np.moveaxis(initial.copy(), axis, 0)
        values[list(self.ids)] = np.moveaxis(stored, axis, 0)[list(self.ids.values())]
        return np.moveaxis(values, 0, axis)

    def __str__(self) -> str:
        """For example `3 classes kept (1 under another id), 1 new: sky, 1 dropped: red`."""
        text = f"{len(self.kept)} classes kept"
        if moved := sum(own != stored for own, stored in self.ids.items()):
            text += f" ({moved} under another id)"
        for what, names in (("new", self.new), ("dropped", self.dropped)):
            if names:
                text += f", {len(names)} {what}: {abridged(names, MAX_NAMED_CLASSES)}"
        return text


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """What to load of a head. Variables have the names of `nets.scoped_names`.

    Attributes:
        matches: task -> its classes here and in the checkpoint, of each classification that the checkpoint has.
        columns: the variables that get some of the checkpoint's columns -> (their classes, the class axis).
        new: those that keep their initial values, because the checkpoint has none of their classes.
        unknown: those that cannot be loaded, because it is not known which of their values belong to which class.
    """

    matches: Mapping[str, ClassMatch] = field(default_factory=dict)
    columns: Mapping[str, tuple[ClassMatch, int]] = field(default_factory=dict)
    new: Set[str] = frozenset()
    unknown: Set[str] = frozenset()

    def values(self, name: str, variable: keras.Variable, stored: np.ndarray) -> np.ndarray:
        """What to assign to a variable that is loaded: the stored array, or the initial values with its columns."""
        if name not in self.columns:
            return stored
        match, axis = self.columns[name]
        return match.columns(variable.numpy(), stored, axis)


def plan(
    names: ClassNames,
    variables: Mapping[str, keras.Variable],
    axes: Mapping[str, ClassAxis],
    weights: Weights,
    sources: Mapping[str, str],
) -> HeadPlan:
    """Plans what to load of a head by the names of its classes; nothing where the checkpoint does not have them.

    Args:
        names: the model's class names.
        variables: the model's.
        axes: of the variables of its head, by `class_axes.class_axes`.
        weights: an open checkpoint.
        sources: name of a variable -> name of its value in the checkpoint.
    """
    stored = weights.class_names
    if stored is None:
        return HeadPlan()
    pairs = paired_tasks(names, stored)
    matches = {task: ClassMatch(task, names[task], stored[other]) for task, other in pairs.items() if names[task]}
    if are_equal(names, stored):
        return HeadPlan(matches)
    has_same_tasks = list(names) == list(stored) or len(pairs) == len(names) == len(stored) == 1
    columns, new, unknown = {}, set(), set()
    for name, (task, axis) in axes.items():
        if (source := sources.get(name)) is None:
            continue
        match = matches.get(task)
        if task and task not in pairs:
            new.add(name)
        elif not task or not (has_same_tasks or (_is_named_after(name, task) and _is_named_after(source, pairs[task]))):
            unknown.add(name)
        elif match is None or match.labels == match.stored:
            continue  # a number, or classes that have not changed: all of it is loaded
        elif axis is None:
            unknown.add(name)
        elif not match.kept:
            new.add(name)
        elif weights.shapes[source] == _with_size(variables[name].shape, axis, len(match.stored)):
            columns[name] = (match, axis)
    return HeadPlan(matches, columns, new, unknown)


def check_without_graph(
    names: ClassNames,
    variables: Mapping[str, keras.Variable],
    weights: Weights,
    sources: Mapping[str, str],
    excluded: Set[str],
) -> None:
    """Checks that a checkpoint has the classes of a model whose head cannot be found: no column of it can be moved.

    With other classes, what --checkpoint_exclude_scopes leaves out is taken for the head; a warning names what may be
    of it besides.

    Raises:
        CheckpointError: it has others, or the same under other ids, and nothing is left out.
    """
    if not names or weights.class_names is None or are_equal(names, weights.class_names):
        return
    if not excluded:
        raise CheckpointError(
            f"The checkpoint {weights.path} was trained on other classes, and the head of the model cannot be found",
            received=f"a checkpoint of {_described(weights.class_names)}",
            expected=f"one of {_described(names)}, or a model of Keras's functional API, keras.Model(inputs, outputs)",
            hint="Name the scopes of the head with --checkpoint_exclude_scopes: it is then trained from its initial "
            "values.",
        )
    if suspects := [name for name in sources if _may_have_classes(variables[name], names)]:
        _log.warning(
            "%s was trained on other classes, and the head of the model cannot be found: %s have as many columns as "
            "there are classes and are loaded as they are",
            weights.path,
            abridged(suspects),
        )


def unknown_columns(plan: HeadPlan, weights: Weights) -> CheckpointError:
    """The error for a head that cannot be matched by the names of its classes."""
    scopes = dict.fromkeys(name.rpartition("/")[0] for name in sorted(plan.unknown))
    return CheckpointError(
        f"The checkpoint {weights.path} was trained on other classes, and it is not known which values of "
        f"{', '.join(scopes)} belong to which class",
        received="; ".join(f"{match.task}: {match}" for match in plan.matches.values()) or "other tasks",
        expected="a last layer whose kernel and bias have one column for each class, such as keras.layers.Dense",
        hint=f"To train it from its initial values, give --checkpoint_exclude_scopes {','.join(scopes)}.",
    )


def warn_of_assumed_ids(
    names: ClassNames,
    variables: Mapping[str, keras.Variable],
    axes: Mapping[str, ClassAxis],
    weights: Weights,
    loaded: Sequence[str],
) -> None:
    """Warns of a head that was loaded by class ids because the checkpoint does not know its classes by name.

    Args:
        names: the model's class names.
        variables: the model's.
        axes: of the variables of its head; none if it cannot be found.
        weights: the open checkpoint.
        loaded: names of the variables that have got its values.
    """
    classes = {task: labels for task, labels in names.items() if labels}
    stored = weights.class_names or {}
    if weights.class_names is not None:  # class names that are numbers are ids, unless a folder is called so
        pairs = paired_tasks(names, stored)
        classes = {
            task: labels
            for task, labels in classes.items()
            if task in pairs and _are_numbers(labels) and _are_numbers(stored[pairs[task]])
        }
    head = [
        name for name in loaded if name in axes and (axes[name].task in classes or (classes and not axes[name].task))
    ]
    if not axes:
        head = [name for name in loaded if _may_have_classes(variables[name], classes)]
    if head:
        _log.warning(
            "%s %s: its class ids are assumed to mean the same as here (%s). If they do not, give "
            "--checkpoint_exclude_scopes %s",
            weights.path,
            "does not name its classes" if weights.class_names is None else "knows its classes by number only",
            _described(classes),
            ",".join(dict.fromkeys(name.rpartition("/")[0] for name in head)),
        )


def _may_have_classes(variable: keras.Variable, names: ClassNames) -> bool:
    """Whether the last axis of a variable is as long as a task has classes."""
    return any(tuple(variable.shape)[-1:] == (len(labels),) for labels in names.values())


def _described(names: ClassNames) -> str:
    """Classes with their ids, as part of a message: `0 blue, 1 green`, of several tasks `color: ...; shape: ...`."""
    described = {task: numbered(labels) if labels else "a number" for task, labels in names.items()}
    if len(described) == 1:
        return next(iter(described.values()))
    return "; ".join(f"{task}: {text}" for task, text in described.items())


def _are_numbers(labels: Sequence[str]) -> bool:
    return Task("", tuple(labels)).holds_numbers


def _with_size(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _in(names: Sequence[str], others: Sequence[str], is_in: bool) -> list[str]:
    known = set(others)
    return [name for name in names if (name in known) == is_in]


def _is_named_after(name: str, task: str) -> bool:
    """Whether the layer of a variable ends in a task's name, as in `Net/Logits/color/weights`.

    With other tasks than the checkpoint's, a layer that is matched by its number or its place may be another task's.
    """
    return bool(task) and re.sub(r"(/vars)?/[^/]*$", "", name).endswith(task)
