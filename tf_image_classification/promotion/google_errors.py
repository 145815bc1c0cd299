"""What Google's services refuse, said as a user would want it; and when it is worth asking again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import requests
import urllib3
from google.api_core import exceptions, retry
from google.auth.exceptions import GoogleAuthError

from tf_image_classification.errors import FlagError, ServiceError

# A lost answer is the same to the caller as a service that is away: the request may have been carried out.
_PASSING = (
    exceptions.ServiceUnavailable,
    exceptions.BadGateway,
    exceptions.GatewayTimeout,
    exceptions.InternalServerError,
    requests.ConnectionError,
    requests.Timeout,
)


def _worth_asking_again(error: Exception) -> bool:
    # An address that cannot be connected to is most likely a wrong one, and nothing has been sent to it.
    return isinstance(error, _PASSING) and not _never_connected(error)


def _never_connected(error: object) -> bool:
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(getattr(cause, "reason", None), urllib3.exceptions.NewConnectionError)


def retrying(
    on_error: Callable[[Exception], None] | None = None, also: tuple[type[Exception], ...] = ()
) -> retry.Retry:
    """Asks again, at growing intervals for two minutes, while a service is away or answers with `also`; `on_error` is
    told each time."""

    def predicate(error: Exception) -> bool:
        return isinstance(error, also) or _worth_asking_again(error)

    return retry.Retry(predicate=predicate, initial=1.0, maximum=20.0, multiplier=2.0, timeout=120.0, on_error=on_error)


RETRY = retrying()


@contextlib.contextmanager
def translate_api_errors(
    service: str, doing: str, role: str = "", again: str = "It is safe to ask again."
) -> Iterator[None]:
    """Turns what a service refuses within the block into one paragraph.

    Args:
        service: as 'Vertex AI'.
        doing: what was asked for, as 'submit a run'.
        role: what gives the permission for it.
        again: what the user is told when the answer was lost: the request may have been carried out.

    Raises:
        FlagError: what was asked for is not there, or the request itself is wrong.
        ServiceError: anything else that was refused.
    """
    try:
        yield
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        hint = (
            f"Ask for {role} on the project, and check its name."
            if role
            else "Check the account and the project's name."
        )
        raise ServiceError(
            f"{service} does not let this account {doing}", received=_message(error), hint=hint
        ) from None
    except exceptions.TooManyRequests as error:
        raise ServiceError(
            f"A quota of {service} is used up; cannot {doing} now",
            received=_message(error),
            hint="Try again later, or ask for more under IAM & Admin > Quotas.",
        ) from None
    except exceptions.NotFound as error:
        raise FlagError(f"{service} cannot {doing}: it is not there", received=_message(error)) from None
    except (exceptions.BadRequest, exceptions.Conflict) as error:
        raise FlagError(f"{service} refuses to {doing}", received=_message(error)) from None
    except GoogleAuthError as error:
        raise ServiceError(
            f"Cannot {doing}: no usable Google Cloud credentials",
            received=str(error).partition(". ")[0],
            hint="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ) from None
    except (*_PASSING, exceptions.RetryError) as error:
        if _never_connected(error):
            raise ServiceError(
                f"{service} cannot be reached; cannot {doing}",
                received=error.request.url if isinstance(error, requests.ConnectionError) and error.request else error,
                hint="Check the location, the service's address and the network. Nothing was sent.",
            ) from None
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        if isinstance(cause, exceptions.BadRequest):  # it was asked again because it said that this might help
            raise ServiceError(f"{service} cannot {doing}", received=_message(cause), hint="Try again later.") from None
        raise ServiceError(
            f"{service} did not answer; cannot {doing}",
            received=_message(cause),
            hint=f"The request may have been carried out. {again}",
        ) from None
    except exceptions.GoogleAPICallError as error:
        raise ServiceError(f"{service} cannot {doing}", received=_message(error)) from None


def _message(error: object) -> str:
    """What the service said, without the request's address."""
    text = str(getattr(error, "message", "") or error)
    return re.sub(r"^[A-Z]+ https?://\S+: ", "", text)
