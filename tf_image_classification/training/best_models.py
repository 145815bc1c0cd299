"""Names of the files that keep the best models of a training: best_model-<global step>.npz, the newest two of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KEPT = 2
_NAME = re.compile(r"best_model-(\d+)\.npz")


def file_name(step: int) -> str:
    """The name of the file of the model that was the best at a global step."""
    return f"best_model-{step}.npz"


def is_model(name: str) -> bool:
    """Whether a file of this name keeps a best model."""
    return _NAME.fullmatch(name) is not None


def is_complete(names: Iterable[str]) -> bool:
    """Whether as many best models as are kept are among these files."""
    return len(_steps(names)) >= _KEPT


def outdated(names: Iterable[str], step: int) -> list[str]:
    """Those files that are not kept once the best model is that of a global step: older ones, and later ones, which a
    resumed training makes again."""
    steps = _steps(names)
    kept = sorted(other for other in steps if other <= step)[-_KEPT:]
    return [file_name(other) for other in steps if other not in kept]


def _steps(names: Iterable[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
