"""Errors of S3 and of services that speak its protocol, in words that say what to do next."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from tf_image_classification.errors import AccessError, FlagError, ServiceError
from tf_image_classification.storage import gcs_requests
from tf_image_classification.storage.local_files import conflict_error, not_found_error

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_ENDPOINT = "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL)"
_NO_CREDENTIALS_HINT = f"Set {_KEYS}; on Kubeflow, from a secret (--kubernetes), or use a service account's role."
# Codes of answers, see https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and their hints.
_CREDENTIALS = {
    "InvalidAccessKeyId": f"Check AWS_ACCESS_KEY_ID, and that {_ENDPOINT} is the service that issued it.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY: it belongs to another access key, or was cut off.",
    "ExpiredToken": "Get new temporary credentials: AWS_SESSION_TOKEN has expired.",
    "ExpiredTokenException": "Get new temporary credentials: AWS_SESSION_TOKEN has expired.",
    "InvalidToken": "Check AWS_SESSION_TOKEN: unset it for keys that have none.",
    "InvalidClientTokenId": f"Check {_KEYS}.",
    "RequestTimeTooSkewed": "Set the clock of this machine: it differs from the service's by more than 15 minutes.",
}
_OTHER_REGION = frozenset(("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"))
_CHANGED = frozenset(("PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"))


def code_of(error: Any) -> str:
    """The code of an answer, such as NoSuchKey; its HTTP status where it has no body, as of HEAD requests."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: Any) -> int:
    """The HTTP status of an answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_not_found(error: Any) -> bool:
    """Whether an answer says that the object or its bucket does not exist."""
    return status_of(error) == 404


def of_answer(error: Any, path: str, writing: bool) -> Exception:
    """The error for an answer of the service that refuses a request; see `gcs_requests.translate_storage_errors`."""
    code, status = code_of(error), status_of(error)
    received = f"{path}: {_describe(error)}"
    if code in _CHANGED or (writing and code == "NoSuchKey"):  # the object of a condition is gone
        return conflict_error(path)
    if code == "NoSuchBucket" and not writing:
        return FileNotFoundError(errno.ENOENT, "bucket not found", path)
    if is_not_found(error):
        return gcs_requests.bucket_not_found(path) if writing else not_found_error(path)
    if code in _CREDENTIALS:
        return ServiceError(
            f"Cannot {_action(writing)} the bucket: the S3 credentials are refused",
            received=received,
            hint=_CREDENTIALS[code],
        )
    if code in _OTHER_REGION:
        return ServiceError(
            "The bucket is in another region", received=received, hint="Set AWS_REGION to the bucket's region."
        )
    if status in (401, 403):
        rights = "s3:PutObject, s3:DeleteObject, s3:GetObject" if writing else "s3:GetObject"
        return AccessError(
            f"This account may not {_action(writing)} the bucket",
            received=received,
            hint=f"Ask for {rights} and s3:ListBucket on it.",
            path=path,
        )
    return ServiceError(
        "A request to S3 failed",
        received=received,
        hint=f"Run again when the service and the network are available. {_ENDPOINT} is its API's address, not its "
        "console's.",
    )


def of_request(error: BaseException, path: str, writing: bool) -> ServiceError:
    """The error for a request without an answer: without credentials or a connection, or with corrupted content."""
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError

    received = f"{path}: {type(error).__name__}: {error}"
    missing = (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.CredentialRetrievalError,
        botocore.ProfileNotFound,
        botocore.SSOError,
        botocore.TokenRetrievalError,
    )
    if isinstance(error, missing):
        return missing_credentials(f"{_action(writing)} {path}", error)
    hint = "Run again when the service and the network are available."
    if isinstance(error, botocore.SSLError):
        hint = "Set AWS_CA_BUNDLE to the file of the certificate authority, or use http:// in the endpoint's address."
    elif isinstance(error, (botocore.EndpointConnectionError, botocore.ConnectTimeoutError, ResponseParserError)):
        hint = f"Set {_ENDPOINT} to the address of the service's API, such as http://minio-service.kubeflow:9000."
    return ServiceError("A request to S3 failed", received=received, hint=hint)


def missing_credentials(action: str, error: BaseException | None = None) -> ServiceError:
    """The error that this machine has no credentials for S3.

    Args:
        action: what they are needed for.
        error: what boto3 raised.
    """
    return ServiceError(f"Cannot {action}: no usable S3 credentials", received=error, hint=_NO_CREDENTIALS_HINT)


@contextlib.contextmanager
def translate_client_errors() -> Iterator[None]:
    """Turns what boto3 raises of the environment and its configuration files, before any request, into errors of this
    project.

    Raises:
        FlagError: the environment is invalid.
    """
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except (BotoCoreError, ValueError) as error:
        raise FlagError(
            "The S3 client's settings are invalid",
            received=error,
            expected=f"{_ENDPOINT} as http://HOST:PORT or https://HOST, AWS_REGION and AWS_PROFILE as AWS has them",
        ) from None


def _action(writing: bool) -> str:
    return "write to" if writing else "read from"


def _describe(error: Any) -> str:
    """HTTP status, code and message of an answer."""
    code, status = code_of(error), status_of(error)
    parts = [str(status), *([code] if code and code != str(status) else [])]
    return f"{' '.join(parts)}: {error.response.get('Error', {}).get('Message', '')}"
