"""Errors of Kubeflow's API and of what stands before it, as errors of one paragraph; and which requests are repeated.

Between a client and the API of a cluster there are a gateway, often with a login page, and the mesh: each of them
answers in its own way to who is not signed in.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import kfp_server_api
import tenacity
import urllib3

from pipelines.backends.base import SignInError
from tf_image_classification.errors import FlagError, ServiceError, UnavailableError

Result = TypeVar("Result")

DOCUMENTED = "docs/kubeflow.md#sign-in lists the ways"
_SECONDS = 120  # for which a request is repeated
_LOGIN = re.compile(r"""type=["']?password|\b(log|sign)[ -]?(in|on)\b|oauth2?|/dex/|openid""", re.IGNORECASE)


class ApiError(kfp_server_api.ApiException):
    """An answer that is an error, or that is none of Kubeflow's API.

    Attributes:
        credentials: what the request was signed in with, in words and without the secret; '' for nothing.
        host: the address that was asked.
    """

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str], body: bytes, credentials: str, host: str
    ) -> None:
        super().__init__(status=status, reason=reason)
        self.headers, self.credentials, self.host = dict(headers), credentials, host
        # The client decodes it as UTF-8; a proxy's page may be anything.
        self.body = body.decode("utf-8", "replace").encode()


def retried(call: Callable[[], Result]) -> Result:
    """Calls, and repeats at growing intervals for up to `_SECONDS` while the error is transient."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        wait=tenacity.wait_exponential(multiplier=1, max=20),
        stop=tenacity.stop_after_delay(_SECONDS),
        reraise=True,
    )
    return retrying(call)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, kfp_server_api.ApiException):
        return error.status in (500, 502, 503, 504)
    return isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError))


@contextlib.contextmanager
def translate_api_errors(action: str) -> Iterator[None]:
    """Turns the errors of kfp_server_api in the block into those of this project.

    Args:
        action: an infinitive, as "submit a run".

    Raises:
        FlagError: something was not found, or the request is invalid.
        SignInError: the caller is not signed in, or not any more.
        UnavailableError: the same request may succeed later.
        ServiceError: any other error.
    """
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise _translated(error, action) from None
    except urllib3.exceptions.HTTPError as error:
        raise _unreachable(error, action) from None


def _translated(error: kfp_server_api.ApiException, action: str) -> Exception:
    message = _message(error)
    if (error.status or 500) < 400 or (error.status == 404 and _is_html(error)):
        return _page(error, action)
    if error.status == 404:
        return FlagError(f"Kubeflow cannot {action}: not found", received=message)
    if error.status in (400, 409):
        return FlagError(f"Kubeflow refuses to {action}", received=message)
    if error.status == 401:
        return _unknown_caller(error, action, message)
    if error.status == 403:
        return _forbidden(error, action, message)
    if error.status == 429:
        return UnavailableError(
            f"Too many requests to Kubeflow; cannot {action} now", received=message, hint="Try again later."
        )
    if error.status == 503:
        return UnavailableError(
            f"Kubeflow's API is not available (503); cannot {action}",
            received=message,
            hint="The gateway answers, but no pod behind it: kubectl get pods -n kubeflow -l app=ml-pipeline. "
            "Try again with the same --run_id.",
        )
    return UnavailableError(
        f"Kubeflow did not answer; cannot {action}", received=message, hint="Try again with the same --run_id."
    )


def _page(error: kfp_server_api.ApiException, action: str) -> ServiceError:
    """The error for a redirection or a page where the API's JSON should be."""
    target = dict(error.headers or {}).get("Location", "").partition("?")[0]
    received = f"{error.status} {error.reason}" + (f", to {target}" if target else ", a page of HTML")
    host, credentials = getattr(error, "host", ""), getattr(error, "credentials", "")
    if target.startswith("https://") and host.startswith(target.replace("https://", "http://").partition("/apis/")[0]):
        return ServiceError(
            f"Kubeflow is at another address; cannot {action}",
            received=received,
            hint="Give --host with https://.",
        )
    if target or _LOGIN.search(str(error.body)):
        state = f"does not accept {credentials}, or it has expired" if credentials else "wants a sign-in, and got none"
        return SignInError(
            f"Kubeflow's login page answered instead of its API: it {state}; cannot {action}",
            received=received,
            hint=f"Sign in with a token, the cookie of a browser's session, or Dex's user and password: {DOCUMENTED}.",
        )
    return ServiceError(
        f"A web page answered instead of Kubeflow's API; cannot {action}",
        received=received,
        expected="JSON",
        hint="Behind the gateway of a whole Kubeflow the API is below /pipeline: --host https://ADDRESS/pipeline",
    )


def _unknown_caller(error: kfp_server_api.ApiException, action: str, message: str) -> SignInError:
    credentials = getattr(error, "credentials", "")
    if credentials:
        return SignInError(
            f"Kubeflow does not accept {credentials} (401); cannot {action}",
            received=message,
            hint="It has expired, is for another cluster, or has another audience than pipelines.kubeflow.org. "
            "Make a new one.",
        )
    return SignInError(
        f"Kubeflow wants to know who calls, and no credentials were sent (401); cannot {action}",
        received=message,
        hint=f"Give --token_file, or a token in KFP_EXISTING_TOKEN: {DOCUMENTED}.",
    )


def _forbidden(error: kfp_server_api.ApiException, action: str, message: str) -> ServiceError:
    if not getattr(error, "credentials", ""):
        hint = f"No credentials were sent. Sign in: {DOCUMENTED}."
    elif message.endswith("RBAC: access denied"):
        hint = "The service mesh refuses: --host is the address of the gateway, not of a service behind it."
    else:
        hint = (
            "Check --namespace: it is that of your profile. Whoever owns it gives access under Manage Contributors, or "
            "with a RoleBinding of kubeflow-edit."
        )
    return ServiceError(f"Kubeflow does not let this account {action} (403)", received=message, hint=hint)


def _unreachable(error: urllib3.exceptions.HTTPError, action: str) -> ServiceError:
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.SSLError) and "CERTIFICATE" not in str(cause):
        return ServiceError(
            f"Kubeflow's address does not speak TLS as https:// wants it; cannot {action}",
            received=cause,
            hint="For a port without TLS, as kubectl forwards it, give --host with http://.",
        )
    if isinstance(cause, urllib3.exceptions.SSLError):
        return ServiceError(
            f"The certificate of Kubeflow's address is not trusted; cannot {action}",
            received=cause,
            hint="Give the file of the authority that signed it: --ca_file CA.pem",
        )
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return ServiceError(
            f"The name of Kubeflow's address is not found; cannot {action}", received=cause, hint="Check --host."
        )
    return UnavailableError(
        f"Kubeflow cannot be reached; cannot {action}",
        received=cause,
        hint="Check --host and the network; a port that kubectl forwards closes with it.",
    )


def _is_html(error: kfp_server_api.ApiException) -> bool:
    return "html" in dict(error.headers or {}).get("Content-Type", "")


def _message(error: kfp_server_api.ApiException) -> str:
    """The service's message: the body of its answer is JSON, or the text or page of a proxy."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError, RecursionError):
        text = str(error.body or "").strip()
        return f"{error.status} {error.reason}" + (f": {text:.200}" if text and "<" not in text else "")
