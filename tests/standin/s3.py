"""Amazon S3 or MinIO on 127.0.0.1: moto's server in this process, and what it lacks.

Added are conditions on the end of an upload in parts, checksums of contents, unknown access keys, and faults. As on
MinIO, a deletion is carried out whatever its conditions, unless the service is to be `aws`. Not served: signatures,
rights, versions.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import re
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import boto3
from moto import backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.test import run_wsgi_app

from tests.standin import faults
from tests.standin.access import HOST, Access, AccessError
from tests.standin.bucket import Change
from tests.standin.faults import Fault

ACCESS_KEY, SECRET_KEY = "minio", "minio123"
_CODES = {
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    429: "SlowDown",
    500: "InternalError",
    503: "SlowDown",
}
_UNKNOWN_KEY, _CHECKSUM = "InvalidAccessKeyId", "XAmzContentChecksumMismatch"
_CREDENTIAL = re.compile(r"Credential=([^/]*)/")


def environment(url: str) -> dict[str, str]:
    """The variables by which a process finds this service."""
    return {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def client(url: str) -> Any:
    """boto3's client of the service at this URL."""
    return _session().client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )


def fill(url: str, bucket: str, prefix: str, folder: Path) -> None:
    """Copies a local file, or the files of a folder, to s3://BUCKET/PREFIX."""
    target = client(url)
    for file in (folder, *folder.rglob("*")):
        if file.is_file():
            name = f"{prefix}/{file.relative_to(folder).as_posix()}".removesuffix("/.")
            target.upload_file(str(file), bucket, name)


@functools.cache
def _session() -> boto3.session.Session:
    return boto3.session.Session()


@functools.cache
def _moto() -> DomainDispatcherApplication:
    return DomainDispatcherApplication(create_backend_app)


class S3:
    """A service with these buckets, which runs while a `with` block does; one at a time in a process.

    Attributes: as of `bucket.Buckets`, with ETags as the checksums of changes.
        aws: whether deletions heed their conditions, as on Amazon S3.
        is_old: whether it ignores all conditions, as the MinIO of 2019 that Kubeflow has shipped for long.
        code: of the errors that are injected; '' for the one that fits their status.
    """

    def __init__(self, *names: str, page_size: int = 1000) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.injected: Counter[str] = Counter()
        self.changes: list[Change] = []
        self.lock = threading.RLock()
        self.aws = self.is_old = False
        self.code = ""
        self._names, self._page_size = names, page_size
        self._moto = _moto()
        self._server = _Server((HOST, 0), type("Handler", (_Handler,), {"service": self}))
        self.access = Access(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT/SECRET"""
        return self.access.url

    def __enter__(self) -> S3:
        self._thread.start()
        self.reset(*self._names)
        return self

    def reset(self, *names: str) -> None:
        """Begins anew, with these empty buckets and without faults."""
        backends.get_backend("s3").reset()
        self.faults, self.code, self.aws, self.is_old = [], "", False, False
        for name in names:
            client(self.url).create_bucket(Bucket=name)
        self.requests.clear()
        self.changes.clear()

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
                self.injected[fault.kind] += 1
            return fault

    def unfinished_uploads(self, bucket: str) -> int:
        """How many uploads in parts have neither ended nor been aborted."""
        return len(client(self.url).list_multipart_uploads(Bucket=bucket).get("Uploads", []))

    def carry_out(self, environ: dict[str, Any], headers: Mapping[str, str]) -> bytes:
        """Carries out a request, and returns the whole HTTP response."""
        method, url = environ["REQUEST_METHOD"], urlparse(environ["RAW_URI"])
        query = parse_qs(url.query, keep_blank_values=True)
        bucket, _, name = unquote(url.path).removeprefix("/").partition("/")
        if (used := _CREDENTIAL.search(headers.get("Authorization", ""))) and used[1] != ACCESS_KEY:
            return error_response(403, "The Access Key Id you provided does not exist in our records.", _UNKNOWN_KEY)
        is_end = method == "POST" and "uploadId" in query
        is_write = is_end or (method == "PUT" and name != "" and "uploadId" not in query)
        if (sent := headers.get("x-amz-checksum-crc32")) and sent != _crc32(environ["wsgi.input"].getvalue()):
            return error_response(400, "The provided checksum does not match the content", _CHECKSUM)
        with self.lock:
            before = _object(bucket, name)
            if is_end and not _holds(headers, before):
                return error_response(412, "At least one of the pre-conditions you specified did not hold")
            if self.is_old or (method == "DELETE" and not self.aws):
                environ.pop("HTTP_IF_MATCH", None)
                environ.pop("HTTP_IF_NONE_MATCH", None)
            if "list-type" in query and "max-keys" not in query:
                environ["QUERY_STRING"] += f"&max-keys={self._page_size}"
            content, status, answered = run_wsgi_app(self._moto, environ, buffered=True)
            body = b"".join(content)
            after = _object(bucket, name)
            if status.startswith("20") and (is_write or (before and not after)):
                size, tag = (after.size, after.etag) if after else (0, "")
                self.changes.append(Change(f"s3://{bucket}/{name}", size, tag))
        return _response(method, status, answered, body)


class _Handler(MotoRequestHandler):
    """One connection. moto's response is taken whole; then it is sent, or what a fault leaves of it."""

    protocol_version = "HTTP/1.1"  # keeps connections open, as services do
    disable_nagle_algorithm = True
    service: S3

    def run_wsgi(self) -> None:
        try:
            # The method is one whose Content-Type is not looked at: the secret protects the others as well.
            self.path = self.service.access.check("PUT", self.path, self.headers)
        except AccessError as refused:
            self.close_connection = True  # the body has not been read
            self.wfile.write(error_response(403, f"The stand-in refuses this request: {refused}"))
            return
        environ = self.make_environ()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.service.next_fault(self.command, self.path)
        if fault and fault.kind == faults.CORRUPTED_UPLOAD:
            body = faults.corrupted(body)
        response = b""
        if not (fault and fault.loses_request):
            environ["wsgi.input"] = io.BytesIO(body)
            response = self.service.carry_out(environ, self.headers)
        if fault and fault.kind == faults.REFUSED:
            response = error_response(fault.code, "injected by the stand-in", self.service.code, self.command)
        faults.send(self, response, fault)

    def log(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    ssl_context = None  # as werkzeug's handler looks for it
    multithread, multiprocess = True, False

    def handle_error(self, *where: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client has disconnected
            super().handle_error(*where)


def error_response(code: int, message: str, name: str = "", method: str = "GET") -> bytes:
    """An HTTP response with an error in the format of S3; that to a HEAD has no body."""
    name = name or _CODES.get(code, "InvalidRequest")
    if method == "HEAD":
        return b"HTTP/1.1 %d .\r\nContent-Length: 0\r\n\r\n" % code
    body = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>{message}</Message></Error>".encode()
    return b"HTTP/1.1 %d .\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (code, len(body)) + body


def _response(method: str, status: str, answered: Any, body: bytes) -> bytes:
    fields = [(name, value) for name, value in answered if name.lower() not in ("connection", "content-length")]
    length = answered.get("Content-Length", "0") if method == "HEAD" else str(len(body))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), f"Content-Length: {length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()


def _object(bucket: str, name: str) -> Any:
    """moto's object; None if it does not exist."""
    found = backends.get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(bucket)
    return found.keys.get(name) if found and name else None


def _holds(headers: Mapping[str, str], found: Any) -> bool:
    """Whether the conditions of a write hold for the object that is there."""
    if (expected := headers.get("If-Match")) and (not found or found.etag != expected):
        return False
    return not (headers.get("If-None-Match") and found)
