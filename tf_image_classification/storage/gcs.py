"""Objects of Cloud Storage, through google-cloud-storage.

Every content is checked against its CRC-32C. Nothing is overwritten or deleted but the version that was seen, so that a
request that is repeated because its answer was lost cannot undo what another writer did since.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tf_image_classification.errors import FlagError
from tf_image_classification.storage import gcs_requests
from tf_image_classification.storage.gcs_requests import (
    missing,
    retry_on_corruption,
    retrying,
    translate_storage_errors,
)
from tf_image_classification.storage.local_files import Stat

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

SCHEME = "gs://"
_CONNECTIONS = 32  # as many as callers start threads
WRITER = "tf-image-classification-write"  # metadata of an object: the write that made it
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,220}[a-z0-9])?")
_LONGEST_NAME = 1024  # bytes


def split(path: str) -> tuple[str, str]:
    """gs://bucket/some/object -> (bucket, some/object).

    Raises:
        FlagError: no bucket can have this name.
    """
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    if not _BUCKET_NAME.fullmatch(bucket):
        raise FlagError("A gs:// path names no bucket", received=path, expected="gs://BUCKET/OBJECT")
    return bucket, name


def client() -> Client:
    """The client of the service, or of the emulator that STORAGE_EMULATOR_HOST names."""
    return _client(os.environ.get("STORAGE_EMULATOR_HOST", ""))


@functools.cache
def _client(emulator: str) -> Client:
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    if emulator:
        from google.auth.credentials import AnonymousCredentials

        made = storage.Client(
            project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator}
        )
    else:
        made = storage.Client()
    for scheme in ("https://", "http://"):
        made._http.mount(
            scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS)
        )  # by default ten, and a warning for each one more
    return made


def check_bucket(path: str) -> None:
    """Makes sure that the bucket of a gs:// path is there and may be listed.

    Raises:
        FileNotFoundError: it is not there.
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    from google.api_core.exceptions import NotFound

    try:
        next(
            iter(client().list_blobs(split(path)[0], max_results=1, retry=retrying(), timeout=gcs_requests.TIMEOUT)),
            None,
        )
    except NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such bucket", path) from None


def find(path: str) -> Stat | None:
    """The object of this name, if there is one."""
    if not _can_be(path):
        return None
    with translate_storage_errors(path):
        blob = blob_of(path).bucket.get_blob(split(path)[1], retry=retrying(), timeout=gcs_requests.TIMEOUT)
        return Stat(path, blob.size or 0, blob.generation) if blob else None


def stat(path: str) -> Stat:
    """Size and generation of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if found := find(path):
        return found
    raise missing(path)


def objects(folder: str) -> Iterator[Stat]:
    """The objects below a folder, in the order of their names; none in a bucket that is not there.

    Hidden ones, and those that stand for empty folders, are passed over.
    """
    bucket, prefix = split(folder)
    prefix = _below(prefix)
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        for blob in client().list_blobs(bucket, prefix=prefix, retry=retrying(), timeout=gcs_requests.TIMEOUT):
            parts = blob.name[len(prefix) :].split("/")
            if not parts[-1] or any(part.startswith(".") for part in parts):
                continue
            yield Stat(f"{SCHEME}{bucket}/{blob.name}", blob.size or 0, blob.generation)


def matching(pattern: str) -> list[str]:
    """The objects that match a glob, sorted."""
    bucket, name = split(pattern)
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(pattern):
        listing = client().list_blobs(bucket, match_glob=name, retry=retrying(), timeout=gcs_requests.TIMEOUT)
        return sorted(f"{SCHEME}{bucket}/{blob.name}" for blob in listing)
    return []


def names_in(folder: str) -> list[str]:
    """The names of the objects and folders directly in a folder, sorted."""
    bucket, prefix = split(folder)
    prefix = _below(prefix)
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        listing = client().list_blobs(
            bucket, prefix=prefix, delimiter="/", retry=retrying(), timeout=gcs_requests.TIMEOUT
        )
        found = {blob.name for blob in listing} | set(listing.prefixes)  # the folders are known when all pages are read
        return sorted(name[len(prefix) :].rstrip("/") for name in found)
    return []


def read(path: str) -> bytes:
    """The content of an object."""
    return read_version(path)[0]


def read_version(path: str) -> tuple[bytes, int]:
    """The content of an object, and its version.

    Raises:
        FileNotFoundError: there is no such object.
        AccessError: it may not be read.
    """
    if not _can_be(path):
        raise missing(path)

    def attempt() -> tuple[bytes, int]:
        blob = blob_of(path)
        # The library goes on where a connection broke, but checks the CRC of what came in one piece only.
        content = blob.download_as_bytes(retry=None, timeout=gcs_requests.TIMEOUT, checksum="crc32c")
        return content, blob.generation or 0

    with translate_storage_errors(path):
        return retry_on_corruption(attempt)


def write(path: str, content: bytes, if_version: int) -> int:
    """Writes an object if its version is still this one; 0: if there is none.

    Returns:
        The new version.

    Raises:
        ConflictError: there is another version.
    """
    with translate_storage_errors(path, writing=True):
        blob = blob_of(path)
        return put(blob, functools.partial(blob.upload_from_string, content), if_version)


def delete(found: Iterable[Stat]) -> None:
    """Deletes objects, if they still have these versions.

    Raises:
        ConflictError: one has another version by now.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    for path, _, version in found:
        with translate_storage_errors(path, writing=True):
            try:
                blob_of(path).delete(if_generation_match=version, retry=retrying(), timeout=gcs_requests.TIMEOUT)
            except (NotFound, PreconditionFailed):
                if find(path):  # else a first attempt was carried out, and its answer lost
                    raise


def put(blob: Blob, send: Callable[..., None], if_version: int) -> int:
    """Uploads an object if its version is still this one, and gives its new version.

    Args:
        send: one of the blob's upload methods, with its content.

    Raises:
        google.api_core.exceptions.PreconditionFailed: there is another version.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob.metadata = {WRITER: (blob.metadata or {}).get(WRITER) or uuid.uuid4().hex}
    mine = blob.metadata[WRITER]
    try:
        retry_on_corruption(lambda: send(if_generation_match=if_version, **upload_options()))
    except PreconditionFailed:
        found = blob.bucket.get_blob(blob.name, retry=retrying(), timeout=gcs_requests.TIMEOUT)
        if not found or (found.metadata or {}).get(WRITER) != mine:
            raise
        return found.generation  # an earlier attempt was carried out, and its answer lost
    return blob.generation or 0


def upload_options() -> dict[str, Any]:
    """What every upload is called with."""
    return {"retry": retrying(), "timeout": gcs_requests.TIMEOUT, "checksum": "crc32c"}


def _can_be(path: str) -> bool:
    """Whether an object may have this name; the service answers others with a bad request."""
    name = split(path)[1]
    length = len(name.encode(errors="surrogatepass"))
    return 0 < length <= _LONGEST_NAME and len(name.splitlines()) == 1 and name not in (".", "..")


def _below(prefix: str) -> str:
    return prefix.rstrip("/") + "/" if prefix else ""


def blob_of(path: str, version: int | None = None, part: int | None = None) -> Blob:
    """The library's handle of an object: of one version of it, sent or fetched in parts of so many bytes."""
    bucket, name = split(path)
    return client().bucket(bucket).blob(name, generation=version, chunk_size=part)
