"""Scopes of variables: parsed from flags, matched by --trainable_scopes, and summarised for reports."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

import keras

from tf_image_classification.errors import FlagError, did_you_mean
from tf_image_classification.nets import scoped_names

_log = logging.getLogger(__name__)


def parse_scopes(scopes: str | None) -> list[str]:
    """The items of a comma-separated flag, without surrounding blanks and empty items."""
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def reported_scope(name: str) -> str:
    """The scope under which reports count a variable: the first two parts of its name, without its last one.

    For example InceptionV3/Mixed_5b/Branch_0/Conv2d_0a_1x1/weights -> InceptionV3/Mixed_5b.
    """
    return "/".join(name.split("/")[:-1][:2]) or name


def summarize(names: Iterable[str], max_scopes: int = 8) -> str:
    """The scopes of variables in one line, for example `Small/Conv2d_1_3x3, Small/Logits`; 'none' of no variables."""
    found = list(dict.fromkeys(map(reported_scope, names)))
    listed = ", ".join(found[:max_scopes])
    if len(found) > max_scopes:
        listed += f" and {len(found) - max_scopes} more"
    return listed or "none"


def trainable_variables(model: keras.Model, trainable_scopes: str | None) -> list[keras.Variable]:
    """The variables that training updates.

    The other variables keep their values; --batch_norm decides the mode in which their layers compute.

    Variables of a layer that the model has frozen (`layer.trainable = False`) are never selected; a warning names those
    that a scope matches.

    Args:
        trainable_scopes: comma-separated regular expressions, each matched from the start of a name of
            `nets.scoped_names`, without a word boundary: `Net/block1` also selects `Net/block10/...`. None or '':
            every trainable variable.

    Returns:
        Each selected variable once, in the order of the scopes.

    Raises:
        FlagError: nothing is selected, or a scope is not a valid regular expression.
    """
    all_names = scoped_names(model)
    names = {name: variable for name, variable in all_names.items() if variable.trainable}
    scopes = parse_scopes(trainable_scopes)
    if not scopes:
        return list(names.values())
    selected: dict[str, keras.Variable] = {}
    matching_frozen: list[str] = []
    frozen = _frozen(model, all_names)
    for scope in scopes:
        try:
            selected.update({name: variable for name, variable in names.items() if re.match(scope, name)})
            matching_frozen += [name for name in frozen if re.match(scope, name)]
        except re.error as error:
            raise FlagError(
                f"A scope of --trainable_scopes is not a valid regular expression: {error}",
                received=scope,
                expected="regular expressions, separated by commas",
            ) from error
    if not selected:
        raise _nothing_selected(trainable_scopes, names, matching_frozen)
    if matching_frozen:
        _log.warning(
            "--trainable_scopes selects %d variables of layers that the model has frozen (layer.trainable is False); "
            "they are not trained: %s",
            len(set(matching_frozen)),
            summarize(matching_frozen),
        )
    return list(selected.values())


def _frozen(model: keras.Model, names: Mapping[str, keras.Variable]) -> list[str]:
    """Names of the variables that are trained unless their layer is frozen, and whose layer is."""
    by_nature = {id(variable) for layer in model._flatten_layers() for variable in layer._trainable_variables}
    return [name for name, variable in names.items() if id(variable) in by_nature and not variable.trainable]


def _nothing_selected(trainable_scopes: str | None, names: Iterable[str], frozen: list[str]) -> FlagError:
    if frozen:
        return FlagError(
            "No variables to optimize: --trainable_scopes matches only layers that the model has frozen",
            received=f"{trainable_scopes}, which matches {summarize(frozen)}",
            expected=f"scopes such as {summarize(names)}" if list(names) else "layers with layer.trainable = True",
            hint="Set layer.trainable = True for them in model_fn, or leave them out.",
        )
    return FlagError(
        "No variables to optimize: --trainable_scopes matches the start of no trainable variable's name",
        received=trainable_scopes,
        expected=f"scopes such as {summarize(names)}",
        hint=did_you_mean(parse_scopes(trainable_scopes)[0], {reported_scope(name) for name in names}, cutoff=0.5),
    )
