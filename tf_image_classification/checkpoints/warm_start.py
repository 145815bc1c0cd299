"""Warm start: initial values for a model's variables out of a pretrained checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import keras
import numpy as np

from tf_image_classification import nets
from tf_image_classification.checkpoints import class_columns, matching, scopes
from tf_image_classification.checkpoints.class_axes import ClassAxis, class_axes
from tf_image_classification.checkpoints.class_columns import ClassMatch, HeadPlan
from tf_image_classification.checkpoints.class_names import ClassNames
from tf_image_classification.checkpoints.head import head_variables
from tf_image_classification.checkpoints.networks import networks_of
from tf_image_classification.checkpoints.reader import Weights, read
from tf_image_classification.errors import CheckpointError, EstimatorError, abridged, did_you_mean
from tf_image_classification.imagenet_weights import FILES

AUTO = "auto"  # in --checkpoint_exclude_scopes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    """What a warm start loaded. Variables have the names of `nets.scoped_names`.

    Attributes:
        path, kind: of the checkpoint, see `reader.Weights`.
        loaded: the model's variables that have got the checkpoint's values.
        excluded: those that --checkpoint_exclude_scopes kept at their initial values.
        missing: those that the checkpoint does not have; they keep their initial values.
        unused: the checkpoint's variables that the model does not have, by the checkpoint's names.
        sizes: number of values of each of the model's variables.
        classes: of each task whose head is loaded by the names of its classes.
    """

    path: str
    kind: str
    loaded: list[str]
    excluded: list[str]
    missing: list[str]
    unused: list[str]
    sizes: Mapping[str, int]
    classes: Sequence[ClassMatch] = ()

    def table(self) -> str:
        """A table in plain text: for each scope, how many variables (and values) were loaded, excluded and missing.

        Columns without a variable are left out. The lines after it say what became of the head's classes, and what the
        checkpoint has besides.
        """
        columns = {"loaded": self.loaded, "excluded": self.excluded, "not in checkpoint": self.missing}
        shown = {title: names for title, names in columns.items() if names}
        rows = [["scope", *shown]]
        for scope in dict.fromkeys(map(scopes.reported_scope, self.sizes)):
            row = [scope]
            for names in shown.values():
                row.append(self._cell([name for name in names if scopes.reported_scope(name) == scope]))
            rows.append(row)
        rows.append(["all", *map(self._cell, shown.values())])
        lines = _aligned(rows)
        for match in self.classes:
            lines.append(f"head{f' of {match.task}' if len(self.classes) > 1 else ''}: {match}")
        if self.unused:
            lines.append(f"only in the checkpoint: {len(self.unused)} ({scopes.summarize(self.unused)})")
        return "\n".join(lines)

    def _cell(self, names: list[str]) -> str:
        return f"{len(names)} ({sum(self.sizes[name] for name in names):,})" if names else "-"


def warm_start(
    model: keras.Model,
    path: str,
    exclude_scopes: str | None,
    *,
    auto_exclude_head: bool = False,
    class_names: ClassNames | None = None,
) -> WarmStartReport:
    """Assigns to the model's variables the values that a checkpoint has for them; changes `model`, or raises before.

    `matching.match` says which variable of the checkpoint belongs to which of the model; the classes of the head are
    matched by their names where the checkpoint has them (`class_columns`), else by their ids, with a warning.

    Args:
        path: see `locate.locate`.
        exclude_scopes: comma-separated plain prefixes (not regular expressions) of the names of variables that keep
            their initial values; `auto` among them is the head, if one of its variables has another shape in a
            checkpoint without class names, or cannot be matched by them.
        auto_exclude_head: as if `auto` were among them.
        class_names: the model's; None: not known, classes are matched by their ids.

    Raises:
        CheckpointError: the checkpoint is not found or damaged, a variable has another shape in it, it is another
            built-in network's, nothing in it matches the model, or its head is of other classes and cannot be matched
            by their names.
        EstimatorError: `auto`, and the model's head is not known.
    """
    variables = nets.scoped_names(model)
    given = scopes.parse_scopes(exclude_scopes)
    auto = auto_exclude_head or AUTO in given
    prefixes = tuple(prefix for prefix in given if prefix != AUTO)
    names = class_names or {}
    axes = class_axes(model, {task: len(labels) or 1 for task, labels in names.items()})
    head = _head(model, required=auto) | set(axes)
    with read(path) as weights:
        sources = matching.match(model, variables, weights, head)
        _warn_of_unmatched(prefixes, [*variables, *weights])
        excluded = {name for name in variables if name.startswith(prefixes)}
        to_load = {name: source for name, source in sources.items() if name not in excluded}
        if not head:
            class_columns.check_without_graph(names, variables, weights, to_load, excluded)
        plan = class_columns.plan(names, variables, axes, weights, to_load)
        differing = {name for name in to_load if _differs(variables[name], weights, sources[name])}
        differing -= plan.columns.keys() | plan.new
        if auto and head & (differing | plan.unknown):
            excluded |= head
            _log_excluded(head, differing)
        elif plan.unknown:
            raise class_columns.unknown_columns(plan, weights)
        report = _report(variables, weights, sources, excluded, plan, axes)
        if not report.loaded:
            raise _nothing_loaded(report, weights)
        _check_network(model, weights)
        if unfit := [name for name in report.loaded if name in differing]:
            raise _other_shape(model, variables, weights, sources, unfit)
        for name in report.loaded:
            variables[name].assign(plan.values(name, variables[name], weights[sources[name]]))
        class_columns.warn_of_assumed_ids(names, variables, axes, weights, report.loaded)
    _warn_of_missing(report)
    return report


def _report(
    variables: Mapping[str, keras.Variable],
    weights: Weights,
    sources: Mapping[str, str],
    excluded: Set[str],
    plan: HeadPlan,
    axes: Mapping[str, ClassAxis],
) -> WarmStartReport:
    included = [name for name in variables if name not in excluded]
    in_checkpoint = {name: source for name, source in sources.items() if name not in plan.new}
    used = set(in_checkpoint.values())
    of_head = {axes[name].task for name in axes if name in sources and name not in excluded}
    return WarmStartReport(
        path=weights.path,
        kind=weights.kind,
        loaded=[name for name in included if name in in_checkpoint],
        excluded=[name for name in variables if name in excluded],
        missing=[name for name in included if name not in in_checkpoint],
        unused=[name for name in weights if name not in used],
        sizes={name: int(np.prod(variable.shape)) for name, variable in variables.items()},
        classes=[match for task, match in plan.matches.items() if task in of_head],
    )


def _differs(variable: keras.Variable, weights: Weights, source: str) -> bool:
    return weights.shapes[source] != tuple(variable.shape)


def _head(model: keras.Model, *, required: bool) -> Set[str]:
    """The names of the head's variables; none if they are not known and not required."""
    try:
        return set(head_variables(model))
    except EstimatorError:
        if required:
            raise
        return set()


def _check_network(model: keras.Model, weights: Weights) -> None:
    """Raises if the checkpoint is another built-in network's than the model, although it may fit it in part."""
    fitting = networks_of(weights)
    if model.name in nets.NETS and fitting and model.name not in fitting:
        raise CheckpointError(
            f"The checkpoint {weights.path} is of another network",
            received=f"the weights of {' or '.join(fitting)}",
            expected=f"those of {model.name}",
            hint=f"It fits --model_name {' or '.join(fitting)}.",
        )


def _warn_of_unmatched(prefixes: Iterable[str], names: list[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            _log.warning(
                "--checkpoint_exclude_scopes: nothing in the model or the checkpoint starts with %s. %s",
                prefix,
                did_you_mean(prefix, {scopes.reported_scope(name) for name in names}),
            )


def _log_excluded(head: Set[str], differing: Set[str]) -> None:
    why = "has another shape in the checkpoint" if head & differing else "cannot be matched by the names of its classes"
    _log.info("The head %s and is not loaded: %s", why, abridged(sorted(head)))


def _warn_of_missing(report: WarmStartReport) -> None:
    if report.missing:
        _log.warning(
            "%d variables are not in %s and keep their initial values: %s",
            len(report.missing),
            report.path,
            abridged(report.missing),
        )


def _nothing_loaded(report: WarmStartReport, weights: Weights) -> CheckpointError:
    if report.excluded and not report.missing:
        return CheckpointError(
            "--checkpoint_exclude_scopes leaves nothing to load",
            received=", ".join(sorted({scopes.reported_scope(name) for name in report.excluded})),
            expected="prefixes of some of the variables, such as those of the head",
        )
    fitting = networks_of(weights)
    return CheckpointError(
        f"Nothing in the checkpoint {report.path} matches the model",
        received=f"a {report.kind} with the scopes {scopes.summarize(weights)}",
        expected=f"variables under {abridged(sorted({name.partition('/')[0] for name in report.sizes}))}",
        hint=f"It fits --model_name {' or '.join(fitting)}." if fitting else "",
    )


def _other_shape(
    model: keras.Model,
    variables: Mapping[str, keras.Variable],
    weights: Weights,
    sources: Mapping[str, str],
    differing: list[str],
) -> CheckpointError:
    """The error for variables that differ in shape."""
    name = differing[0]
    others = f", and so have {len(differing) - 1} others" if len(differing) > 1 else ""
    to_exclude = tuple(dict.fromkeys(variable.rpartition("/")[0] for variable in differing))
    for scopes_of_head in (network.head_scopes for network in nets.NETS.values()):
        if all(variable.startswith(scopes_of_head) for variable in differing):
            to_exclude = scopes_of_head
            break
    hint = f"To train it from its initial values, give --checkpoint_exclude_scopes {','.join(to_exclude)}."
    network = nets.NETS.get(model.name)
    if network and model.name in FILES and not name.startswith(network.head_scopes):
        hint += f" It depends on --image_size: the published weights of {model.name} are for {network.default_size}."
    return CheckpointError(
        f"{name} has another shape in the checkpoint{others}",
        received=f"{list(weights.shapes[sources[name]])} in the checkpoint",
        expected=f"{list(variables[name].shape)}, as in the model",
        hint=hint,
    )


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
