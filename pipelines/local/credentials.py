"""What a step's container gets of the caller's Google credentials: access tokens for the buckets of its step.

They are valid for an hour; keys and refresh tokens stay outside. A token is limited by a Credential Access Boundary,
which works on buckets with uniform bucket-level access, see
https://cloud.google.com/iam/docs/downscoping-short-lived-credentials.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from google.auth import default, downscoped
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from pipelines.local.step_paths import StepPath
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import access_tokens
from tf_image_classification.storage.service_errors import missing_credentials

TOKEN_FILE = "token.json"  # noqa: S105 - in the folder of `tokens`

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_READER, _WRITER = "inRole:roles/storage.objectViewer", "inRole:roles/storage.objectAdmin"
_MAX_BUCKETS = 10  # of a Credential Access Boundary
_RENEW_SECS, _RETRY_SECS = 1200.0, 60.0
_JOIN_SECS = 5.0  # a request to Google in the thread may take longer than anybody should wait at the end of a step

_log = logging.getLogger(__name__)


def buckets_of(paths: Iterable[StepPath]) -> dict[str, bool]:
    """The buckets of the gs:// paths of a step, each with whether the step writes to it.

    Raises:
        FlagError: there are more than a token can be limited to.
    """
    buckets: dict[str, bool] = {}
    for path in paths:
        if storage.is_gcs(path.path):
            name, _ = storage.split_gcs(path.path)
            buckets[name] = buckets.get(name, False) or path.is_written
    if len(buckets) > _MAX_BUCKETS:
        raise FlagError(
            "An access token cannot be limited to so many buckets",
            received=", ".join(sorted(buckets)),
            expected=f"at most {_MAX_BUCKETS} in the flags of a step",
            hint="Leave out --runner docker.",
        )
    return dict(sorted(buckets.items()))


@functools.cache
def of_caller() -> Any:
    """The caller's Application Default Credentials.

    Raises:
        ServiceError: there are none.
    """
    try:
        credentials, _ = default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise missing_credentials("give a container access to gs:// paths", error) from None
    return credentials


def owner(source: Any) -> str:
    """Whose credentials these are, as far as they say it: the account, else the file or service that they are from."""
    account = getattr(source, "account", "") or getattr(source, "service_account_email", "")
    return account or (source.get_cred_info() or {}).get("credential_source") or type(source).__module__


def narrowed(source: Any, buckets: dict[str, bool]) -> downscoped.Credentials:
    """Credentials for these buckets alone, to read objects or also to write them, as far as the source's rights go."""
    rules = [
        downscoped.AccessBoundaryRule(
            available_resource=f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            available_permissions=[_WRITER if is_written else _READER],
        )
        for bucket, is_written in buckets.items()
    ]
    return downscoped.Credentials(source, downscoped.CredentialAccessBoundary(rules))


@contextlib.contextmanager
def tokens(credentials: Any, request: Any = None) -> Iterator[str]:
    """A folder, readable by the caller alone, with a token in TOKEN_FILE that is renewed while the block runs.

    Args:
        credentials: google-auth's, which refresh themselves.
        request: makes google-auth's HTTP requests; by default over the network.

    Raises:
        ServiceError: Google gives no token.
    """
    request = request or Request()
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="token-") as folder:
        path = os.path.join(folder, TOKEN_FILE)
        try:
            _write_token(credentials, request, path)
        except GoogleAuthError as error:
            raise missing_credentials("get an access token for the step's buckets", error) from None
        thread = threading.Thread(target=_renew, args=(credentials, request, path, ended), daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            ended.set()
            thread.join(_JOIN_SECS)


def _renew(credentials: Any, request: Any, path: str, ended: threading.Event) -> None:
    delay = _RENEW_SECS
    while not ended.wait(delay):
        try:
            _write_token(credentials, request, path)
            delay = _RENEW_SECS
        except (GoogleAuthError, OSError) as error:  # the last token is valid for more than half an hour
            _log.warning("Cannot renew the access token, and will try again: %s", error)
            delay = _RETRY_SECS


def _write_token(credentials: Any, request: Any, path: str) -> None:
    credentials.refresh(request)
    access_tokens.write(path, credentials.token, credentials.expiry)
