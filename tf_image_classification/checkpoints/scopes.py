"""Comma-separated scopes: which variables --trainable_scopes trains and --checkpoint_exclude_scopes leaves out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import keras

from tf_image_classification.errors import FlagError, did_you_mean
from tf_image_classification.nets import scoped_names


def split(scopes: str | None) -> list[str]:
    """The scopes of a flag, without blanks and empty items."""
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def group(name: str) -> str:
    """The scope under which a variable is listed: InceptionV3/Mixed_5b/Branch_0/Conv2d_0a_1x1/weights ->
    InceptionV3/Mixed_5b."""
    return "/".join(name.split("/")[:-1][:2]) or name


def summary(names: Iterable[str], most: int = 8) -> str:
    """The scopes of some variables in a few words."""
    counts = Counter(map(group, names))
    shown = (
        ", ".join(counts) if len(counts) <= most else ", ".join(list(counts)[:most]) + f" and {len(counts) - most} more"
    )
    return shown or "none"


def trainable_variables(model: keras.Model, trainable_scopes: str | None) -> list[keras.Variable]:
    """The variables that training updates.

    Each scope is a regular expression matched from the start of a variable's name, without a word boundary:
    `Net/block1` also selects `Net/block10/...`. The others keep their values, but their layers run in training mode:
    dropout stays on and batch normalisation keeps normalising by the batch and updating its moving statistics, as with
    slim's --trainable_scopes.

    Returns:
        Each selected variable once, in the order of the scopes; all that are trainable when no scope is given.

    Raises:
        FlagError: nothing is selected, or a scope is no regular expression.
    """
    names = {name: variable for name, variable in scoped_names(model).items() if variable.trainable}
    scopes = split(trainable_scopes)
    if not scopes:
        return list(names.values())
    selected: dict[str, keras.Variable] = {}
    for scope in scopes:
        try:
            selected.update({name: variable for name, variable in names.items() if re.match(scope, name)})
        except re.error as error:
            raise FlagError(
                "--trainable_scopes holds a scope that is no regular expression",
                received=scope,
                expected=f"none with: {error}",
            ) from error
    if not selected:
        raise FlagError(
            "No variables to optimize: no trainable variable's name starts with a match of --trainable_scopes",
            received=trainable_scopes,
            expected=f"scopes such as {summary(names)}",
            hint=did_you_mean(scopes[0], {group(name) for name in names}, cutoff=0.5),
        )
    return list(selected.values())
