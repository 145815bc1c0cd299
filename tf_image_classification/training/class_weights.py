"""--class_weights: how much an example of each class counts in the loss."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from types import CodeType

from tf_image_classification.data.manifest import TRAIN, Manifest
from tf_image_classification.errors import DataError, FlagError, abridged
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.flags import Flags

_log = logging.getLogger(__name__)


def class_weights(spec: EstimatorSpec, data: Manifest, flags: Flags) -> dict[str, tuple[float, ...]] | None:
    """The weights of the classes of each task that is a classification; logs them.

    Args:
        data: with the spec's tasks.
        flags: with `class_weights`.

    Returns:
        Task name -> a weight per class id, see `balanced`; None without --class_weights.

    Raises:
        FlagError: there is no classification.
        DataError: the data set does not record how many examples its classes have.
    """
    if flags.class_weights is None:
        return None
    tasks = [task for task in data.tasks if task.labels]
    if not tasks:
        raise FlagError(
            "--class_weights weights the classes of a classification",
            received=f"a regression of {', '.join(task.name for task in data.tasks)}",
            expected="class_dict with a task whose 'one-hot' is True",
        )
    weights = {}
    for task in tasks:
        counts = data.splits[TRAIN].class_counts.get(task.name)
        if not counts or not any(counts.values()):
            raise DataError(
                f"--class_weights needs the number of examples of each class of {task.name}",
                received="a manifest without class_counts of the training split",
                hint="Build the data set again.",
            )
        weights[task.name] = balanced([counts.get(label, 0) for label in task.labels])
        in_words = [f"{label} {weight:.3g}" for label, weight in zip(task.labels, weights[task.name], strict=True)]
        _log.info("Class weights of %s: %s", task.name, abridged(in_words, 20))
    if not _uses_class_weights(spec):
        _log.warning(
            "--class_weights has no effect: loss_fn of %s does not use self.class_weights", type(spec).__name__
        )
    return weights


def balanced(counts: list[int]) -> tuple[float, ...]:
    """Weights with which every class counts the same: examples / (classes * examples of the class).

    This is scikit-learn's class_weight="balanced". Over all examples the weights' mean is 1.

    Args:
        counts: examples of each class. A class without any is none of `classes`, and its weight is 0.
    """
    classes = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (classes * count) if count else 0.0 for count in counts)


def _uses_class_weights(spec: EstimatorSpec) -> bool:
    """Whether the spec has the inherited loss_fn, or one that calls it, or methods of its own that read the weights."""
    if type(spec).loss_fn is EstimatorSpec.loss_fn:
        return True
    own = type(spec).__mro__[: type(spec).__mro__.index(EstimatorSpec)]
    methods = {name: method for one in reversed(own) for name, method in _methods(one).items()}
    names = {name for method in methods.values() for name in _names(method)}
    return "class_weights" in names or ("loss_fn" in methods and "super" in _names(methods["loss_fn"]))


def _methods(one: type) -> Mapping[str, CodeType]:
    functions = {name: inspect.unwrap(value) for name, value in vars(one).items() if callable(value)}
    return {name: function.__code__ for name, function in functions.items() if inspect.isfunction(function)}


def _names(code: CodeType) -> Iterator[str]:
    """The names of attributes and globals that a function uses, also in functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
