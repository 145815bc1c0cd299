"""The errors a user can act on: each is one paragraph that says what was received, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot be worked with. Command lines print it as one paragraph.

    Attributes:
        exit_code: 1, the work was begun and failed; 2, the call itself is wrong and nothing was begun.
    """

    exit_code = 1

    def __init__(self, problem: str, *, received: object = None, expected: object = None, hint: str = "") -> None:
        self.problem, self.received, self.expected, self.hint = problem, received, expected, hint
        parts = [_sentence(problem)]
        if received is not None:
            parts.append(f"Received: {_sentence(str(received))}")
        if expected is not None:
            parts.append(f"Expected: {_sentence(str(expected))}")
        if hint:
            parts.append(_sentence(hint))
        super().__init__(" ".join(parts))


class FlagError(UserError, ValueError):
    """A flag is unknown, or its value cannot be used. Raised before any work starts."""

    exit_code = 2


class DataError(UserError, ValueError):
    """The images, labels or TFRecords themselves cannot be used."""


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be found, read, or matched with the model."""


class MissingCheckpointError(FlagError, CheckpointError):
    """Nothing lies where a flag says that a checkpoint is."""


class MissingDataError(FlagError, DataError):
    """Nothing lies where a flag says that data is."""


class EstimatorError(UserError, ValueError):
    """A method of an EstimatorSpec returned something else than its contract says."""


class TrainingError(UserError, RuntimeError):
    """Training cannot go on, for example because the loss is not a number."""


class Conflict(UserError):
    """A file or folder is no longer what it was when its writer looked: another writer was there first."""


class AccessError(UserError, PermissionError):
    """A bucket refuses this account what it was asked for.

    Attributes:
        filename: the path.
        strerror: a few words.
    """

    def __init__(
        self, problem: str, *, received: object = None, expected: object = None, hint: str = "", path: str = ""
    ) -> None:
        super().__init__(problem, received=received, expected=expected, hint=hint)
        self.filename, self.strerror = path, "permission denied"

    __str__ = Exception.__str__  # OSError's puts errno and file name together instead


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "", cutoff: float = 0.6) -> str:
    """The hint that names the nearest known name, or ''.

    Args:
        prefix: stands before the name in the hint.
        cutoff: similarity that a name has to have, 0 to 1, see difflib.get_close_matches.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"Did you mean {prefix}{near[0]}?" if near else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else text + "."
