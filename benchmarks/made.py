"""Made entries for `benchmarks.scale`: a folder of classes, lists, a bucket and the results of checks, of any number.

`python -m benchmarks.made NUMBER` serves a bucket with so many objects on 127.0.0.1, and prints the URL.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from tf_image_classification.build_tfrecords import signature
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES, plan, shard_name
from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.build_tfrecords.worker_messages import ImageChunk, PartResult, WrittenImage, record_lengths
from tf_image_classification.data.manifest import Shard

CLASSES = 1000
BUCKET = "gs://made"
RECORD_BYTES = 110_000  # of a photograph, as of those that the rates are measured on

_LINKS = 60_000  # names of a file: ext4 admits 65,000
_PAGE = 1000  # objects, as of Cloud Storage


def name(number: int, entries: int) -> str:
    """The name of an image: those of a class follow each other, and numbers count in the order of the names."""
    each = -(-entries // CLASSES)
    return f"class_{number // each:04}/photograph_{number % each:08}.jpg"


def folder(path: str, entries: int) -> str:
    """Makes a folder of classes whose files are empty: further names of a few files."""
    original = ""
    for number in range(entries):
        file = os.path.join(path, name(number, entries))
        if number % _LINKS == 0:
            original = f"{path}-{number}"
            open(original, "x").close()
        try:
            os.link(original, file)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file))
            os.link(original, file)
    return path


def csv(path: str, root: str, entries: int) -> str:
    """Writes a CSV of `path,label` lines, neither sorted by path nor by class."""
    with open(path, "w", encoding="utf-8") as file:
        for number in _scattered(entries):
            image = name(number, entries)
            file.write(f"{root}/{image},{image.partition('/')[0]}\n")
    return path


def _scattered(entries: int) -> Iterator[int]:
    """All numbers below `entries`, each far from the one before it."""
    step = next(step for step in range(int(entries * 0.618), 2 * entries + 2) if np.gcd(step, entries) == 1)
    return (index * step % entries for index in range(entries))


@contextlib.contextmanager
def bucket(entries: int) -> Iterator[str]:
    """Serves `BUCKET` from a process of its own; yields the value for STORAGE_EMULATOR_HOST."""
    command = [sys.executable, "-m", "benchmarks.made", str(entries)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


class MadeEngine:
    """An engine of a build (see engines.Engine) that checks nothing: each image is a photograph of its own."""

    def __init__(self) -> None:
        self.elsewhere: Mapping[str, str] = {}
        self._lengths: dict[str, int] = {}

    def results(
        self, folder: str | None, chunks: Iterable[ImageChunk], total: int
    ) -> Iterator[tuple[ImageChunk, PartResult]]:
        """See Engine."""
        random = np.random.default_rng(1)
        for chunk in chunks:
            count = len(chunk.images)
            made = random.integers(0, 256, (count, signature.BYTES), np.uint8)
            looks = [Look(row[:12].tobytes(), False, row.tobytes()) for row in made]
            images = [WrittenImage(RECORD_BYTES, 375, 500, "jpeg", False, 0, None)] * count
            part = PartResult(list(images), looks)
            self._lengths[chunk.split] = self._lengths.get(chunk.split, 0) + len(record_lengths(part))
            yield chunk, part

    def finish(self, split: str) -> tuple[Shard, ...]:
        """See Engine."""
        chunk = [RECORD_BYTES] * 1000
        whole, rest = divmod(self._lengths[split], len(chunk))
        parts = ((number, chunk if number < whole else chunk[:rest]) for number in range(whole + 1))
        planned = plan(parts, SHARD_BYTES)
        return tuple(
            Shard(shard_name(split, index, len(planned)), shard.examples, shard.bytes, f"{index:08x}")
            for index, shard in enumerate(planned)
        )


class _Handler(BaseHTTPRequestHandler):
    """Listings of objects in pages, and what single objects are, as Cloud Storage's JSON API answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    entries: int

    def do_GET(self) -> None:
        """Answers a listing, or the resource of an object."""
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path.endswith("/o"):
            self._send(200, self._listing(query))
            return
        number = self._at_or_after(found := unquote(url.path.rpartition("/o/")[2]))
        if number < self.entries and name(number, self.entries) == found:
            self._send(200, _resource(found, number, short=False))
        else:
            self._send(404, '{"error": {"code": 404, "message": "not found"}}')

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _send(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _listing(self, query: Mapping[str, str]) -> str:
        prefix = query.get("prefix", "")
        first = int(query.get("pageToken") or self._at_or_after(max(prefix, query.get("startOffset", ""))))
        end = self._at_or_after(prefix + "\U0010ffff") if prefix else self.entries
        if "endOffset" in query:
            end = min(end, self._at_or_after(query["endOffset"]))
        if query.get("delimiter"):
            number = -(-self.entries // CLASSES)
            folders = sorted({name(first, self.entries).partition("/")[0] + "/" for first in range(0, end, number)})
            return json.dumps({"kind": "storage#objects", "prefixes": folders if not prefix else []})
        stop = min(end, first + min(int(query.get("maxResults", _PAGE)), _PAGE))
        short = "fields" in query
        items = ",".join(_resource(name(number, self.entries), number, short) for number in range(first, stop))
        token = f'"nextPageToken":"{stop}",' if stop < end else ""
        return f'{{"kind":"storage#objects",{token}"items":[{items}]}}'

    def _at_or_after(self, key: str) -> int:
        """The number of the first object whose name is not before a text."""
        low, high = 0, self.entries
        while low < high:
            middle = (low + high) // 2
            if name(middle, self.entries) < key:
                low = middle + 1
            else:
                high = middle
        return low


def _resource(path: str, number: int, short: bool) -> str:
    if short:
        return f'{{"name":"{path}","generation":"{1700000000000000 + number}","size":"{RECORD_BYTES}"}}'
    quoted = path.replace("/", "%2F")
    return (
        f'{{"kind":"storage#object","id":"made/{path}/{1700000000000000 + number}","selfLink":'
        f'"https://www.googleapis.com/storage/v1/b/made/o/{quoted}","mediaLink":"https://storage.googleapis.com/'
        f'download/storage/v1/b/made/o/{quoted}?generation={1700000000000000 + number}&alt=media","name":"{path}",'
        f'"bucket":"made","generation":"{1700000000000000 + number}","metageneration":"1","contentType":"image/jpeg",'
        f'"storageClass":"STANDARD","size":"{RECORD_BYTES}","md5Hash":"1B2M2Y8AsgTpgAmY7PhCfg==","crc32c":"AAAAAA==",'
        '"etag":"CJDOt8bS8/8CEAE=","timeCreated":"2026-01-01T00:00:00.000Z","updated":"2026-01-01T00:00:00.000Z",'
        '"timeStorageClassUpdated":"2026-01-01T00:00:00.000Z","timeFinalized":"2026-01-01T00:00:00.000Z"}'
    )


if __name__ == "__main__":
    _Handler.entries = int(sys.argv[1])
    service = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    service.daemon_threads = True
    print(f"http://127.0.0.1:{service.server_port}", flush=True)
    service.serve_forever()
