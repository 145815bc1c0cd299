"""Objects of Cloud Storage, through google-cloud-storage.

Every content is checked against its CRC-32C. An object is overwritten or deleted only in the version that was seen, so
that a request that is repeated because its response was lost cannot undo another writer's change.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fnmatch
import functools
import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tf_image_classification.storage import gcs_client, gcs_requests
from tf_image_classification.storage.gcs_requests import retry_on_corruption, storage_retry, translate_storage_errors
from tf_image_classification.storage.local_files import Stat, Version, not_found_error
from tf_image_classification.storage.object_names import hidden_part, is_placeholder, is_valid_name, visible
from tf_image_classification.storage.paths import GCS_SCHEME, as_prefix, split_gcs

if TYPE_CHECKING:
    from google.cloud.storage import Blob

WRITER = "tf-image-classification-write"  # metadata key of an object: id of the write that created it
_OF_LISTING = "items(name,size,generation),nextPageToken"  # a third of what an object's resource holds
# Where the service's globs differ from those of a local file system: classes, alternatives and escapes.
_SPECIAL_IN_GLOB = re.compile(r"\[!?\]?[^\]]*\]|[][{}\\]")


def check_bucket(path: str) -> None:
    """Checks that the bucket of a gs:// path exists and that this account may list it.

    Raises:
        FileNotFoundError: bucket not found.
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    from google.api_core.exceptions import NotFound

    bucket, _ = split_gcs(path)
    listing = gcs_client.bucket(bucket).list_blobs(max_results=1, **_request_options())
    try:
        next(iter(listing), None)
    except NotFound:
        raise FileNotFoundError(errno.ENOENT, "bucket not found", path) from None


def retained_until(path: str) -> dt.datetime | None:
    """Until when the retention policy of a gs:// path's bucket keeps an object of it; None if none or for an empty one.

    The policy itself is shown only to who has storage.buckets.get, which no role for objects has.
    """
    bucket, _ = split_gcs(path)
    with translate_storage_errors(path):
        blob = next(iter(gcs_client.bucket(bucket).list_blobs(max_results=1, **_request_options())), None)
        return blob.retention_expiration_time if blob else None


def find(path: str) -> Stat | None:
    """Size and generation of an object; None if it does not exist."""
    if not is_valid_name(split_gcs(path)[1]):
        return None
    with translate_storage_errors(path):
        blob = blob_of(path).bucket.get_blob(split_gcs(path)[1], **_request_options())
        return Stat(path, blob.size or 0, blob.generation) if blob else None


def stat(path: str) -> Stat:
    """Size and generation of an object.

    Raises:
        FileNotFoundError: object not found.
    """
    if found := find(path):
        return found
    raise not_found_error(path)


def list_objects(folder: str, hidden: bool = False) -> Iterator[Stat]:
    """The objects below a folder, sorted by name; none if the bucket does not exist. Placeholders are left out.

    Args:
        hidden: also list hidden objects, and each hidden folder as one entry with a slash at its end.
    """
    bucket, prefix = split_gcs(as_prefix(folder))
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        blobs = gcs_client.bucket(bucket).list_blobs(prefix=prefix, fields=_OF_LISTING, **_request_options())
        found = (Stat(f"{GCS_SCHEME}{bucket}/{blob.name}", blob.size or 0, blob.generation) for blob in blobs)
        yield from visible(found, as_prefix(folder), hidden)


def page_of_objects(bucket_path: str, prefix: str, start: str, number: int) -> list[Stat]:
    """Objects of a bucket in one request: those whose names begin with a prefix, sorted, from a name on.

    Args:
        bucket_path: gs://BUCKET/.
        number: how many, at most.

    Raises:
        FileNotFoundError: bucket not found.
        AccessError: no permission to list it.
    """
    bucket, _ = split_gcs(bucket_path)
    asked = {"prefix": prefix, "start_offset": start, "max_results": number, "fields": _OF_LISTING}
    with translate_storage_errors(bucket_path):
        blobs = gcs_client.bucket(bucket).list_blobs(**asked, **_request_options())
        return [Stat(f"{bucket_path}{blob.name}", blob.size or 0, blob.generation) for blob in next(blobs.pages, ())]


def glob(pattern: str) -> list[str]:
    """The objects that match a glob, sorted. It means what a local one does, also where the service's differ."""
    bucket, name = split_gcs(pattern)
    parts = (part if part == "**" else _SPECIAL_IN_GLOB.sub("?", part).replace("**", "*") for part in name.split("/"))
    matches = re.compile(fnmatch.translate(name.replace("**/", "*"))).match
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(pattern):
        listing = gcs_client.bucket(bucket).list_blobs(match_glob="/".join(parts), **_request_options())
        named = [blob for blob in listing if matches(blob.name) and (hidden_part(name) or not hidden_part(blob.name))]
        found = (Stat(f"{GCS_SCHEME}{bucket}/{blob.name}", blob.size or 0, 0) for blob in named)
        return sorted(item.path for item in found if not is_placeholder(item))
    return []


def names_in(folder: str, folders_only: bool = False) -> list[str]:
    """The names of the objects and folders directly in a folder, sorted."""
    bucket, prefix = split_gcs(as_prefix(folder))
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        listing = gcs_client.bucket(bucket).list_blobs(prefix=prefix, delimiter="/", **_request_options())
        objects = {blob.name for blob in listing}
        folders = set(listing.prefixes)  # complete once all pages are read
        names = {name[len(prefix) :].removesuffix("/") for name in (folders if folders_only else objects | folders)}
        return sorted(names - {""})  # '' is the folder's own placeholder, or objects such as `folder//name`
    return []


def read_version(path: str, max_bytes: int | None = None) -> tuple[bytes, Version]:
    """The content of an object, and its generation.

    Args:
        max_bytes: the download of a larger object ends there; None for no limit.

    Raises:
        OSError: EFBIG, the object is larger.
        FileNotFoundError: object not found.
        AccessError: no permission to read it.
    """
    if not is_valid_name(split_gcs(path)[1]):
        raise not_found_error(path)

    def attempt() -> tuple[bytes, int]:
        blob = blob_of(path)
        # Without retries of the library: it resumes where a connection broke, and then does not check the CRC.
        content = _Content(max_bytes)
        blob.download_to_file(content, retry=None, timeout=gcs_requests.TIMEOUT, checksum="crc32c")
        return content.getvalue(), blob.generation or 0

    with translate_storage_errors(path):
        return retry_on_corruption(attempt)


class _Content(io.BytesIO):
    """What is downloaded: its size is checked on the way, without a request of its own."""

    def __init__(self, max_bytes: int | None) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, part: Any) -> int:
        if self._max_bytes is not None and self.tell() + len(part) > self._max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return super().write(part)


def write(path: str, content: bytes, if_version: Version) -> Version:
    """Writes an object if it still has this generation; 0: if it does not exist.

    Returns:
        The new generation.

    Raises:
        ConflictError: it has another generation.
    """
    with translate_storage_errors(path, writing=True):
        blob = blob_of(path)
        return upload_blob(blob, functools.partial(blob.upload_from_string, content), if_version)


def delete(objects: Iterable[Stat]) -> None:
    """Deletes objects, each if it still has this generation. Objects that are already gone are no error.

    Raises:
        ConflictError: one has another generation.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    for path, _, version, _ in objects:
        with translate_storage_errors(path, writing=True):
            try:
                blob_of(path).delete(if_generation_match=version, **_request_options())
            except (NotFound, PreconditionFailed):
                if find(path):  # otherwise an earlier attempt deleted it, and its response was lost
                    raise


def upload_blob(blob: Blob, upload_content: Callable[..., None], if_version: Version) -> Version:
    """Uploads an object if it still has this generation, and returns the new one.

    Idempotent: the object's metadata hold the id of its write, by which an upload that was carried out while its
    response was lost is recognised. Sets that id in `blob.metadata` unless it is there.

    Args:
        blob: the object's handle.
        upload_content: one of the blob's upload methods, with its content.
        if_version: the generation to replace; 0: none.

    Raises:
        google.api_core.exceptions.PreconditionFailed: it has another generation.
        google.api_core.exceptions.BadRequest: the service answers 412 for another reason, such as a policy.
    """
    from google.api_core.exceptions import BadRequest, PreconditionFailed

    blob.metadata = {WRITER: (blob.metadata or {}).get(WRITER) or uuid.uuid4().hex}
    write_id = blob.metadata[WRITER]
    for _ in range(2):
        try:
            retry_on_corruption(lambda: upload_content(if_generation_match=if_version, **upload_options()))
            return blob.generation or 0
        except PreconditionFailed as error:
            refused = error
        current = blob.bucket.get_blob(blob.name, **_request_options())
        if current and (current.metadata or {}).get(WRITER) == write_id:
            return current.generation
        if (current.generation if current else 0) != if_version:
            raise refused
    raise BadRequest(refused.message, response=refused.response)


def upload_options() -> dict[str, Any]:
    """Keyword arguments of every upload."""
    return {**_request_options(), "checksum": "crc32c"}


def blob_of(path: str, version: Version | None = None, chunk_bytes: int | None = None) -> Blob:
    """The library's handle of an object; sends no request.

    Args:
        path: gs://BUCKET/OBJECT.
        version: the generation to access; by default the newest.
        chunk_bytes: size of the parts in which it is uploaded or downloaded; by default in one part.
    """
    bucket, name = split_gcs(path)
    return gcs_client.bucket(bucket).blob(name, generation=version, chunk_size=chunk_bytes)


def _request_options() -> dict[str, Any]:
    return {"retry": storage_retry(), "timeout": gcs_requests.TIMEOUT}
