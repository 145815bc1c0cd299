"""Objects of Cloud Storage, through google-cloud-storage, whatever the network and the service do meanwhile.

Passing trouble is waited out: each request is repeated with growing pauses, and what arrived damaged is fetched or sent again.
Trouble that stays is one UserError. Every content is checked against its CRC-32C. Nothing is overwritten or deleted but the
version that was seen, so that a request that is repeated because its answer was lost cannot undo what another writer did since.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tf_image_classification.errors import AccessError, Conflict, FlagError, UserError
from tf_image_classification.local_files import Stat

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.storage import Blob, Client

SCHEME = "gs://"

FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 0.1, 20.0, 300.0  # seconds between attempts, and until the last one
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a byte of the answer
_CONNECTIONS = 32  # as many as callers start threads
WRITER = "tf-image-classification-write"  # metadata of an object: the write that made it
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,220}[a-z0-9])?")
_LONGEST_NAME = 1024  # bytes

_Result = TypeVar("_Result")


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

        made = storage.Client(project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator})
    else:
        made = storage.Client()
    for scheme in ("https://", "http://"):
        made._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))  # by default ten, and a warning for each one more
    return made


def check_bucket(path: str) -> None:
    """Makes sure that the bucket of a gs:// path is there and may be listed.

    Raises:
        FileNotFoundError: it is not there.
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    from google.api_core.exceptions import NotFound

    try:
        next(iter(client().list_blobs(split(path)[0], max_results=1, retry=retrying(), timeout=TIMEOUT)), None)
    except NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such bucket", path) from None


def find(path: str) -> Stat | None:
    """The object of this name, if there is one."""
    if not _can_be(path):
        return None
    with speaking(path):
        blob = blob_of(path).bucket.get_blob(split(path)[1], retry=retrying(), timeout=TIMEOUT)
        return Stat(path, blob.size or 0, blob.generation) if blob else None


def stat(path: str) -> Stat:
    """Size and generation of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if found := find(path):
        return found
    raise _missing(path)


def objects(folder: str) -> Iterator[Stat]:
    """The objects below a folder, in the order of their names; none in a bucket that is not there.

    Hidden ones, and those that stand for empty folders, are passed over.
    """
    bucket, prefix = split(folder)
    prefix = _below(prefix)
    with contextlib.suppress(FileNotFoundError), speaking(folder):
        for blob in client().list_blobs(bucket, prefix=prefix, retry=retrying(), timeout=TIMEOUT):
            parts = blob.name[len(prefix) :].split("/")
            if not parts[-1] or any(part.startswith(".") for part in parts):
                continue
            yield Stat(f"{SCHEME}{bucket}/{blob.name}", blob.size or 0, blob.generation)


def matching(pattern: str) -> list[str]:
    """The objects that match a glob, sorted."""
    bucket, name = split(pattern)
    with contextlib.suppress(FileNotFoundError), speaking(pattern):
        listing = client().list_blobs(bucket, match_glob=name, retry=retrying(), timeout=TIMEOUT)
        return sorted(f"{SCHEME}{bucket}/{blob.name}" for blob in listing)
    return []


def names_in(folder: str) -> list[str]:
    """The names of the objects and folders directly in a folder, sorted."""
    bucket, prefix = split(folder)
    prefix = _below(prefix)
    with contextlib.suppress(FileNotFoundError), speaking(folder):
        listing = client().list_blobs(bucket, prefix=prefix, delimiter="/", retry=retrying(), timeout=TIMEOUT)
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
        raise _missing(path)

    def attempt() -> tuple[bytes, int]:
        blob = blob_of(path)
        # The library goes on where a connection broke, but checks the CRC of what came in one piece only.
        content = blob.download_as_bytes(retry=None, timeout=TIMEOUT, checksum="crc32c")
        return content, blob.generation or 0

    with speaking(path):
        return until_whole(attempt)


def write(path: str, content: bytes, if_version: int) -> int:
    """Writes an object if its version is still this one; 0: if there is none.

    Returns:
        The new version.

    Raises:
        Conflict: there is another version.
    """
    with speaking(path, writing=True):
        blob = blob_of(path)
        return put(blob, functools.partial(blob.upload_from_string, content), if_version)


def delete(found: Iterable[Stat]) -> None:
    """Deletes objects, if they still have these versions.

    Raises:
        Conflict: one has another version by now.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    for path, _, version in found:
        with speaking(path, writing=True):
            try:
                blob_of(path).delete(if_generation_match=version, retry=retrying(), timeout=TIMEOUT)
            except (NotFound, PreconditionFailed):
                if find(path):  # else a first attempt was carried out, and its answer lost
                    raise


def put(blob: Blob, send: Callable[..., None], if_version: int) -> int:
    from google.api_core.exceptions import PreconditionFailed

    blob.metadata = {WRITER: (blob.metadata or {}).get(WRITER) or uuid.uuid4().hex}
    mine = blob.metadata[WRITER]
    try:
        until_whole(lambda: send(if_generation_match=if_version, **upload_options()))
    except PreconditionFailed:
        found = blob.bucket.get_blob(blob.name, retry=retrying(), timeout=TIMEOUT)
        if not found or (found.metadata or {}).get(WRITER) != mine:
            raise
        return found.generation  # an earlier attempt was carried out, and its answer lost
    return blob.generation or 0


def upload_options() -> dict[str, Any]:
    return {"retry": retrying(), "timeout": TIMEOUT, "checksum": "crc32c"}


def retrying() -> Retry:
    """Repeats what failed by passing trouble: 408, 429, 5xx, connections that cannot be made, break off or stall."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(FIRST_PAUSE, LONGEST_PAUSE, 2.0).with_timeout(PATIENCE)


def until_whole(attempt: Callable[[], _Result]) -> _Result:
    """Repeats an attempt to move a whole content, also when the content came damaged."""
    from google.api_core.retry import Retry

    damaged = Retry(predicate=_is_damage, initial=FIRST_PAUSE, maximum=LONGEST_PAUSE, timeout=PATIENCE)
    return retrying()(damaged(attempt))()


def _is_damage(error: Exception) -> bool:
    from google.api_core.exceptions import BadRequest
    from google.cloud.storage.exceptions import DataCorruption

    # The service refuses a damaged upload as a bad request, whose only mark is its text.
    return isinstance(error, DataCorruption) or (isinstance(error, BadRequest) and "match calculated" in str(error))


@contextlib.contextmanager
def speaking(path: str, writing: bool = False) -> Iterator[None]:
    """Turns what the service or the network refuses for good into the errors that this project knows.

    Raises:
        FileNotFoundError: there is no such object or, on listing, no such bucket.
        AccessError: this account may not do that.
        Conflict: the object has another version than was asked for.
        UserError: anything else.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.NotFound:
        if writing:
            raise FlagError("The bucket does not exist", received=path, expected="a bucket that is there") from None
        raise _missing(path) from None
    except exceptions.Forbidden as error:
        role = "roles/storage.objectUser" if writing else "roles/storage.objectViewer"
        doing = "write to" if writing else "read from"
        raise AccessError(
            f"This account may not {doing} the bucket", received=f"{path}: {_said(error)}", hint=f"Ask for {role} on it.", path=path
        ) from None
    except exceptions.PreconditionFailed:
        raise changed(path) from None
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise UserError(
            "There are no usable Google Cloud credentials",
            received=f"{path}: {_said(error)}",
            hint="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ) from None
    except (exceptions.GoogleAPIError, DataCorruption, InvalidResponse, requests.RequestException, ConnectionError) as error:
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        raise UserError(
            "Cloud Storage does not do what it is asked for" + (f", after {PATIENCE:.0f} s of trying" if cause is not error else ""),
            received=f"{path}: {_said(cause)}",
            hint="Run the same again when the service and the network are well.",
        ) from None


def _said(error: BaseException) -> str:
    """What the service answered, else the error's text, without addresses: that of an upload is as good as a credential."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {re.sub(r'[?][^ ]+', '', str(error))}"
    said = re.search(r'"message": *"([^"]*)"', response.text)
    return f"{response.status_code} {response.reason}: {said[1] if said else response.text[:200]}"


def changed(path: str) -> Conflict:
    return Conflict("Another process has changed this meanwhile", received=path, hint="Try again when it has ended.")


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _can_be(path: str) -> bool:
    """Whether an object may have this name; the service answers others with a bad request."""
    name = split(path)[1]
    length = len(name.encode(errors="surrogatepass"))
    return 0 < length <= _LONGEST_NAME and len(name.splitlines()) == 1 and name not in (".", "..")


def _below(prefix: str) -> str:
    return prefix.rstrip("/") + "/" if prefix else ""


def blob_of(path: str, version: int | None = None) -> Blob:
    bucket, name = split(path)
    return client().bucket(bucket).blob(name, generation=version)
