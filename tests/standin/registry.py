"""A registry of images on 127.0.0.1: the part of the HTTP API V2 that finds an image, and tokens for it.

As of most registries, each request wants a token, which its token service gives to anybody, or to `accounts` only.
Not served: uploads, layers, catalogues. Docker and its like use http:// for registries on 127.0.0.1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.standin.loopback import Loopback, Route

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ANY = _INDEX, {"schemaVersion": 2, "manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]}


class Registry(Loopback):
    """Images, by repository and tag.

    Attributes:
        accounts: user -> password; without any, everybody may pull.
        has_all: whether it holds every image that is asked for, for linux/amd64.
    """

    def __init__(self, *, has_all: bool = False) -> None:
        self.accounts: dict[str, str] = {}
        self.has_all = has_all
        self._manifests: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._blobs: dict[str, bytes] = {}
        self._token = secrets.token_urlsafe()
        super().__init__()

    def routes(self) -> list[Route]:
        return [
            ("GET", "/token", self._give_token),
            ("GET", "/v2/<path:name>/manifests/<version>", self._manifest),
            ("GET", "/v2/<path:name>/blobs/<digest>", self._blob),
        ]

    def add(self, name: str, tag: str, *platforms: str, index: bool = True) -> None:
        """Adds an image.

        Args:
            platforms: as linux/amd64.
            index: whether its manifest is an index of platforms, as buildx writes it, or that of one image, whose
                configuration names the platform.
        """
        described = [dict(zip(("os", "architecture"), platform.split("/"), strict=True)) for platform in platforms]
        if index:
            # The last entry is the attestations of the first, as BuildKit stores them.
            entries = [{"platform": one} for one in [*described, {"os": "unknown", "architecture": "unknown"}]]
            self._manifests[name, tag] = _INDEX, {"schemaVersion": 2, "manifests": entries}
            return
        config = json.dumps(described[0]).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        self._blobs[digest] = config
        self._manifests[name, tag] = _MANIFEST, {"schemaVersion": 2, "config": {"digest": digest}, "layers": []}

    def _give_token(self, request: Request) -> Any:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if self.accounts and self.accounts.get(user) != password:
            return Response('{"errors": [{"code": "UNAUTHORIZED"}]}', status=401)
        return {"token": self._token}

    def _denied(self, request: Request, name: str) -> Response | None:
        if request.headers.get("Authorization") == f"Bearer {self._token}":
            return None
        challenge = f'Bearer realm="{self.url}/token",service="{self.host}",scope="repository:{name}:pull"'
        return Response('{"errors": []}', status=401, headers={"WWW-Authenticate": challenge})

    def _manifest(self, request: Request, name: str, version: str) -> Response:
        if denied := self._denied(request, name):
            return denied
        kind, content = self._manifests.get((name, version), _ANY if self.has_all else ("", {}))
        if not kind or kind not in request.headers.get("Accept", ""):
            return Response('{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', status=404)
        return Response(json.dumps(content), mimetype=kind)

    def _blob(self, request: Request, name: str, digest: str) -> Response:
        return self._denied(request, name) or Response(self._blobs[digest])
