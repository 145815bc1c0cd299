"""Errors of Google's APIs, translated into those of this project; and which requests to them are retried.

For Cloud Storage see storage.gcs_requests: its library has retries of its own, which include quotas (429), since its
requests are many and short.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import requests
import urllib3
from google.api_core import exceptions, retry
from google.auth.exceptions import GoogleAuthError, TransportError

from tf_image_classification.errors import FlagError, ServiceError, UnavailableError
from tf_image_classification.storage.error_reasons import next_step
from tf_image_classification.storage.service_errors import last_error, missing_credentials, server_message

# A lost response is the same to the client as an unavailable service: the request may have been carried out.
_TRANSIENT = (
    exceptions.ServiceUnavailable,
    exceptions.BadGateway,
    exceptions.GatewayTimeout,
    exceptions.InternalServerError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,  # the connection broke within the response: not a ConnectionError
)


def api_retry(
    on_error: Callable[[Exception], None] | None = None, also: tuple[type[Exception], ...] = ()
) -> retry.Retry:
    """Retries transient errors, with growing delays, for two minutes.

    Args:
        on_error: called with each error that is retried.
        also: further types of errors to retry.
    """

    def predicate(error: Exception) -> bool:
        return isinstance(error, also) or _is_transient(error)

    return retry.Retry(predicate=predicate, initial=1.0, maximum=20.0, multiplier=2.0, timeout=120.0, on_error=on_error)


def _is_transient(error: Exception) -> bool:
    # An address that cannot be connected to is most likely a wrong one, and nothing has been sent to it.
    return isinstance(error, _TRANSIENT) and not _never_connected(error)


def _never_connected(error: object) -> bool:
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(getattr(cause, "reason", None), urllib3.exceptions.NewConnectionError)


def _did_not_sign_in(error: Exception) -> bool:
    """Whether the service of tokens failed, and not the credentials. That of a machine in Google Cloud, which is the
    metadata server, gives a RefreshError then."""
    causes = (error, error.__cause__)
    return any(isinstance(cause, TransportError) for cause in causes) or bool(getattr(error, "retryable", False))


RETRY = api_retry()


@contextlib.contextmanager
def translate_api_errors(
    service: str, action: str, role: str = "", retry_hint: str = "It is safe to try again."
) -> Iterator[None]:
    """Turns errors of a Google API within the block into errors of this project.

    Args:
        service: such as 'Vertex AI'.
        action: what the block does, such as 'submit a run'.
        role: the IAM role that permits it.
        retry_hint: shown when the response was lost, and the request may have been carried out.

    Raises:
        FlagError: a resource was not found, or the request is invalid.
        UnavailableError: the same request may succeed later.
        ServiceError: any other error of the service.
    """
    try:
        yield
    except exceptions.Forbidden as error:
        role_hint = f"Ask for {role} on the project, and check its name." if role else ""
        raise ServiceError(
            f"{service} does not let this account {action}",
            received=server_message(error),
            hint=next_step(error) or role_hint or "Check the account and the project's name.",
        ) from None
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        if _did_not_sign_in(error):  # while a token is renewed
            raise UnavailableError(f"Google's sign-in did not answer; cannot {action}", received=error) from None
        raise missing_credentials(action, error) from None
    except exceptions.TooManyRequests as error:
        raise UnavailableError(
            f"A quota of {service} is used up; cannot {action} now",
            received=server_message(error),
            hint="Try again later, or ask for more under IAM & Admin > Quotas.",
        ) from None
    except exceptions.NotFound as error:
        raise FlagError(f"{service} cannot {action}: not found", received=server_message(error)) from None
    except (exceptions.BadRequest, exceptions.Conflict) as error:
        raise FlagError(
            f"{service} refuses to {action}", received=server_message(error), hint=next_step(error)
        ) from None
    except (*_TRANSIENT, exceptions.RetryError) as error:
        raise _unavailable(service, action, retry_hint, error) from None
    except exceptions.GoogleAPICallError as error:
        raise ServiceError(f"{service} cannot {action}", received=server_message(error)) from None


def _unavailable(service: str, action: str, retry_hint: str, error: Exception) -> UnavailableError:
    """The error that a transient error remained after all retries, or that nothing could be connected to."""
    if _never_connected(error):
        sent = error.request if isinstance(error, requests.ConnectionError) else None
        return UnavailableError(
            f"{service} cannot be reached; cannot {action}",
            received=sent.url if sent else error,
            hint="Check the location, the service's address and the network. Nothing was sent.",
        )
    cause = last_error(error)
    if isinstance(cause, exceptions.BadRequest):  # retried because the service reported that it is busy
        return UnavailableError(f"{service} cannot {action}", received=server_message(cause), hint="Try again later.")
    return UnavailableError(
        f"{service} did not answer; cannot {action}",
        received=server_message(cause),
        hint=f"The request may have been carried out. {retry_hint}",
    )
