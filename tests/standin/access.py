"""Who may send requests to a stand-in: it executes what is posted to it, and web pages can post to 127.0.0.1 too."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

HOST = "127.0.0.1"  # the only address that a stand-in binds
# A page can post forms and plain text anywhere without asking the service first, but neither of these.
_CONTENT_TYPES = ("application/json", "multipart/related")


class AccessError(Exception):
    """A request that is refused, and why."""


class Access:
    """What one service demands of its requests.

    A secret made at start-up is the first folder of the service's address: every client library keeps it, also over
    http://, where they are sent no credentials. Whoever has the address has the secret: it is passed on in environment
    variables, never in arguments of a process, which all users of the machine see.

    Attributes:
        url: address of the service, with the secret.
    """

    def __init__(self, port: int, name: str = HOST) -> None:
        """Args:
        port: of the service.
        name: by which its clients call this machine.
        """
        self._host, self._token = f"{name}:{port}", secrets.token_urlsafe()
        self.url = f"http://{self._host}/{self._token}"

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """Checks a request, and returns its path after the secret.

        Raises:
            AccessError: it has another host (DNS rebinding), comes from a web page, or lacks the secret.
        """
        if headers.get("Host") != self._host:
            raise AccessError(f"the Host header is not {self._host}")
        if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") != "none":
            raise AccessError("it was sent by a web page")
        _, token, *rest = [*path.split("/", 2), ""]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise AccessError("its address lacks the secret that was printed when the stand-in was started")
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if method == "POST" and content_type not in _CONTENT_TYPES:
            raise AccessError(f"the Content-Type is not {' or '.join(_CONTENT_TYPES)}")
        return f"/{rest[0]}"
