"""Warm start: initial values for a model's variables out of a pretrained checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tf_image_classification import nets, storage
from tf_image_classification.checkpoints import locate, scopes
from tf_image_classification.checkpoints.reader import OBJECT_CHECKPOINT, Weights, read
from tf_image_classification.errors import CheckpointError, abridged, did_you_mean

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
    """

    path: str
    kind: str
    loaded: list[str]
    excluded: list[str]
    missing: list[str]
    unused: list[str]
    sizes: Mapping[str, int]

    def table(self) -> str:
        """A table in plain text: for each scope, how many variables (and values) were loaded, excluded and missing.

        Columns without a variable are left out. A last line names what the checkpoint has besides.
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
        if self.unused:
            lines.append(f"only in the checkpoint: {len(self.unused)} ({scopes.summarize(self.unused)})")
        return "\n".join(lines)

    def _cell(self, names: list[str]) -> str:
        return f"{len(names)} ({sum(self.sizes[name] for name in names):,})" if names else "-"


def warm_start(model: keras.Model, path: str, exclude_scopes: str | None) -> WarmStartReport:
    """Assigns to the model's variables the values that a checkpoint has for them; changes `model`, or raises before.

    A variable of the checkpoint belongs to the model's variable of the same name: slim's, Keras's path, or layer name
    and index in a Keras file. If no name matches in a checkpoint of Keras, they are matched by the model's structure:
    Keras numbers unnamed layers within a process, so that the same model can have other names.

    Args:
        path: see `locate.locate`.
        exclude_scopes: comma-separated plain prefixes (not regular expressions) of the names of variables that keep
            their initial values.

    Raises:
        CheckpointError: the checkpoint is not found or damaged, a variable has another shape in it, or nothing in it
            matches the model.
    """
    variables = nets.scoped_names(model)
    prefixes = tuple(scopes.parse_scopes(exclude_scopes))
    with read(path) as weights:
        sources = _match_by_name(model, variables, weights) or _match_by_structure(model, variables, weights)
        included = [name for name in variables if not name.startswith(prefixes)]
        used = set(sources.values())
        report = WarmStartReport(
            path=weights.path,
            kind=weights.kind,
            loaded=[name for name in included if name in sources],
            excluded=[name for name in variables if name.startswith(prefixes)],
            missing=[name for name in included if name not in sources],
            unused=[name for name in weights if name not in used],
            sizes={name: int(np.prod(variable.shape)) for name, variable in variables.items()},
        )
        _warn_of_unmatched(prefixes, [*variables, *weights])
        if not report.loaded:
            raise _nothing_loaded(report, weights)
        shapes = {name: (weights.shapes[sources[name]], tuple(variables[name].shape)) for name in report.loaded}
        if differing := {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}:
            raise _other_shapes(differing)
        for name in report.loaded:
            variables[name].assign(weights[sources[name]])
    if report.missing:
        _log.warning(
            "%d variables are not in %s and keep their initial values: %s",
            len(report.missing),
            report.path,
            abridged(report.missing),
        )
    return report


def _match_by_name(model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights) -> dict[str, str]:
    """Name of a model's variable -> its name in the checkpoint, for those that are in it."""
    names_in_keras_file = {}
    for layer in model._flatten_layers():
        own = layer._trainable_variables + layer._non_trainable_variables
        prefix = f"{layer.name}/vars"
        # Keras's files number a layer's variables: if their number differs, the same index may be another variable.
        if f"{prefix}/{len(own)}" not in weights.shapes and f"{prefix}/{len(own) - 1}" in weights.shapes:
            for index, variable in enumerate(own):
                names_in_keras_file[id(variable)] = f"{prefix}/{index}"
    sources = {}
    for name, variable in variables.items():
        for candidate in (name, variable.path, names_in_keras_file.get(id(variable))):
            if candidate in weights.shapes:
                sources[name] = candidate
                break
    return sources


def _match_by_structure(
    model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights
) -> dict[str, str]:
    """As `_match_by_name`, for a checkpoint of the same model with other layer names; empty when it is another model.

    The model is saved in the checkpoint's format: a variable of the same structure has the same storage key in both.
    """
    with storage.temporary_dir() as folder:
        if weights.kind == OBJECT_CHECKPOINT:
            own_path = tf.train.Checkpoint(model=model).write(os.path.join(folder, "own"))
        elif weights.kind in (locate.KERAS, locate.H5):
            own_path = os.path.join(folder, "own.weights.h5")
            model.save_weights(own_path)
        else:
            return {}
        by_storage_key = {key: name for name, key in weights.storage_keys.items()}
        with read(own_path) as own:
            sources = {}
            for name, own_name in _match_by_name(model, variables, own).items():
                sources[name] = by_storage_key.get(own.storage_keys[own_name], "")
    return sources if len(sources) == len(variables) and all(sources.values()) else {}


def _warn_of_unmatched(prefixes: Iterable[str], names: list[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            _log.warning(
                "--checkpoint_exclude_scopes: nothing in the model or the checkpoint starts with %s. %s",
                prefix,
                did_you_mean(prefix, {scopes.reported_scope(name) for name in names}),
            )


def _nothing_loaded(report: WarmStartReport, weights: Weights) -> CheckpointError:
    if report.excluded and not report.missing:
        return CheckpointError(
            "--checkpoint_exclude_scopes leaves nothing to load",
            received=", ".join(sorted({scopes.reported_scope(name) for name in report.excluded})),
            expected="prefixes of some of the variables, such as those of the head",
        )
    found = {_network_scope(name.replace(".", "/")) for name in weights}  # a Keras file has '.' in slim's scopes
    matching = []
    for network in nets.NETS.values():
        if any(_network_scope(head) in found for head in network.head_scopes if "/" in head):
            matching.append(network.name)
    return CheckpointError(
        f"Nothing in the checkpoint {report.path} matches the model",
        received=f"a {report.kind} with the scopes {scopes.summarize(weights)}",
        expected=f"variables under {', '.join(sorted(set(map(_network_scope, report.sizes))))}",
        hint=f"It matches --model_name {' or '.join(matching)}." if matching else "",
    )


def _other_shapes(differing: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> CheckpointError:
    """The error for variables (name -> shapes in checkpoint and model) that differ in shape."""
    name, (in_checkpoint, in_model) = next(iter(differing.items()))
    others = f", and so have {len(differing) - 1} others" if len(differing) > 1 else ""
    to_exclude = tuple(dict.fromkeys(variable.rpartition("/")[0] for variable in differing))
    for network in nets.NETS.values():
        if all(variable.startswith(network.head_scopes) for variable in differing):
            to_exclude = network.head_scopes
            break
    return CheckpointError(
        f"{name} has another shape in the checkpoint{others}",
        received=f"{list(in_checkpoint)} in the checkpoint",
        expected=f"{list(in_model)}, as in the model",
        hint=f"To train it from its initial values, give --checkpoint_exclude_scopes {','.join(to_exclude)}",
    )


def _network_scope(name: str) -> str:
    """The first part of a variable's name: the scope of the whole network in slim's names."""
    return name.partition("/")[0]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
