"""What a step's container gets of the caller's access to s3://: the keys themselves, since S3 narrows none."""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from docker.types import Mount

from tf_image_classification.errors import FlagError
from tf_image_classification.storage import s3_errors, s3_requests

_CERTIFICATES = "AWS_CA_BUNDLE"


def of_caller() -> tuple[dict[str, str], list[Mount]]:
    """The variables by which a container finds the service and signs in, and the mount of the file of certificates.

    Temporary keys are those of now: a step that outlasts them fails.

    Raises:
        ServiceError: this machine has no credentials.
        FlagError: boto3 is not installed, or the service's address is one of this machine alone.
    """
    client = s3_requests.client()
    if (found := s3_requests.credentials()) is None:
        raise s3_errors.missing_credentials("give a container access to s3:// paths")
    keys = found.get_frozen_credentials()
    endpoint = client.meta.endpoint_url
    if _is_loopback(urlsplit(endpoint).hostname or ""):
        raise FlagError(
            "A container cannot reach the address of the S3 service",
            received=endpoint,
            expected="an address of this machine's network, not localhost",
            hint="Leave out --runner docker, or set AWS_ENDPOINT_URL_S3 to such an address.",
        )
    variables = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token,
        "AWS_REGION": client.meta.region_name,
        "AWS_ENDPOINT_URL_S3": "" if ".amazonaws.com" in endpoint else endpoint,
        _CERTIFICATES: os.environ.get(_CERTIFICATES) and os.path.abspath(os.environ[_CERTIFICATES]),
    }
    path = variables[_CERTIFICATES]
    mounts = [Mount(path, path, "bind", read_only=True)] if path else []
    return {name: value for name, value in variables.items() if value}, mounts


def _is_loopback(host: Any) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
