"""Cloud Storage on 127.0.0.1: gcp-storage-emulator in this process, and what it lacks.

Added are generation and metageneration preconditions, pages of listings, generations in the headers of downloads,
resumable uploads that are sent twice, faults, and what a bucket's settings refuse. Not served: object versioning,
compose, rewrites, signed URLs and notifications.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
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

from tests.standin import faults, remote_bucket
from tests.standin.access import HOST, Access, AccessError
from tests.standin.bucket_rules import RETAINED_UNTIL, RefusedError, Rules
from tests.standin.faults import Fault, RandomFaults

_OBJECT = re.compile(r"/b/(?P<bucket>[^/]+)/o/(?P<name>.+)")
_LISTING = re.compile(r"/storage/v1/b/[^/]+/o")
_CONDITIONS = ("generation", "ifGenerationMatch", "ifMetagenerationMatch")


def client(url: str) -> storage.Client:
    """A client of the storage service at this URL."""
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"  # it would send requests of its own
    return storage.Client(project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


def fill(url: str, bucket: str, prefix: str, folder: Path) -> None:
    """Copies a local file, or the files of a folder, to gs://BUCKET/PREFIX."""
    target = client(url).bucket(bucket)
    for file in (folder, *folder.rglob("*")):
        if file.is_file():
            name = f"{prefix}/{file.relative_to(folder).as_posix()}".removesuffix("/.")
            target.blob(name).upload_from_filename(str(file))


@contextlib.contextmanager
def serving(*buckets: str, port: int = 0) -> Iterator[str]:
    """Serves empty buckets while the block runs.

    Yields:
        The URL, the value for STORAGE_EMULATOR_HOST.
    """
    with Buckets(*buckets, port=port) as service:
        yield service.url


class Change(NamedTuple):
    """A change that clients can see: an object was written, or, with a CRC-32C of '', deleted.

    Attributes:
        path: gs://BUCKET/OBJECT
        size: bytes.
        crc32c: of the content, in base64.
    """

    path: str
    size: int
    crc32c: str


class Buckets:
    """A storage service with these buckets, which runs while a `with` block does.

    As of any stand-in, its `url` is secret; see `access`. Requests are handled in threads; `lock` protects all
    attributes.

    Attributes:
        faults: to inject; of several that match a request, the first.
        random_faults: for requests that match none of `faults`.
        rules: what the buckets' settings refuse.
        requests: `METHOD path?query` of each request, without the secret.
        injected: kind of fault -> number of requests.
        changes: of all objects, in order.
    """

    def __init__(self, *names: str, port: int = 0, page_size: int = 1000) -> None:
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        logging.getLogger("api.object").setLevel(logging.CRITICAL)
        self.faults: list[Fault] = []
        self.random_faults: RandomFaults | None = None
        self.rules = Rules()
        self.requests: list[str] = []
        self.injected: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._names, self._page_size = names, page_size
        self._objects = _Objects(self, use_memory_fs=True)
        self.remote = remote_bucket.named_in_environment(names)
        self._finished: dict[str, bytes] = {}  # id of a resumable upload -> its final response, which is repeated
        self._server = _Server((HOST, port), partial(_Handler, self, self._objects))
        self.access = Access(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT/SECRET"""
        return self.access.url

    @property
    def changes(self) -> list[Change]:
        """Of all objects, in order."""
        return self._objects.changes

    def __enter__(self) -> Buckets:
        self._thread.start()
        for name in self._names:
            client(self.url).create_bucket(name)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Records a request, and returns the fault to inject into it, if any."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            fault = next((fault for fault in self.faults if fault.matches(method, path)), None)
            if fault:
                fault.times -= 1
            elif self.random_faults:
                fault = self.random_faults.draw(method, path, method == "GET" and "alt=media" in path)
            if fault:
                self.injected[fault.kind] += 1
            return fault

    def carry_out(self, handler: _Handler, method: str, body: bytes) -> bytes:
        """Carries out a request, and returns the whole HTTP response."""
        url = urlparse(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.lock:
            session = query.get("upload_id") if method == "PUT" else None
            if session in self._finished:
                return self._finished[session]
            self._objects.conditions = {name: int(query[name]) for name in _CONDITIONS if name in query}
            try:
                self.rules.check_request(query, handler.headers)
                for removed in self.remote.removals(method, handler.path, body) if self.remote else ():
                    self.rules.check_removal(*removed)
                response = handler.route(method, body)
            except RefusedError as refused:
                return _response(refused.code, refused.text(query.get("alt") == "media"))
            except _PreconditionError as failed:
                return error_response(412, str(failed))
            except _InvalidNameError as invalid:
                return error_response(400, str(invalid))
            except Exception as failure:  # a 500, or no response, would be retried for minutes
                traceback.print_exc()
                return error_response(501, f"the stand-in failed: {failure!r}")
            head, _, content = response.partition(b"\r\n\r\n")
            if b"\r\nLocation: " in head and not self.remote:  # where to continue a resumable upload
                response = response.replace(f"http://{HOST}:{self._server.server_port}".encode(), self.url.encode(), 1)
            if session and head.startswith(b"HTTP/1.1 200"):
                self._finished[session] = response
            if method == "GET" and _LISTING.fullmatch(url.path) and head.startswith(b"HTTP/1.1 200") and content:
                size = int(query.get("maxResults", self._page_size))
                return _json_response(200, _page(json.loads(content), size, query))
            address = _OBJECT.search(unquote(url.path))
            if self.remote:
                self.changes.extend(Change(*change) for change in remote_bucket.changes(method, url.path, response))
            elif address and query.get("alt") == "media" and head.startswith(b"HTTP/1.1 20"):
                generation = self._objects.objects[address["bucket"]][address["name"]]["generation"]
                return head + f"\r\nX-Goog-Generation: {generation}".encode() + b"\r\n\r\n" + content
            return response


class _PreconditionError(Exception):
    """A precondition of a request is false."""


class _InvalidNameError(Exception):
    """No object may have this name, see https://cloud.google.com/storage/docs/objects#naming."""


class _Objects(Storage):
    """The emulator's objects, with preconditions and a list of their changes.

    `conditions` are those of the request that is being carried out; the lock of Buckets admits one at a time.
    """

    def __init__(self, buckets: Buckets, **options: Any) -> None:
        super().__init__(**options)
        self._buckets = buckets
        self.conditions: dict[str, int] = {}
        self.changes: list[Change] = []

    def _object_path(self, bucket: str, name: str) -> str:
        """Where a content is kept. The emulator would take names for paths: `a//b`, `/a/b` and `a/./b` for `a/b`."""
        return f"{bucket}/{name.encode().hex()}"

    def _write_config_to_file(self) -> None:
        """Not written: it is in memory, is never read, and grows with every object."""

    def _check_conditions(self, bucket: str, name: str) -> None:
        if name in ("", ".", "..") or len(name.encode()) > 1024 or {"\r", "\n"}.intersection(name):
            raise _InvalidNameError(f"Invalid object name: {name!r}")
        found = self.objects.get(bucket, {}).get(name, {"generation": 0, "metageneration": 0})
        for condition, key in (("ifGenerationMatch", "generation"), ("ifMetagenerationMatch", "metageneration")):
            if self.conditions.get(condition, int(found[key])) != int(found[key]):
                raise _PreconditionError(
                    f"{condition}={self.conditions[condition]}, but gs://{bucket}/{name} has {found[key]}"
                )
        if self.conditions.get("generation", int(found["generation"])) != int(found["generation"]):
            raise NotFound

    def _check_removal(self, bucket: str, name: str) -> None:
        if name in self.objects.get(bucket, {}):
            self._buckets.rules.check_removal(bucket, name)

    def create_file(
        self, bucket: str, name: str, content: bytes, resource: dict[str, Any], file_id: str | None = None
    ) -> None:
        self._check_conditions(bucket, name)
        self._check_removal(bucket, name)
        if self._buckets.rules.retention:
            resource["retentionExpirationTime"] = RETAINED_UNTIL
        initial = resource["generation"]  # of a resumable upload, from when it was started
        resource["generation"] = str(time.time_ns())
        download = resource["mediaLink"].replace(initial, resource["generation"])
        resource["mediaLink"] = self._buckets.url + download[download.index("/download/") :]
        super().create_file(bucket, name, content, resource, file_id)
        self.changes.append(Change(f"gs://{bucket}/{name}", len(content), resource["crc32c"]))

    def create_resumable_upload(self, bucket: str, name: str, resource: dict[str, Any]) -> str:
        self._check_conditions(bucket, name)
        self._check_removal(bucket, name)
        return super().create_resumable_upload(bucket, name, resource)

    def add_to_resumable_upload(
        self, file_id: str, content: bytes, total_size: int | None = None, expected_start: int | None = None
    ) -> bytes | None:
        arrived = self.get_resumable_byte_count(file_id)
        if expected_start is not None and expected_start < arrived:  # sent again: skip what has arrived
            content, expected_start = content[arrived - expected_start :], arrived
        return super().add_to_resumable_upload(file_id, content, total_size, expected_start)

    def get_file_obj(self, bucket: str, name: str) -> dict[str, Any]:
        self._check_conditions(bucket, name)
        return super().get_file_obj(bucket, name)

    def delete_file(self, bucket: str, name: str) -> None:
        if name in self.objects.get(bucket, {}):
            self._check_conditions(bucket, name)
            self._check_removal(bucket, name)
        super().delete_file(bucket, name)
        self.changes.append(Change(f"gs://{bucket}/{name}", 0, ""))


class _Handler(emulator.RequestHandler):
    """One connection. The emulator writes its response to memory; then it is sent, or what a fault leaves of it."""

    protocol_version = "HTTP/1.1"  # keeps connections open, as the service does
    disable_nagle_algorithm = True

    def __init__(self, buckets: Buckets, objects: Storage, *args: Any) -> None:
        self._buckets = buckets
        super().__init__(objects, *args)

    def do_GET(self) -> None:
        try:
            self.path = self._buckets.access.check(self.command, self.path, self.headers)
        except AccessError as refused:
            self.close_connection = True  # the body has not been read
            self.wfile.write(error_response(403, f"The stand-in refuses this request: {refused}"))
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._buckets.next_fault(self.command, self.path)
        response = b""
        if not (fault and fault.loses_request):
            received = faults.corrupted_upload(body) if fault and fault.kind == faults.CORRUPTED_UPLOAD else body
            response = self._buckets.carry_out(self, self.command, received)
        if fault and fault.kind == faults.REFUSED:
            response = error_response(fault.code, "injected by the stand-in")
        faults.send(self, response, fault)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def route(self, method: str, body: bytes) -> bytes:
        """The emulator's own response, or that of the service in its place."""
        if self._buckets.remote:
            return self._buckets.remote.send(method, self.path, self.headers, body, self._buckets.url)
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
        if not isinstance(sys.exception(), ConnectionError):  # the client has disconnected
            super().handle_error(*where)


def error_response(code: int, message: str) -> bytes:
    """An HTTP response with an error in the format of Cloud Storage."""
    return _json_response(code, {"error": {"code": code, "message": message, "errors": [{"message": message}]}})


def _json_response(code: int, content: dict[str, Any]) -> bytes:
    return _response(code, json.dumps(content).encode())


def _response(code: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d .\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (code, len(body)) + body


def _page(listing: dict[str, Any], size: int, query: dict[str, str]) -> dict[str, Any]:
    """One page of a listing, from `startOffset` on; a page's token is the number of entries before it."""
    start_offset, token = query.get("startOffset", ""), query.get("pageToken", "")
    entries = [("items", item) for item in listing.get("items", []) if item["name"] >= start_offset]
    entries += [("prefixes", prefix) for prefix in listing.get("prefixes", [])]
    start = int(token or 0)
    end = start + size
    page: dict[str, Any] = {"kind": listing["kind"], "items": [], "prefixes": []}
    for key, value in entries[start:end]:
        page[key].append(value)
    if end < len(entries):
        page["nextPageToken"] = str(end)
    return page
