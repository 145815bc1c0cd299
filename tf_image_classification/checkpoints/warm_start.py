"""Starting from a pretrained checkpoint: which of its variables go into which of the model's."""

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
from tf_image_classification.errors import CheckpointError, did_you_mean

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What a warm start did.

    Attributes:
        path, kind: the checkpoint.
        loaded: the model's variables that have the checkpoint's values.
        excluded: those that --checkpoint_exclude_scopes left as they were.
        missing: those that the checkpoint does not have, left as they were.
        unused: what the checkpoint has besides.
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
        """Variables (and values) by scope: loaded, excluded, not in the checkpoint; below, what the checkpoint has
        besides."""
        columns = {"loaded": self.loaded, "excluded": self.excluded, "not in checkpoint": self.missing}
        shown = {title: names for title, names in columns.items() if names}
        groups = dict.fromkeys(map(scopes.group, self.sizes))
        rows = [["scope", *shown]]
        rows += [
            [scope, *(self._cell(name for name in names if scopes.group(name) == scope) for names in shown.values())]
            for scope in groups
        ]
        rows.append(["all", *(self._cell(names) for names in shown.values())])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            ).rstrip()
            for row in rows
        ]
        if self.unused:
            lines.append(f"in the checkpoint, not in the model: {len(self.unused)} ({scopes.summary(self.unused)})")
        return "\n".join(lines)

    def _cell(self, names: Iterable[str]) -> str:
        sizes = [self.sizes[name] for name in names]
        return f"{len(sizes)} ({sum(sizes):,})" if sizes else "-"


def warm_start(model: keras.Model, path: str, exclude_scopes: str | None) -> WarmStart:
    """Gives the model's variables the values that a checkpoint has under their names.

    Args:
        path: see `locate.locate`.
        exclude_scopes: comma-separated; a variable is left out when its name starts with one of them, as it stands.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, a variable has another shape there, or nothing in
            it fits.
    """
    variables = nets.scoped_names(model)
    prefixes = tuple(scopes.split(exclude_scopes))
    with read(path) as weights:
        places = _places(model, variables, weights) or _places_by_structure(model, variables, weights)
        excluded = [name for name in variables if name.startswith(prefixes)]
        wanted = [name for name in variables if not name.startswith(prefixes)]
        loaded = [name for name in wanted if name in places]
        missing = [name for name in wanted if name not in places]
        used = set(places.values())
        report = WarmStart(
            path=weights.path,
            kind=weights.kind,
            loaded=loaded,
            excluded=excluded,
            missing=missing,
            unused=[name for name in weights if name not in used],
            sizes={name: int(np.prod(variable.shape)) for name, variable in variables.items()},
        )
        _check_prefixes(prefixes, [*variables, *weights])
        if not loaded:
            raise _nothing_fits(report, weights)
        if differing := [name for name in loaded if weights.shapes[places[name]] != tuple(variables[name].shape)]:
            raise _other_shapes(
                {name: (weights.shapes[places[name]], tuple(variables[name].shape)) for name in differing}
            )
        for name in loaded:
            variables[name].assign(weights[places[name]])
    if missing:
        _log.warning(
            "%d variables are not in %s and keep their initial values: %s%s",
            len(missing),
            report.path,
            ", ".join(missing[:5]),
            ", ..." if len(missing) > 5 else "",
        )
    return report


def _places(model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights) -> dict[str, str]:
    """The model's variables that are in the checkpoint -> their names there."""
    files_names = {}
    for layer in model._flatten_layers():
        own = layer._trainable_variables + layer._non_trainable_variables
        # Keras's files number a layer's variables: with another number of them the same index may be another variable.
        if (
            f"{layer.name}/vars/{len(own)}" not in weights.shapes
            and f"{layer.name}/vars/{len(own) - 1}" in weights.shapes
        ):
            files_names.update({id(variable): f"{layer.name}/vars/{index}" for index, variable in enumerate(own)})
    places = {}
    for name, variable in variables.items():
        for candidate in (name, variable.path, files_names.get(id(variable))):
            if candidate in weights.shapes:
                places[name] = candidate
                break
    return places


def _places_by_structure(
    model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights
) -> dict[str, str]:
    """As `_places`, for a checkpoint of the same model whose layers Keras numbered differently, as it does within one
    process."""
    with storage.temporary_dir() as folder:
        if weights.kind == OBJECT_CHECKPOINT:
            own = tf.train.Checkpoint(model=model).write(os.path.join(folder, "own"))
        elif weights.kind in (locate.KERAS, locate.H5):
            own = os.path.join(folder, "own.weights.h5")
            model.save_weights(own)
        else:
            return {}
        names = {place: name for name, place in weights.places.items()}
        with read(own) as mine:
            places = {
                name: names.get(mine.places[place], "") for name, place in _places(model, variables, mine).items()
            }
    return places if len(places) == len(variables) and all(places.values()) else {}


def _check_prefixes(prefixes: Iterable[str], names: list[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            _log.warning(
                "--checkpoint_exclude_scopes: nothing in the model or the checkpoint starts with %s. %s",
                prefix,
                did_you_mean(prefix, {scopes.group(name) for name in names}),
            )


def _nothing_fits(report: WarmStart, weights: Weights) -> CheckpointError:
    if report.excluded and not report.missing:
        return CheckpointError(
            "--checkpoint_exclude_scopes leaves nothing to load",
            received=", ".join(sorted({scopes.group(n) for n in report.excluded})),
        )
    found = {_network_scope(name.replace(".", "/")) for name in weights}  # '.': layers in a Keras file
    fitting = [
        network.name
        for network in nets.NETS.values()
        if any(_network_scope(head) in found for head in network.head_scopes if "/" in head)
    ]
    return CheckpointError(
        f"Nothing in the checkpoint {report.path} fits the model",
        received=f"a {report.kind} with the scopes {scopes.summary(weights)}",
        expected=f"variables under {', '.join(sorted({name.partition('/')[0] for name in report.sizes}))}",
        hint=f"It fits --model_name {' or '.join(fitting)}." if fitting else "",
    )


def _other_shapes(differing: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> CheckpointError:
    name, (theirs, ours) = next(iter(differing.items()))
    heads = [
        net.head_scopes
        for net in nets.NETS.values()
        if all(variable.startswith(net.head_scopes) for variable in differing)
    ]
    layers = heads[0] if heads else tuple(dict.fromkeys(variable.rpartition("/")[0] for variable in differing))
    return CheckpointError(
        f"{name} has another shape in the checkpoint"
        + (f", and so have {len(differing) - 1} others" if len(differing) > 1 else ""),
        received=f"{list(theirs)} in the checkpoint",
        expected=f"{list(ours)}, as in the model",
        hint=f"To leave it out, and train it anew, give --checkpoint_exclude_scopes {','.join(layers)}",
    )


def _network_scope(name: str) -> str:
    """The first part of a variable's name: that of the whole network where names have slim's form."""
    return name.partition("/")[0]
