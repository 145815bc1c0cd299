"""Whether an image exists in its registry, and for which platforms.

Asked are the registries' HTTP API V2 and its token services, see https://distribution.github.io/distribution/spec/api/
and https://distribution.github.io/distribution/spec/auth/token/. Nothing is pulled.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from google.auth import default
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

_DOCKER_HUB, _DOCKER_HUB_API = "docker.io", "registry-1.docker.io"
_DOCKER_HUB_LOGIN = "https://index.docker.io/v1/"  # as `docker login` names it in config.json
_GOOGLE = re.compile(r"(?:[a-z0-9-]+\.)*(?:pkg\.dev|gcr\.io)")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT = (5, 20)  # seconds to connect, and between two parts of an answer


@dataclass(frozen=True, slots=True)
class Found:
    """What a registry says about an image.

    Attributes:
        exists: None if that could not be found out.
        platforms: as linux/amd64; empty if the image does not exist.
        reason: why it could not be found out.
    """

    exists: bool | None
    platforms: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of an image's name, as Docker reads them.

    Attributes:
        host: of the registry; docker.io for a name without one.
        repository: name in the registry.
        version: tag or digest.
    """

    host: str
    repository: str
    version: str


def parse(reference: str) -> Reference:
    """Splits the name of an image."""
    name, _, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host = first
    else:
        host, rest = _DOCKER_HUB, name
    folder, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    official = "library/" if host == _DOCKER_HUB and not slash else ""
    return Reference(host, f"{official}{folder}{slash}{last}", digest or tag or "latest")


def look_up(reference: str) -> Found:
    """Asks the registry of an image for it.

    Google's registries are sent the caller's Google access token, others what `docker login` stored in Docker's
    config.json. As in Docker, http:// is for registries on this machine: neither leaves it in the clear.
    """
    image = parse(reference)
    try:
        with requests.Session() as session:
            return _Registry(session, image).find()
    except requests.HTTPError as error:
        return Found(None, reason=f"{image.host} answers with HTTP {error.response.status_code}")
    except requests.RequestException as error:
        return Found(None, reason=f"{image.host} cannot be reached: {cause_of(error)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Found(None, reason=f"{image.host} answers with something else than a registry: {error!r}")


def cause_of(error: requests.RequestException) -> str:
    """What kept a request from its answer, without the requests that led to it."""
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return str(cause).partition("): ")[2] or str(cause)


class _Registry:
    """A conversation with a registry about one image."""

    def __init__(self, session: requests.Session, image: Reference) -> None:
        self._session, self._image = session, image
        host = _DOCKER_HUB_API if image.host == _DOCKER_HUB else image.host
        scheme = "http" if _LOOPBACK.fullmatch(host) else "https"
        self._base = f"{scheme}://{host}/v2/{image.repository}"
        self._authorization = ""

    def find(self) -> Found:
        """The image's manifest, and its platforms."""
        answer = self._get(f"manifests/{self._image.version}")
        if answer.status_code == 401 and (challenge := answer.headers.get("WWW-Authenticate")):
            self._authorization = self._authorize(challenge)
            answer = self._get(f"manifests/{self._image.version}")
        if answer.status_code == 404:
            return Found(False)
        if answer.status_code in (401, 403):
            who = "this account" if self._authorization else "anybody without credentials"
            return Found(None, reason=f"{self._image.host} does not let {who} see it (HTTP {answer.status_code})")
        answer.raise_for_status()
        return Found(True, self._platforms(answer.json()))

    def _platforms(self, manifest: dict[str, Any]) -> frozenset[str]:
        if "manifests" in manifest:
            listed = [entry["platform"] for entry in manifest["manifests"] if "platform" in entry]
        else:
            answer = self._get(f"blobs/{manifest['config']['digest']}")
            answer.raise_for_status()
            listed = [answer.json()]
        return frozenset(f"{one['os']}/{one['architecture']}" for one in listed if one["os"] != "unknown")

    def _authorize(self, challenge: str) -> str:
        """The Authorization header that the registry wants; '' without one."""
        scheme, _, rest = challenge.partition(" ")
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() == "basic":
            return _basic(_credentials(self._image.host))
        realm = wanted["realm"]
        credentials = None
        if realm.startswith("https://") or _LOOPBACK.fullmatch(urlsplit(realm).netloc):
            credentials = _credentials(self._image.host, urlsplit(realm).hostname or "")
        answer = self._session.get(
            realm,
            params={
                "service": wanted.get("service", ""),
                "scope": wanted.get("scope") or f"repository:{self._image.repository}:pull",
            },
            auth=_Authorization(_basic(credentials)),
            timeout=_TIMEOUT,
        )
        if not answer.ok:
            return ""
        given = answer.json()
        return f"Bearer {given.get('token') or given['access_token']}"

    def _get(self, path: str) -> requests.Response:
        return self._session.get(
            f"{self._base}/{path}",
            headers={"Accept": _MANIFESTS},
            auth=_Authorization(self._authorization),
            timeout=_TIMEOUT,
        )


class _Authorization(requests.auth.AuthBase):
    """This header or none; without an `auth` of its own, a request would get the credentials of ~/.netrc."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


def _basic(credentials: str | None) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""


def _credentials(host: str, realm_host: str = "") -> str | None:
    """`user:password` for a registry; None without any.

    Args:
        realm_host: where its token service is. A Google token is for services of Google's registries alone.
    """
    if _GOOGLE.fullmatch(host):
        return _google_token() if realm_host in ("", host) else None
    names = {host, f"https://{host}", f"https://{host}/v2/", *([_DOCKER_HUB_LOGIN] if host == _DOCKER_HUB else [])}
    try:
        config = json.loads(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json").read_text())
        stored = next(entry["auth"] for name, entry in config["auths"].items() if name in names and entry.get("auth"))
        return base64.b64decode(stored).decode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None  # nobody has signed in, or a credential helper keeps the password


def _google_token() -> str | None:
    try:
        credentials, _ = default(scopes=[_SCOPE])
        credentials.refresh(Request())
    except GoogleAuthError:
        return None
    return f"oauth2accesstoken:{credentials.token}"
