"""Signing in to Kubeflow: what kfp.Client is given, from options, files and the environment.

kfp.Client sends nothing by itself to an address that it is given. A secret is never an option: `ps` shows those.
"""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.parse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google.auth.exceptions
import kfp_server_api
import requests
import urllib3
from kfp import client as kfp_client

from pipelines.backends.kubeflow_dex import log_in
from pipelines.backends.kubeflow_errors import DOCUMENTED, ApiError, translate_api_errors
from tf_image_classification.errors import FlagError, ServiceError, UserError

TOKEN_VARIABLE = "KFP_EXISTING_TOKEN"  # noqa: S105 - as kfp's own command line names it
COOKIES_VARIABLE = "KF_PIPELINES_COOKIES"
USER_VARIABLE, PASSWORD_VARIABLE = "KF_PIPELINES_USERNAME", "KF_PIPELINES_PASSWORD"
IAP_VARIABLE = "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID"  # kfp.Client reads it, and two more for accounts of persons
CA_VARIABLE = "SSL_CERT_FILE"  # as OpenSSL names it
_IAP, _POD = f"--iap_client_id (or ${IAP_VARIABLE})", "the pod"
_CONTEXT = Path("~/.config/kfp/context.json")  # of kfp.Client
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MAX_CHARACTERS = 1_000_000  # of a file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SignIn:
    """The options of a sign-in; '' for those that are not given.

    Attributes:
        token_file: holds a bearer token. It is read again for each request: the kubelet renews a projected token.
        cookie_file: holds the cookies of a browser's session, as `name=value; name=value`.
        iap_client_id: OAuth client of the Identity-Aware Proxy before Kubeflow.
        ca_file: certificates of the authorities that may have signed the address's own.
    """

    token_file: str = ""
    cookie_file: str = ""
    iap_client_id: str = ""
    ca_file: str = ""


def address(host: str) -> str:
    """The address that --host names: https:// unless it says another scheme.

    Raises:
        FlagError: it is none, or has a user or password in it.
    """
    url = (host if "://" in host else f"https://{host}").rstrip("/")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FlagError("Invalid value for --host", received=host, expected="http://ADDRESS or https://ADDRESS")
    if "@" in parts.netloc:
        raise FlagError(
            "--host has a user or a password in it, which are not sent",
            expected="https://ADDRESS",
            hint=f"{DOCUMENTED}.",
        )
    return url


def connect(host: str, namespace: str, sign_in: SignIn) -> tuple[kfp_client.Client, str]:
    """A client that is signed in, and the namespace that it is for: '' on a cluster without several users.

    Args:
        host: address of Kubeflow's API.
        namespace: '' for that of kfp's context file, else of the pod in which this runs.

    Raises:
        FlagError: an option or a variable is invalid, or several say how to sign in.
        SignInError: the sign-in is refused.
        ServiceError: Kubeflow cannot be reached, or does not answer as its API does.
    """
    ca_file = sign_in.ca_file or os.environ.get(CA_VARIABLE, "")
    if ca_file:
        _read(ca_file, f"--ca_file (or ${CA_VARIABLE})")
    context = _context()
    proxy = None if _is_near(host) else requests.utils.select_proxy(host, requests.utils.get_environ_proxies(host))
    way, value = _way(sign_in)
    if way and host.startswith("http://") and not _is_near(host):
        _log.warning("Signing in to %s over http:// sends the secret of %s unencrypted", host, way)
    credentials, options = _credentials(way, value, host, ca_file)
    if not credentials and any(context.get(f"client_authentication_{kind}") for kind in ("cookie", "header_name")):
        credentials = f"what {_CONTEXT} says"
    namespace = namespace or context.get("namespace") or _pod_namespace()
    with translate_api_errors("sign in"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that servers before 2.0 are not supported
        try:
            client = _Client(
                credentials, host=host, namespace=namespace, ssl_ca_cert=ca_file or None, proxy=proxy, **options
            )
        except UserError:
            raise
        except (google.auth.exceptions.GoogleAuthError, requests.RequestException, ValueError, LookupError) as error:
            raise ServiceError(
                "Cannot get a token for the Identity-Aware Proxy",
                received=f"{type(error).__name__}: {error!s:.500}",
                hint=f"Check --iap_client_id and the account, for which {DOCUMENTED}.",
            ) from None
        if not namespace and client.get_kfp_healthz().multi_user:
            raise FlagError(
                "--namespace is required: this Kubeflow has several users",
                hint="It is that of your profile, which the UI shows at the top.",
            )
    return client, namespace


class _Client(kfp_client.Client):
    """kfp.Client, whose requests are checked by `_Requests` from the first one on."""

    def __init__(self, signed_in_with: str, **options: Any) -> None:
        self._signed_in_with = signed_in_with
        super().__init__(**options)
        self._check_requests()

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """As kfp.Client's, which the constructor calls, and which would repeat any error for half a minute."""
        self._check_requests()
        return self._healthz_api.healthz_service_get_healthz()

    def _check_requests(self) -> None:
        api = self._healthz_api.api_client
        if not isinstance(api.rest_client, _Requests):
            # A redirection is a login page's, and where it leads nobody may post.
            api.configuration.retries = urllib3.Retry(3, redirect=False, raise_on_status=False)
            api.rest_client = _Requests(api.configuration, self._signed_in_with)


class _Requests(kfp_server_api.rest.RESTClientObject):
    """Requests of which a redirection, or a page where JSON is expected, is an error.

    The client would take a login page for an empty answer.
    """

    def __init__(self, configuration: Any, credentials: str) -> None:
        super().__init__(configuration)
        self._credentials, self._host = credentials, configuration.host

    def request(self, method: str, url: str, **options: Any) -> Any:
        try:
            answer = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            raise self._error(error.status, error.reason, error.headers or {}, error.body or b"") from None
        headers = answer.urllib3_response.headers
        if answer.data and "json" not in headers.get("Content-Type", ""):
            raise self._error(answer.status, answer.reason, headers, answer.data)
        return answer

    def _error(self, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> ApiError:
        return ApiError(status, reason, headers, body, self._credentials, self._host)


class _TokenFile(kfp_client.TokenCredentialsBase):
    def __init__(self, path: str, option: str) -> None:
        self._path, self._option = path, option

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = _check_token(_read(self._path, self._option), self._option)


def _way(sign_in: SignIn) -> tuple[str, str]:
    """How to sign in, as the option or variable that says so, and its value; '' and '' for nothing.

    Raises:
        FlagError: several say so.
    """
    values = {
        "--token_file": sign_in.token_file,
        "--cookie_file": sign_in.cookie_file,
        f"${TOKEN_VARIABLE}": os.environ.get(TOKEN_VARIABLE, ""),
        f"${COOKIES_VARIABLE}": os.environ.get(COOKIES_VARIABLE, ""),
        f"${USER_VARIABLE}": os.environ.get(USER_VARIABLE, ""),
        _IAP: sign_in.iap_client_id or os.environ.get(IAP_VARIABLE, ""),
    }
    given = [(way, value) for way, value in values.items() if value]
    if len(given) > 1:
        ways = " and ".join(way for way, _ in given)
        raise FlagError("Several ways of signing in to Kubeflow", received=ways, hint="Give one of them.")
    # A pod's token is as with kfp.Client, which does not use it where an address is given.
    path = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV) or kfp_client.KF_PIPELINES_SA_TOKEN_PATH
    return given[0] if given else (_POD, path) if os.path.exists(path) else ("", "")


def _credentials(way: str, value: str, host: str, ca_file: str) -> tuple[str, dict[str, Any]]:
    """What is sent, in words and without the secret, and as arguments of kfp.Client."""
    if way in ("--token_file", _POD):
        return f"the token of {way} {value}", {"credentials": _TokenFile(value, way)}
    if way == f"${TOKEN_VARIABLE}":
        return f"the token in {way}", {"existing_token": _check_token(value, way)}
    if way == f"${USER_VARIABLE}":
        return f"the session of {way}", {"cookies": log_in(host, value, os.environ.get(PASSWORD_VARIABLE, ""), ca_file)}
    if way == _IAP:
        return "the token for the Identity-Aware Proxy", {"client_id": value}
    if way:
        text = _read(value, way) if way == "--cookie_file" else value
        return f"the cookie of {way}", {"cookies": _check_cookies(text, way)}
    return "", {}


def _check_token(text: str, source: str) -> str:
    if not re.fullmatch(r"[!-~]+", text.strip()):
        raise FlagError(f"{source} holds no token", expected="the token alone, on one line")
    return text.strip()


def _check_cookies(text: str, source: str) -> str:
    if not re.fullmatch(r"[!-~]+=[ -~]*", text.strip()):
        raise FlagError(f"{source} holds no cookies", expected="NAME=VALUE; NAME=VALUE, on one line")
    return text.strip()


def _read(path: str, option: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_CHARACTERS)
    except OSError as error:
        raise FlagError(f"Cannot read {option}", received=f"{path} ({error.strerror})") from None


def _context() -> dict[str, Any]:
    """The settings in kfp's context file, which kfp.Client reads too."""
    path = _CONTEXT.expanduser()
    if not path.exists():
        return {}
    try:
        found = json.loads(_read(str(path), "kfp's context file"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "namespace" not in found:
        raise FlagError("kfp's context file is damaged", received=path, hint="Remove it.")
    return found


def _pod_namespace() -> str:
    return _read(str(_POD_NAMESPACE), "the pod's namespace").strip() if _POD_NAMESPACE.exists() else ""


def _is_near(host: str) -> bool:
    """Whether the address is on this machine, as a forwarded port, or within the cluster."""
    name = urllib.parse.urlsplit(host).hostname or ""
    return name == "localhost" or name.startswith("127.") or name.endswith((".svc", ".svc.cluster.local"))
