"""Errors of Google's services, whichever of their client libraries raised them."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from tf_image_classification.errors import ServiceError

_MAX_BODY = 200  # characters shown of a body that is not the service's JSON, such as a proxy's page


def server_message(error: BaseException) -> str:
    """What the service answered, else the text of the error, without the addresses of requests.

    The address of a resumable upload is as good as a credential: whoever has it may write.
    """
    response: Any = getattr(error, "response", None)
    with contextlib.suppress(Exception):  # there is no response, it was streamed, or the connection broke
        if not response.ok and response.text:
            return _message_of(response.text)
    text = str(getattr(error, "message", "") or error)
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", text)  # google.api_core puts "METHOD URL: " before the message
    return re.sub(r"[?][^ ]+", "", text)


def last_error(error: BaseException) -> BaseException:
    """The error of the last attempt, when retries ended with a RetryError; any other error unchanged."""
    from google.api_core.exceptions import RetryError

    return error.cause if isinstance(error, RetryError) and error.cause else error


def missing_credentials(action: str, error: BaseException) -> ServiceError:
    """The error that this account has no valid Google Cloud credentials, or that nobody can be asked for a token.

    Args:
        action: what they are needed for, such as 'submit a run'.
        error: what the service or google-auth raised.
    """
    from google.auth.exceptions import TransportError

    if isinstance(error, TransportError):
        return ServiceError(
            f"Cannot {action}: the service that gives access tokens cannot be reached",
            received=server_message(error),
            hint="Check the network, its name server (DNS), firewall and proxy.",
        )
    return ServiceError(
        f"Cannot {action}: no usable Google Cloud credentials",
        received=server_message(error).partition(". ")[0],
        hint="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
    )


def _message_of(body: str) -> str:
    """The message of a response's body, see https://cloud.google.com/apis/design/errors#http_mapping."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:_MAX_BODY]
