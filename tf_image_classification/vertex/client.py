"""Access to Vertex AI over REST: the options of its clients, and waiting for its long-running operations."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import time
from typing import Any

from google.api_core import exceptions, retry
from google.api_core.future import polling

from tf_image_classification.errors import ServiceError
from tf_image_classification.promotion.google_errors import RETRY

SERVICE, ROLE = "Vertex AI", "roles/aiplatform.user"
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"  # as gcloud names it

_log = logging.getLogger(__name__)


def client_options(location: str, api_endpoint: str = "") -> dict[str, Any]:
    """Keyword arguments of the clients of `google.cloud.aiplatform_v1`.

    Args:
        location: region, such as europe-west4.
        api_endpoint: another address of the service; by default $CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM, else the
            region's. One with http:// is sent no credentials.
    """
    override = (api_endpoint or os.environ.get(ENDPOINT_VARIABLE, "")).rstrip("/")
    endpoint = override or f"{location}-aiplatform.googleapis.com"
    options: dict[str, Any] = {"transport": "rest", "client_options": {"api_endpoint": endpoint}}
    if not endpoint.startswith("http://"):
        return options
    from google.auth.credentials import AnonymousCredentials

    return options | {"credentials": AnonymousCredentials()}


def wait_for(operation: Any, action: str, hours: float = 1) -> Any:
    """Waits for a long-running operation, logs each poll, and returns its result.

    Args:
        operation: google.api_core.operation.Operation, as a client's method returned it.
        action: what it does, such as 'upload a model'.
        hours: how long to wait.

    Raises:
        ServiceError: it failed, or has not ended in time.
        google.api_core.exceptions.GoogleAPICallError: it failed for lack of a permission or a quota, or a poll failed.
    """
    started = time.monotonic()

    def log_poll(_: Exception) -> None:
        _log.info("Waiting for %s to %s: %.0f s", SERVICE, action, time.monotonic() - started)

    polls = retry.Retry(
        predicate=polling.POLLING_PREDICATE,
        initial=0.5,
        maximum=30.0,
        multiplier=1.5,
        timeout=3600 * hours,
        on_error=log_poll,
    )
    try:
        return operation.result(polling=polls, retry=RETRY)
    except concurrent.futures.TimeoutError:
        raise ServiceError(
            f"{SERVICE} takes too long to {action}",
            received=f"{operation.operation.name}, after {hours:g} hours",
            hint="Look for it in the console. The same step, run again, continues where this one stopped.",
        ) from None
    except exceptions.GoogleAPICallError as error:
        operation_failed = operation.operation.HasField("error")
        if operation_failed and not isinstance(error, (exceptions.Forbidden, exceptions.TooManyRequests)):
            raise ServiceError(f"{SERVICE} could not {action}", received=operation.operation.error.message) from None
        raise
