"""Class names that are probably one class, spelled in several ways, or none."""

from __future__ import annotations

import contextlib
import logging
import math
import unicodedata
from collections.abc import Sequence

from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import MAX_NAMES, abridged

# What pandas, R, SQL and Excel write where there is no value
_MISSING = frozenset({"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "undefined"})

_log = logging.getLogger(__name__)


def warn(tasks: Sequence[Task]) -> None:
    """Warns of classes whose names differ by case, spaces or Unicode form only, of numbers of one value, and of
    those that stand for a missing label."""
    for task in tasks:
        by_meaning: dict[str | float, list[str]] = {}
        for label in task.labels:
            by_meaning.setdefault(_meaning(label), []).append(label)
        if alike := [_listed(labels) for labels in by_meaning.values() if len(labels) > 1]:
            _log.warning(
                "Classes of %s that are spelled alike are trained as different ones: %s. If they are one class, give "
                "them one name",
                task.name,
                abridged(alike),
            )
        if missing := [label for label in task.labels if label.casefold() in _MISSING]:
            _log.warning(
                "Classes of %s have the name of a missing value, and are trained as classes: %s. If the label is "
                "missing, leave it empty: such a line is rejected",
                task.name,
                abridged(missing),
            )


def _listed(labels: Sequence[str]) -> str:
    """Names that are spelled alike, as part of a message."""
    return " and ".join(labels[:MAX_NAMES]) + (" and others" if len(labels) > MAX_NAMES else "")


def _meaning(label: str) -> str | float:
    """A number, or the name without what differs between spellings. Thousands of classes are compared by it."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(label)):
            return value
    return " ".join(unicodedata.normalize("NFKC", label).casefold().replace("_", " ").replace("-", " ").split())
