"""Another implementation of Cloud Storage behind the stand-in, in place of gcp-storage-emulator.

TEST_STORAGE_URL names one, such as googleapis/storage-testbench. The stand-in still injects faults and lists requests
and changes. Each `Buckets` gets buckets of its own there, under names of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pytest

VARIABLE = "TEST_STORAGE_URL"
needs_emulator = pytest.mark.skipif(
    VARIABLE in os.environ, reason=f"needs what the stand-in's own emulator keeps, and {VARIABLE} names another service"
)
_NAME = re.compile(rb'"name": ?("(?:[^"\\]|\\.)*")')  # in the JSON of an upload
_CONNECTION = frozenset(("host", "connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"))


class RemoteBuckets:
    """Buckets of a service at another address."""

    def __init__(self, address: str, names: Iterable[str]) -> None:
        self._address = urlsplit(address)
        suffix = uuid.uuid4().hex[:12]
        self._names = {name: f"{name}-{suffix}" for name in names}

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, own_url: str) -> bytes:
        """Sends a request on, and returns the whole response as if it came from `own_url`."""
        url = urlsplit(path)
        query = [(name, value) for name, value in parse_qsl(url.query, True) if name not in ("maxResults", "pageToken")]
        target = self._address.path.rstrip("/") + self._renamed(url.path) + (f"?{urlencode(query)}" if query else "")
        for name, other in self._names.items():
            if method == "POST" and url.path.endswith("/b"):  # creates a bucket
                body = body.replace(b'"%s"' % name.encode(), b'"%s"' % other.encode())
        connection = http.client.HTTPConnection(self._address.netloc, timeout=30)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _CONNECTION}
            connection.request(method, target, body, {**kept, "Content-Length": str(len(body))})
            response = connection.getresponse()
            content = response.read()
            lines = [(name, value) for name, value in response.getheaders() if name.lower() not in _CONNECTION]
        finally:
            connection.close()
        if "alt=media" not in url.query:
            content = self._as_own(content.decode(), own_url).encode()
        head = [f"HTTP/1.1 {response.status} {response.reason}"]
        head += [f"{name}: {self._as_own(value, own_url)}" for name, value in lines]
        head.append(f"Content-Length: {len(content)}")
        return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + content

    def removals(self, method: str, path: str, body: bytes) -> Iterator[tuple[str, str]]:
        """The object that a request would delete or overwrite, if it exists: its bucket and its name."""
        url = urlsplit(path)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        if method == "DELETE":
            name = unquote(name.removeprefix("/"))
        elif method == "POST" and url.path.startswith("/upload/") and (match := _NAME.search(body)):
            name = json.loads(match[1])
        else:
            return
        found = self.send("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", {}, b"", "")
        if found.startswith(b"HTTP/1.1 200"):
            yield bucket, name

    def _renamed(self, path: str) -> str:
        return re.sub(r"/b/([^/?]+)", lambda found: f"/b/{self._names.get(found[1], found[1])}", path, count=1)

    def _as_own(self, text: str, own_url: str) -> str:
        text = re.sub(r"https?://[^\"]*?(?=/(upload|download|storage)/)", own_url, text)
        for name, other in self._names.items():
            text = re.sub(rf'(/b/|"bucket": ?"){other}', rf"\g<1>{name}", text)
        return text


def named_in_environment(names: Iterable[str]) -> RemoteBuckets | None:
    """The buckets at TEST_STORAGE_URL; None if the environment names no address."""
    address = os.environ.get(VARIABLE)
    return RemoteBuckets(address, names) if address else None


def changes(method: str, path: str, response: bytes) -> Iterator[tuple[str, int, str]]:
    """What a request changed, as the arguments of a `Change`."""
    if not response.startswith(b"HTTP/1.1 20"):
        return
    if method == "DELETE":
        bucket, _, name = unquote(path).partition("/b/")[2].partition("/o/")
        yield f"gs://{bucket}/{name}", 0, ""
    elif path.startswith("/upload/") and (content := response.partition(b"\r\n\r\n")[2]).startswith(b"{"):
        written = json.loads(content)
        yield f"gs://{written['bucket']}/{written['name']}", int(written.get("size", 0)), written["crc32c"]
