"""Requests to Cloud Storage, whatever the network and the service do meanwhile.

Passing trouble is waited out: a request is repeated with growing pauses, and what arrived damaged is fetched or sent
again. Trouble that stays is one error that says what was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tf_image_classification.errors import AccessError, ConflictError, FlagError, UserError

if TYPE_CHECKING:
    from google.api_core.retry import Retry

FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 0.1, 20.0, 300.0  # seconds between attempts, and until the last one
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a byte of the answer

_Result = TypeVar("_Result")


def retrying() -> Retry:
    """Repeats what failed by passing trouble: 408, 429, 5xx, connections that cannot be made, break off or stall."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(FIRST_PAUSE, LONGEST_PAUSE, 2.0).with_timeout(PATIENCE)


def retry_on_corruption(attempt: Callable[[], _Result]) -> _Result:
    """Repeats an attempt to move a whole content, also when the content came damaged."""
    from google.api_core.retry import Retry

    damaged = Retry(predicate=_is_damage, initial=FIRST_PAUSE, maximum=LONGEST_PAUSE, timeout=PATIENCE)
    return retrying()(damaged(attempt))()


def _is_damage(error: Exception) -> bool:
    from google.api_core.exceptions import BadRequest
    from google.cloud.storage.exceptions import DataCorruption

    # The service refuses a damaged upload as a bad request, whose only mark is its text.
    return isinstance(error, DataCorruption) or (isinstance(error, BadRequest) and "match calculated" in str(error))


@contextlib.contextmanager
def translate_storage_errors(path: str, writing: bool = False) -> Iterator[None]:
    """Turns what the service or the network refuses for good into the errors that this project knows.

    Raises:
        FileNotFoundError: there is no such object or, on listing, no such bucket.
        AccessError: this account may not do that.
        ConflictError: the object has another version than was asked for.
        UserError: anything else.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.NotFound:
        if writing:
            raise FlagError("The bucket does not exist", received=path, expected="a bucket that is there") from None
        raise missing(path) from None
    except exceptions.Forbidden as error:
        role = "roles/storage.objectUser" if writing else "roles/storage.objectViewer"
        doing = "write to" if writing else "read from"
        raise AccessError(
            f"This account may not {doing} the bucket",
            received=f"{path}: {_said(error)}",
            hint=f"Ask for {role} on it.",
            path=path,
        ) from None
    except exceptions.PreconditionFailed:
        raise changed(path) from None
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise UserError(
            "There are no usable Google Cloud credentials",
            received=f"{path}: {_said(error)}",
            hint="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ) from None
    except (
        exceptions.GoogleAPIError,
        DataCorruption,
        InvalidResponse,
        requests.RequestException,
        ConnectionError,
    ) as error:
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        raise UserError(
            "Cloud Storage does not do what it is asked for"
            + (f", after {PATIENCE:.0f} s of trying" if cause is not error else ""),
            received=f"{path}: {_said(cause)}",
            hint="Run the same again when the service and the network are well.",
        ) from None


def _said(error: BaseException) -> str:
    """What the service answered, else the error's text, without addresses: that of an upload is as good as a
    credential."""
    answer: Any = getattr(error, "response", None)
    text = ""
    with contextlib.suppress(Exception):  # there is no answer, it was fetched in pieces, or it broke off
        text = answer.text
    if not text:
        return f"{type(error).__name__}: {re.sub(r'[?][^ ]+', '', str(error))}"
    said = re.search(r'"message": *"([^"]*)"', text)
    return f"{answer.status_code} {answer.reason}: {said[1] if said else text[:200]}"


def changed(path: str) -> ConflictError:
    """The error that a file or folder is no longer what it was."""
    return ConflictError(
        "Another process has changed this meanwhile", received=path, hint="Try again when it has ended."
    )


def missing(path: str) -> FileNotFoundError:
    """The error that there is no such object."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
