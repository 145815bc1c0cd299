"""Buckets on 127.0.0.1: gcp-storage-emulator in this process, with the conditions, pages and faults that it lacks."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlparse

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.storage import Storage
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.standin import faults
from tests.standin.faults import Fault, Weather

_OBJECT = re.compile(r"/b/(?P<bucket>[^/]+)/o/(?P<name>.+)")
_LISTING = re.compile(r"/storage/v1/b/[^/]+/o")
_CONDITIONS = ("generation", "ifGenerationMatch", "ifMetagenerationMatch")


def client(url: str) -> storage.Client:
    """A client of the storage service at this URL."""
    return storage.Client(project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


def fill(url: str, bucket: str, prefix: str, folder: Path) -> None:
    """Copies a folder's files to gs://BUCKET/PREFIX."""
    place = client(url).bucket(bucket)
    for file in folder.rglob("*"):
        if file.is_file():
            place.blob(f"{prefix}/{file.relative_to(folder).as_posix()}").upload_from_filename(str(file))


@contextlib.contextmanager
def serving(*buckets: str, port: int = 0) -> Iterator[str]:
    """Serves empty buckets for as long as the block runs.

    Yields:
        The URL, which STORAGE_EMULATOR_HOST is to hold.
    """
    with Buckets(*buckets, port=port) as service:
        yield service.url


class Change(NamedTuple):
    """What became visible: an object, or, with a CRC-32C of '', its end.

    Attributes:
        path: gs://BUCKET/OBJECT
        size: bytes.
        crc32c: of the content, in base64.
    """

    path: str
    size: int
    crc32c: str


class Buckets:
    """A storage service with these buckets, for as long as a `with` block runs.

    Attributes:
        faults: to inject, in the order in which they were ordered.
        weather: random faults, for requests that no ordered one meets.
        requests: `METHOD path?query` of each request.
        injected: kind of fault -> how often.
        changes: in their order, everything that a client could have seen of objects coming, changing and going.
    """

    def __init__(self, *names: str, port: int = 0, page_size: int = 1000) -> None:
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        logging.getLogger("api.object").setLevel(logging.CRITICAL)
        self.faults: list[Fault] = []
        self.weather: Weather | None = None
        self.requests: list[str] = []
        self.injected: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._names, self._page_size = names, page_size
        self._objects = _Objects(use_memory_fs=True)
        self._finished: dict[str, bytes] = {}  # resumable uploads: asked again, they answer again
        self._server = _Server(("127.0.0.1", port), partial(_Handler, self, self._objects))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def changes(self) -> list[Change]:
        return self._objects.changes

    def __enter__(self) -> Buckets:
        self._thread.start()
        for name in self._names:
            client(self.url).create_bucket(name)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def meet(self, method: str, path: str) -> Fault | None:
        """Takes note of a request, and says what goes wrong with it."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            fault = next((fault for fault in self.faults if fault.meets(method, path)), None)
            if fault:
                fault.times -= 1
            elif self.weather:
                fault = self.weather.fault(method, path, method == "GET" and "alt=media" in path)
            if fault:
                self.injected[fault.kind] += 1
            return fault

    def carry_out(self, handler: _Handler, method: str, body: bytes) -> bytes:
        """The whole HTTP answer to a request."""
        url = urlparse(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.lock:
            session = query.get("upload_id") if method == "PUT" else None
            if session in self._finished:
                return self._finished[session]
            self._objects.conditions = {name: int(query[name]) for name in _CONDITIONS if name in query}
            try:
                answer = handler.route(method, body)
            except _Unmet as unmet:
                return error(412, str(unmet))
            except Exception as failure:  # as a 500, or without an answer, it would be asked again for minutes
                traceback.print_exc()
                return error(501, f"the stand-in failed: {failure!r}")
            head, _, content = answer.partition(b"\r\n\r\n")
            if session and head.startswith(b"HTTP/1.1 200"):
                self._finished[session] = answer
            if method == "GET" and _LISTING.fullmatch(url.path) and content:
                return _answer(
                    200,
                    _page(
                        json.loads(content), int(query.get("maxResults", self._page_size)), query.get("pageToken", "")
                    ),
                )
            place = _OBJECT.search(unquote(url.path))
            if place and query.get("alt") == "media" and head.startswith(b"HTTP/1.1 20"):
                generation = self._objects.objects[place["bucket"]][place["name"]]["generation"]
                return head + f"\r\nX-Goog-Generation: {generation}".encode() + b"\r\n\r\n" + content
            return answer


class _Unmet(Exception):
    """A request's condition does not hold."""


class _Objects(Storage):
    """The emulator's objects, which keep the conditions of requests and note what becomes of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conditions: dict[str, int] = {}
        self.changes: list[Change] = []

    def _write_config_to_file(self) -> None:
        """Nobody reads it: it lies in memory, and grows with every object."""

    def _meet(self, bucket: str, name: str) -> None:
        found = self.objects.get(bucket, {}).get(name, {"generation": 0, "metageneration": 0})
        for condition, key in (("ifGenerationMatch", "generation"), ("ifMetagenerationMatch", "metageneration")):
            if self.conditions.get(condition, int(found[key])) != int(found[key]):
                raise _Unmet(f"{condition}={self.conditions[condition]}, but gs://{bucket}/{name} has {found[key]}")
        if self.conditions.get("generation", int(found["generation"])) != int(found["generation"]):
            raise NotFound

    def create_file(
        self, bucket: str, name: str, content: bytes, resource: dict[str, Any], file_id: str | None = None
    ) -> None:
        self._meet(bucket, name)
        begun = resource["generation"]  # a resumable upload begins long before its object is there
        resource["generation"] = str(time.time_ns())
        resource["mediaLink"] = resource["mediaLink"].replace(begun, resource["generation"])
        super().create_file(bucket, name, content, resource, file_id)
        self.changes.append(Change(f"gs://{bucket}/{name}", len(content), resource["crc32c"]))

    def create_resumable_upload(self, bucket: str, name: str, resource: dict[str, Any]) -> str:
        self._meet(bucket, name)
        return super().create_resumable_upload(bucket, name, resource)

    def add_to_resumable_upload(
        self, file_id: str, content: bytes, total_size: int | None = None, expected_start: int | None = None
    ) -> bytes | None:
        arrived = self.get_resumable_byte_count(file_id)
        if expected_start is not None and expected_start < arrived:  # sent again: what is there already is passed over
            content, expected_start = content[arrived - expected_start :], arrived
        return super().add_to_resumable_upload(file_id, content, total_size, expected_start)

    def get_file_obj(self, bucket: str, name: str) -> dict[str, Any]:
        self._meet(bucket, name)
        return super().get_file_obj(bucket, name)

    def delete_file(self, bucket: str, name: str) -> None:
        if name in self.objects.get(bucket, {}):
            self._meet(bucket, name)
        super().delete_file(bucket, name)
        self.changes.append(Change(f"gs://{bucket}/{name}", 0, ""))


class _Handler(emulator.RequestHandler):
    """One connection. The emulator answers into memory; from there the answer is sent, or what a fault leaves of it."""

    protocol_version = "HTTP/1.1"  # connections are kept, as the service keeps them
    disable_nagle_algorithm = True

    def __init__(self, buckets: Buckets, objects: Storage, *args: Any) -> None:
        self._buckets = buckets
        super().__init__(objects, *args)

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._buckets.meet(self.command, self.path)
        answer = b""
        if not (fault and fault.loses_request):
            sent = faults.garbled_upload(body) if fault and fault.kind == faults.GARBLED_UPLOAD else body
            answer = self._buckets.carry_out(self, self.command, sent)
        if fault and fault.kind == faults.REFUSED:
            answer = error(fault.code, "injected by the stand-in")
        faults.send(self, answer, fault)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def route(self, method: str, body: bytes) -> bytes:
        """The emulator's own answer."""
        connection = self.rfile, self.wfile
        self.rfile, self.wfile = io.BytesIO(body), io.BytesIO()
        try:
            emulator.Router(self).handle(method)
            return self.wfile.getvalue()
        finally:
            self._headers_buffer: list[bytes] = []
            self.rfile, self.wfile = connection


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *where: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # of a client that went away
            super().handle_error(*where)


def error(code: int, message: str) -> bytes:
    """An HTTP answer as Cloud Storage writes its errors."""
    return _answer(code, {"error": {"code": code, "message": message, "errors": [{"message": message}]}})


def _answer(code: int, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %d .\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (code, len(body)) + body


def _page(listing: dict[str, Any], size: int, token: str) -> dict[str, Any]:
    """One page of a listing; a page's token is the number of things before it."""
    everything = [("items", item) for item in listing.get("items", [])] + [
        ("prefixes", prefix) for prefix in listing.get("prefixes", [])
    ]
    start = int(token or 0)
    page: dict[str, Any] = {"kind": listing["kind"], "items": [], "prefixes": []}
    for key, value in everything[start : start + size]:
        page[key].append(value)
    return page | ({"nextPageToken": str(start + size)} if start + size < len(everything) else {})
