"""Errors that a user can act on: each is one paragraph of problem, received, expected and hint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_NAMES = 5  # listed in a message
_MAX_CHARACTERS = 4000  # of each part of a message; what comes from outside may have megabytes


class UserError(Exception):
    """Base of all errors that a command line prints as one paragraph, without a traceback.

    Args:
        problem: what is wrong, in a few words.
        received: what was found instead of what was expected.
        expected: what would have been valid.
        hint: what to do next.

    Attributes:
        exit_code: of the process: 1, the work failed while it ran; 2, the call is invalid and no work was started.
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
    """A flag is unknown, or its value is invalid. Raised before any work starts."""

    exit_code = 2


class DataError(UserError, ValueError):
    """Images, labels, TFRecords or another stored file are invalid."""


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be read, or does not match the model."""


class MissingCheckpointError(FlagError, CheckpointError):
    """A flag names a checkpoint that was not found."""


class MissingDataError(FlagError, DataError):
    """A flag names data that was not found."""


class EstimatorError(UserError, ValueError):
    """A method of an EstimatorSpec breaks its contract."""


class TrainingError(UserError, RuntimeError):
    """Training cannot continue, for example because the loss is NaN."""


class ConflictError(UserError):
    """A conditional write failed: another process has changed the file or folder since this one read it."""


class ServiceError(UserError):
    """A service refused a request, failed to carry it out, or could not be reached."""


class UnavailableError(ServiceError):
    """A service could not be reached, did not answer, or is busy: the same request may succeed later."""


class AccessError(UserError, PermissionError):
    """This account has no permission to read or write a bucket.

    A PermissionError too, so that code for local files handles it.

    Attributes:
        filename: the path, as of any OSError.
        strerror: "permission denied".
    """

    def __init__(
        self, problem: str, *, received: object = None, expected: object = None, hint: str = "", path: str = ""
    ) -> None:
        super().__init__(problem, received=received, expected=expected, hint=hint)
        self.filename, self.strerror = path, "permission denied"

    __str__ = Exception.__str__  # OSError's own would print errno and filename


def printable(text: str) -> str:
    """A name from outside, for a log or a message: characters that a terminal would act on, or that are no Unicode (a
    file's name may be any bytes), are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """A text of several lines from outside, for a terminal: as `printable` leaves it, with its newlines and tabs."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def abridged(names: Sequence[str], limit: int = MAX_NAMES) -> str:
    """The first names of a list as part of a message, and whether there are more."""
    return ", ".join(map(printable, names[:limit])) + (", ..." if len(names) > limit else "")


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "", cutoff: float = 0.6) -> str:
    """The hint "Did you mean PREFIXNAME?" for the known name that is most similar to `name`; '' if none is.

    Args:
        prefix: printed before the name, such as --.
        cutoff: the lowest similarity of a hint, from 0 to 1, as of difflib.get_close_matches.
    """
    import difflib  # a worker process of a build needs none

    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"Did you mean {prefix}{nearest[0]}?" if nearest else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[: _MAX_CHARACTERS - 500]} ... {text[-500:]}"
    return text if text.endswith((".", "!", "?")) else text + "."
