"""Requests to S3: the client, retries, and the translation of the errors that remain.

As of `gcs_requests`, whose delays and time limits these are. botocore's own retries are off: they end after a number of
attempts, within seconds, and do not cover contents that break off while they are read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tf_image_classification.errors import FlagError
from tf_image_classification.storage import gcs_requests, s3_errors
from tf_image_classification.storage.service_errors import last_error

_MAX_CONNECTIONS = 32  # at least as many as callers start threads
_UNREACHABLE_SECS = 10.0  # of retries, while the service has not answered once: its address is probably wrong
# Of the service's answers, see https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. The conflicts are
# those of two conditional requests at once, of which neither has been decided.
_TRANSIENT_STATUS = frozenset((408, 429, 500, 502, 503, 504))
_TRANSIENT_CODES = frozenset(("RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted"))
_CORRUPTED_UPLOAD = frozenset(("BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "InvalidDigest"))

_answered: set[str] = set()  # endpoints that have answered to this process
_Result = TypeVar("_Result")


def client() -> Any:
    """The client of the service that the environment names, as for any program that uses boto3; one for all threads.

    Raises:
        FlagError: boto3 is not installed, or the address of the service is invalid.
    """
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
    return _client(tuple(os.environ.get(name) for name in (*names, "AWS_SESSION_TOKEN", "AWS_REGION")))


@functools.cache
def _client(environment: tuple[str | None, ...]) -> Any:
    check_installed()
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=gcs_requests.TIMEOUT[0],
        read_timeout=gcs_requests.TIMEOUT[1],
        max_pool_connections=_MAX_CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    region = os.environ.get("AWS_REGION")  # set in Kubernetes pods; boto3 itself knows AWS_DEFAULT_REGION only
    with s3_errors.translate_client_errors():
        return boto3.session.Session(region_name=region).client("s3", config=config)


def check_installed() -> None:
    """Checks that boto3 is installed.

    Raises:
        FlagError: it is not.
    """
    if importlib.util.find_spec("boto3") is None:
        raise FlagError(
            "s3:// paths need boto3, which is not installed", hint="Run pip install 'tf-image-classification[s3]'."
        )


def credentials() -> Any:
    """botocore's credentials, wherever boto3 finds them on this machine, valid or not; None if there are none.

    Raises:
        FlagError: boto3 is not installed, or the environment is invalid.
    """
    check_installed()
    import boto3

    with s3_errors.translate_client_errors():
        return boto3.session.Session().get_credentials()


def call(operation: str, **arguments: Any) -> dict[str, Any]:
    """The answer to a request that may be repeated.

    Args:
        operation: name of a method of boto3's client.
    """
    return retried(lambda: getattr(client(), operation)(**arguments))


def retried(attempt: Callable[[], _Result]) -> _Result:
    """Calls `attempt`, one or more idempotent requests, until it fails for good or succeeds.

    Transient errors are 408, 429, 5xx, connections that fail, break or stall, and contents that arrived corrupted.

    Raises:
        google.api_core.exceptions.RetryError: it did not succeed in time.
    """
    from google.api_core.retry import Retry

    endpoint = client().meta.endpoint_url

    def observed() -> _Result:
        from botocore.exceptions import ClientError

        try:
            result = attempt()
        except ClientError:
            _answered.add(endpoint)
            raise
        _answered.add(endpoint)
        return result

    limit = gcs_requests.RETRY_TIMEOUT
    return Retry(
        predicate=_is_transient,
        initial=gcs_requests.INITIAL_DELAY,
        maximum=gcs_requests.MAX_DELAY,
        timeout=limit if endpoint in _answered else min(limit, _UNREACHABLE_SECS),
    )(observed)()


def _is_transient(error: Exception) -> bool:
    from botocore import exceptions as botocore
    from urllib3.exceptions import HTTPError

    if isinstance(error, botocore.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = s3_errors.code_of(error)
        return status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES or code in _CORRUPTED_UPLOAD
    if isinstance(error, (botocore.SSLError, botocore.ProxyConnectionError, botocore.InvalidProxiesConfigError)):
        return False
    return isinstance(
        error,
        (
            botocore.EndpointConnectionError,  # neither this one nor the next is an HTTPClientError
            botocore.ConnectTimeoutError,
            botocore.HTTPClientError,
            botocore.IncompleteReadError,
            botocore.ResponseStreamingError,
            botocore.FlexibleChecksumError,
            HTTPError,
            ConnectionError,
        ),
    )


@contextlib.contextmanager
def translate_storage_errors(path: str, writing: bool = False) -> Iterator[None]:
    """Turns errors of botocore and of the network within the block into those of this project.

    Args, Raises: as of `gcs_requests.translate_storage_errors`.
    """
    check_installed()
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from google.api_core.exceptions import RetryError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError, RetryError, HTTPError, ConnectionError) as error:
        cause = last_error(error)
        of_kind = s3_errors.of_answer if isinstance(cause, ClientError) else s3_errors.of_request
        raise of_kind(cause, path, writing) from None
