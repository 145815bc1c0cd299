"""Requests to Cloud Storage: retries, and the translation of the errors that remain.

Transient errors are retried with growing delays, and content that arrived corrupted is fetched or sent again. What
still fails is raised as one error that names the object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tf_image_classification.errors import AccessError, FlagError, ServiceError
from tf_image_classification.storage.error_reasons import next_step
from tf_image_classification.storage.local_files import conflict_error, not_found_error
from tf_image_classification.storage.service_errors import last_error, missing_credentials, server_message

if TYPE_CHECKING:
    from google.api_core.retry import Retry

INITIAL_DELAY, MAX_DELAY, RETRY_TIMEOUT = 0.1, 20.0, 300.0  # seconds between attempts, and until the last one
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a byte of the response

_Result = TypeVar("_Result")


def storage_retry() -> Retry:
    """Retries transient errors: 408, 429, 5xx, and connections that fail, break or stall."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(INITIAL_DELAY, MAX_DELAY, 2.0).with_timeout(RETRY_TIMEOUT)


def retry_on_corruption(attempt: Callable[[], _Result]) -> _Result:
    """Calls `attempt`, which transfers a whole content, until it succeeds and the content arrived undamaged.

    Transient errors are retried too. An upload or download must not be retried by the library itself where it would
    resume: it checks the CRC-32C of contents received in one response only.
    """
    from google.api_core.retry import Retry

    corruption_retry = Retry(predicate=_is_corruption, initial=INITIAL_DELAY, maximum=MAX_DELAY, timeout=RETRY_TIMEOUT)
    return storage_retry()(corruption_retry(attempt))()


def _is_corruption(error: Exception) -> bool:
    from google.api_core.exceptions import BadRequest
    from google.cloud.storage.exceptions import DataCorruption

    # The service rejects a corrupted upload as a bad request, which differs from others only in its message.
    return isinstance(error, DataCorruption) or (isinstance(error, BadRequest) and "match calculated" in str(error))


@contextlib.contextmanager
def translate_storage_errors(path: str, writing: bool = False) -> Iterator[None]:
    """Turns errors of google-cloud-storage and of the network within the block into those of this project.

    Args:
        path: of the object or folder, for the message.
        writing: whether the block writes; otherwise it reads.

    Raises:
        FileNotFoundError: object not found or, when listing, bucket not found.
        FlagError: bucket not found when writing.
        AccessError: this account has no permission.
        ConflictError: the object has another version than the request's condition.
        ServiceError: anything else.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.NotFound:
        raise (bucket_not_found(path) if writing else not_found_error(path)) from None
    except exceptions.Forbidden as error:
        raise _access_error(path, error, writing) from None
    except exceptions.PreconditionFailed:
        raise conflict_error(path) from None
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise missing_credentials(f"{'write to' if writing else 'read from'} {path}", error) from None
    except (
        exceptions.GoogleAPIError,
        DataCorruption,
        InvalidResponse,
        requests.RequestException,
        ConnectionError,
    ) as error:
        cause = last_error(error)
        retried = f" after {RETRY_TIMEOUT:.0f} s of retries" if cause is not error else ""
        raise ServiceError(
            f"A request to Cloud Storage failed{retried}",
            received=f"{path}: {_describe(cause)}",
            hint=next_step(cause) or "Run again when the service and the network are available.",
        ) from None


def bucket_not_found(path: str) -> FlagError:
    """The error that the bucket of a path to write to does not exist."""
    return FlagError("The bucket does not exist", received=path, expected="an existing bucket")


def _access_error(path: str, error: Exception, writing: bool) -> AccessError:
    action, role = ("write to", "objectUser") if writing else ("read from", "objectViewer")
    return AccessError(
        f"This account may not {action} the bucket",
        received=f"{path}: {_describe(error)}",
        hint=next_step(error) or f"Ask for roles/storage.{role} on it.",
        path=path,
    )


def _describe(error: BaseException) -> str:
    """HTTP status of an error, or its type, and its message."""
    response: Any = getattr(error, "response", None)
    refused = response is not None and not response.ok  # corrupted content has a status that is ok
    kind = f"{response.status_code} {response.reason}" if refused else type(error).__name__
    return f"{kind}: {server_message(error)}"
