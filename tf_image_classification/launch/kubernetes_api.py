"""Kubernetes' REST API, as the service account of the pod that this process runs in."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from tf_image_classification.errors import ServiceError, UnavailableError
from tf_image_classification.launch.stop_signal import StopSignal

_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"  # variables of every container of a cluster
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECS = (5, 30)  # to connect, and between bytes
# A control plane of one node is away for minutes while it is upgraded.
_PATIENCE_SECS, _PATIENCE_AT_THE_END_SECS = 600.0, 10.0
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 1.0, 30.0
# 401: the token has just been replaced.
_TRANSIENT = (401, 408, 410, 429, 500, 502, 503, 504)


class RefusedError(ServiceError):
    """The API refused a request for good.

    Attributes:
        status: HTTP status.
        message: of the API.
    """

    def __init__(self, request: str, status: int, message: str) -> None:
        super().__init__(f"Kubernetes refused {request}", received=f"{status}: {message}")
        self.status, self.message = status, message


class KubernetesApi:
    """Requests to the API server, repeated while it does not answer. The token is read anew for each.

    Args:
        stop: cuts the repetitions short.

    Attributes:
        namespace: of this pod.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self.namespace = _read("namespace")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy is not for addresses of the cluster

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The object or list at a path, as JSON.

        Raises:
            RefusedError: it does not exist (404), or may not be read.
            UnavailableError: the API did not answer for ten minutes.
        """
        return dict(self._request("GET", path, query).json())

    def text(self, path: str, **query: str) -> str:
        """The text at a path, such as a log; errors as of `get`."""
        return self._request("GET", path, query).content.decode(errors="replace")

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an object, and returns it; errors as of `get`. One that exists already is refused with 409, which a
        repetition also is whose first response was lost."""
        return dict(self._request("POST", path, body=body).json())

    def delete(self, path: str, body: Mapping[str, Any]) -> None:
        """Deletes an object, with these DeleteOptions; errors as of `get`."""
        self._request("DELETE", path, body=body)

    def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> requests.Response:
        started_at, pause = time.monotonic(), _FIRST_PAUSE_SECS
        while True:
            try:
                response = self._send(method, path, query, body)
            except (OSError, requests.RequestException) as error:
                reason = type(error).__name__
            else:
                if response.ok:
                    return response
                if response.status_code not in _TRANSIENT:
                    raise RefusedError(f"{method} {path}", response.status_code, _message(response))
                reason = f"{response.status_code}: {_message(response)}"
            patience = _PATIENCE_AT_THE_END_SECS if self._stop.number else _PATIENCE_SECS
            if time.monotonic() + pause > started_at + patience:
                raise UnavailableError(f"Kubernetes does not carry out {method} {path}", received=reason)
            if self._stop.number:
                time.sleep(pause)
            else:
                self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECS)

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> requests.Response:
        host = os.environ[_HOST]
        host = f"[{host}]" if ":" in host else host
        return self._session.request(
            method,
            f"https://{host}:{os.environ[_PORT]}{path}",
            params=query,
            json=body,
            headers={"Authorization": f"Bearer {_read('token')}"},
            verify=str(_ACCOUNT / "ca.crt"),
            timeout=_TIMEOUT_SECS,
        )


def _read(name: str) -> str:
    """A file of the service account."""
    try:
        return (_ACCOUNT / name).read_text().strip()
    except OSError as error:
        raise ServiceError(
            "This pod has no credentials for Kubernetes' API",
            received=f"{_ACCOUNT / name}: {error.strerror}",
            expected="the token of its service account",
            hint="Remove automountServiceAccountToken: false from the service account.",
        ) from error


def _message(response: requests.Response) -> str:
    """What a response says about its error: a Status object has a message."""
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text.strip() or response.reason
