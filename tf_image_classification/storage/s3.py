"""Objects of Amazon S3, MinIO and others that speak S3's protocol, through boto3: what `gcs` is for Cloud Storage.

The version of an object is its ETag: an object that is written again with the same content keeps it, so what must not
be taken for another's writes a content of its own. Contents are checked by the checksums that boto3 sends and that the
service keeps. An object is overwritten only in the version that was seen (If-Match, If-None-Match). MinIO ignores such
a condition of a deletion: there, it is looked at just before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import GLOB_CHARACTERS
from tf_image_classification.storage import s3_errors
from tf_image_classification.storage.local_files import Stat, Version, conflict_error, not_found_error
from tf_image_classification.storage.object_names import hidden_part, is_placeholder, is_valid_name, visible
from tf_image_classification.storage.paths import as_prefix, split_remote
from tf_image_classification.storage.s3_requests import call, client, retried, translate_storage_errors

WRITER = "tf-image-classification-write"  # metadata key of an object: id of the write that created it
_NO_VERSION = "0" * 32  # an ETag that no object has
_conditional: set[tuple[str, str]] = set()  # endpoints and buckets that are known to heed conditions


def check_bucket(path: str) -> None:
    """Checks that the bucket of a path exists and that this account may list it.

    Raises:
        FileNotFoundError: bucket not found.
        AccessError, ServiceError: the service refuses.
    """
    _, bucket, _ = split_remote(path)
    with translate_storage_errors(path):
        call("list_objects_v2", Bucket=bucket, MaxKeys=1)


def find(path: str) -> Stat | None:
    """Size and ETag of an object; None if it does not exist."""
    found = head(path)
    return Stat(path, found["ContentLength"], version_of(found)) if found else None


def head(path: str) -> dict[str, Any] | None:
    """What the service says of an object without its content; None if it does not exist."""
    if not is_valid_name(split_remote(path)[2]):
        return None
    from botocore.exceptions import ClientError

    with translate_storage_errors(path):
        try:
            return call("head_object", **address(path))
        except ClientError as error:
            if s3_errors.is_not_found(error):
                return None
            call("list_objects_v2", Bucket=split_remote(path)[1], MaxKeys=1)  # says why, which a HEAD's answer cannot
            raise


def stat(path: str) -> Stat:
    """Size and ETag of an object.

    Raises:
        FileNotFoundError: object not found.
    """
    if found := find(path):
        return found
    raise not_found_error(path)


def list_objects(folder: str, hidden: bool = False) -> Iterator[Stat]:
    """The objects below a folder; see `gcs.list_objects`."""
    prefix = as_prefix(folder)
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        yield from visible(_listed(prefix), prefix, hidden)


def page_of_objects(bucket_path: str, prefix: str, start: str, number: int) -> list[Stat]:
    """Objects of a bucket in one request; see `gcs.page_of_objects`. Some before `start` may be among them."""
    scheme, bucket, _ = split_remote(bucket_path)
    with translate_storage_errors(bucket_path):
        # StartAfter leaves out the name that it is given, so it is one before it.
        page = call("list_objects_v2", Bucket=bucket, Prefix=prefix, StartAfter=start[:-1], MaxKeys=number)
    found = page.get("Contents", ())
    return [Stat(f"{scheme}{bucket}/{one['Key']}", one["Size"], version_of(one)) for one in found]


def glob(pattern: str) -> list[str]:
    """The objects that match a glob, sorted. The service knows none: all that begin like the pattern are listed."""
    scheme, bucket, name = split_remote(pattern)
    length = next((index for index, one in enumerate(name) if one in GLOB_CHARACTERS), len(name))
    prefix, parts = f"{scheme}{bucket}/{name[:length]}", name.split("/")
    start = len(f"{scheme}{bucket}/")
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(pattern):
        found = (item.path for item in _listed(prefix) if not is_placeholder(item))
        shown = (path for path in found if hidden_part(name) or not hidden_part(path[start:]))
        return sorted(path for path in shown if _matches(path[start:].split("/"), parts))
    return []


def names_in(folder: str, folders_only: bool = False) -> list[str]:
    """The names of the objects and folders directly in a folder, sorted."""
    _, bucket, prefix = split_remote(as_prefix(folder))
    names: set[str] = set()
    with contextlib.suppress(FileNotFoundError), translate_storage_errors(folder):
        for page in _pages(bucket, prefix, Delimiter="/"):
            folders = [one["Prefix"] for one in page.get("CommonPrefixes", ())]
            objects = [] if folders_only else [one["Key"] for one in page.get("Contents", ())]
            names |= {name[len(prefix) :].removesuffix("/") for name in folders + objects}
    return sorted(names - {""})  # see gcs.names_in


def read_version(path: str, max_bytes: int | None = None) -> tuple[bytes, Version]:
    """The content of an object, and its ETag; see `gcs.read_version`."""
    if not is_valid_name(split_remote(path)[2]):
        raise not_found_error(path)

    def attempt() -> tuple[bytes, Version]:
        answer = client().get_object(**address(path))
        with contextlib.closing(answer["Body"]) as body:
            if max_bytes is not None and answer["ContentLength"] > max_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return body.read(), version_of(answer)

    with translate_storage_errors(path):
        return retried(attempt)


def write(path: str, content: bytes, if_version: Version) -> Version:
    """Writes an object if it still has this ETag; 0: if it does not exist.

    Returns:
        The new ETag.

    Raises:
        ConflictError: it has another one.
    """
    with translate_storage_errors(path, writing=True):
        return put(path, content, if_version)


def put(path: str, content: bytes, if_version: Version) -> Version:
    """Writes an object in one request, as `write` does.

    Idempotent: see `written_by`.

    Raises:
        botocore.exceptions.ClientError: 412, 404 or 409, it has another ETag.
        FlagError: the service ignores such conditions.
    """
    from botocore.exceptions import ClientError

    write_id = uuid.uuid4().hex

    def send(version: Version) -> Version:
        sent = {**address(path), "Body": content, "Metadata": {WRITER: write_id}, "ChecksumAlgorithm": "CRC32"}
        return version_of(call("put_object", **sent, **condition(version)))

    try:
        written = send(if_version)
    except ClientError:
        if not (found := written_by(path, write_id)):
            raise
        written = found
    _check_conditions(path, send)
    return written


def _check_conditions(path: str, send: Callable[[Version], Version]) -> None:
    """Checks once per bucket that the service heeds conditions: old MinIOs ignore them, and writers would lose updates.

    Args:
        send: writes the object that was just written once more, if it has a version.
    """
    from botocore.exceptions import ClientError

    bucket = (client().meta.endpoint_url, split_remote(path)[1])
    if bucket in _conditional:
        return
    try:
        send(_NO_VERSION)
    except ClientError as error:
        if s3_errors.status_of(error) not in (404, 412):
            raise
        _conditional.add(bucket)
        return
    raise FlagError(
        "The S3 service ignores conditional writes, by which concurrent runs do not overwrite each other's files",
        received=f"{path}: a write with If-Match for another ETag succeeded",
        expected="a service that answers it with 412: Amazon S3, or a recent MinIO",
    )


def written_by(path: str, write_id: str) -> Version | None:
    """The ETag of an object if it is of this write, which was carried out while its answer was lost; else None."""
    found = head(path)
    return version_of(found) if found and found.get("Metadata", {}).get(WRITER) == write_id else None


def delete(objects: Iterable[Stat]) -> None:
    """Deletes objects, each if it still has this ETag. Objects that are already gone are no error.

    Raises:
        ConflictError: one has another ETag.
    """
    from botocore.exceptions import ClientError

    for path, _, version, _ in objects:
        found = find(path)
        if found is None:
            continue
        if found.version != version:
            raise conflict_error(path)
        with translate_storage_errors(path, writing=True):
            try:
                call("delete_object", **address(path), **condition(version))
            except ClientError as error:
                if not s3_errors.is_not_found(error):  # it is gone
                    raise


def address(path: str) -> dict[str, str]:
    """Bucket and key of an object, as boto3's methods take them."""
    _, bucket, name = split_remote(path)
    return {"Bucket": bucket, "Key": name}


def version_of(answer: dict[str, Any]) -> Version:
    """The ETag of an answer or of an entry of a listing, without its quotes."""
    return str(answer["ETag"]).strip('"')


def condition(version: Version) -> dict[str, str]:
    """The condition of a request that an object has this version; 0: that it does not exist."""
    return {"IfMatch": f'"{version}"'} if version else {"IfNoneMatch": "*"}


def _listed(prefix: str) -> Iterator[Stat]:
    """The objects whose paths begin so, sorted by name."""
    scheme, bucket, name = split_remote(prefix)
    for page in _pages(bucket, name):
        for one in page.get("Contents", ()):
            yield Stat(f"{scheme}{bucket}/{one['Key']}", one["Size"], version_of(one))


def _pages(bucket: str, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
    """The pages of a listing."""
    arguments = {"Bucket": bucket, "Prefix": prefix, **options}
    while True:
        page = call("list_objects_v2", **arguments)
        yield page
        if not page.get("IsTruncated"):
            return
        arguments["ContinuationToken"] = page["NextContinuationToken"]


def _matches(names: list[str], parts: list[str]) -> bool:
    """Whether the parts of a name match those of a glob; `**` stands for any number of folders, at its end for files
    in them too."""
    if not parts:
        return not names
    if parts[0] == "**":
        rest = parts[1:]
        return any(_matches(names[start:], rest) for start in range(len(names))) if rest else bool(names)
    return bool(names) and fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])
