"""How Vertex AI is reached: over REST, in a region or at another address; and how its long-running operations are
waited for."""

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
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"  # gcloud's own name for it

_log = logging.getLogger(__name__)


def client_options(location: str, api_endpoint: str = "") -> dict[str, Any]:
    """What a client of `google.cloud.aiplatform_v1` is made with.

    Args:
        api_endpoint: another address of the service; by default what CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM holds,
            else the region's. One with http:// is sent no credentials.
    """
    endpoint = (api_endpoint or os.environ.get(ENDPOINT_VARIABLE, "")).rstrip(
        "/"
    ) or f"{location}-aiplatform.googleapis.com"
    options: dict[str, Any] = {"transport": "rest", "client_options": {"api_endpoint": endpoint}}
    if not endpoint.startswith("http://"):
        return options
    from google.auth.credentials import AnonymousCredentials

    return options | {"credentials": AnonymousCredentials()}


def result_of(operation: Any, doing: str, hours: float = 1) -> Any:
    """Waits for a long-running operation, tells the log of it, and returns what it came to.

    Args:
        operation: what a client's method returned.
        doing: as 'upload a model'.
        hours: how long to wait.

    Raises:
        ServiceError: it failed, or goes on for too long.
        google.api_core.exceptions.GoogleAPICallError: it failed for want of a right or of a quota, or cannot be asked
        about.
    """
    began = time.monotonic()

    def tell(_: Exception) -> None:
        _log.info("Waiting for %s to %s: %.0f s", SERVICE, doing, time.monotonic() - began)

    asking = retry.Retry(
        predicate=polling.POLLING_PREDICATE,
        initial=0.5,
        maximum=30.0,
        multiplier=1.5,
        timeout=3600 * hours,
        on_error=tell,
    )
    try:
        return operation.result(polling=asking, retry=RETRY)
    except concurrent.futures.TimeoutError:
        raise ServiceError(
            f"{SERVICE} takes too long to {doing}",
            received=f"{operation.operation.name}, after {hours:g} hours",
            hint="Look for it in the console. The same step, run again, goes on where this one stopped.",
        ) from None
    except exceptions.GoogleAPICallError as error:
        if operation.operation.HasField("error") and not isinstance(
            error, (exceptions.Forbidden, exceptions.TooManyRequests)
        ):
            raise ServiceError(f"{SERVICE} could not {doing}", received=operation.operation.error.message) from None
        raise
