"""Files to and from S3: several at once, large ones in parts; what `gcs_transfers` is for Cloud Storage."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from tf_image_classification.storage import s3, s3_errors
from tf_image_classification.storage.local_files import Stat, Version, conflict_error
from tf_image_classification.storage.paths import as_prefix
from tf_image_classification.storage.s3_requests import call, client, retried, translate_storage_errors

_CHUNK_BYTES = 16 * 2**20  # of uploads, at least 5 MiB; each thread holds one in memory
_THREADS = 8

_Item = TypeVar("_Item")


def upload(file: str, path: str) -> None:
    """Copies a local file of any size to an object, which it replaces; it appears whole or not at all.

    Raises:
        ConflictError: another process has written it meanwhile.
    """
    found = s3.find(path)
    _upload(file, path, found.version if found else 0)


def upload_files(folder: str, names: Sequence[str], destination: str) -> None:
    """Copies local files to objects that do not exist yet; see `gcs_transfers.upload_files`."""
    prefix = as_prefix(destination)
    sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in names}
    small = [name for name in names if sizes[name] <= _CHUNK_BYTES]
    _in_threads(lambda name: _upload(os.path.join(folder, name), prefix + name, 0), small)
    for name in names:
        if sizes[name] > _CHUNK_BYTES:
            _upload(os.path.join(folder, name), prefix + name, 0)


def copy_files(sources: Mapping[str, str], destination: str) -> None:
    """Copies objects of up to 5 GB; see `gcs_transfers.copy_files`."""

    def copy(name: str) -> None:
        path = as_prefix(destination) + name
        with translate_storage_errors(path, writing=True):
            call("copy_object", **s3.address(path), CopySource=s3.address(sources[name]))

    _in_threads(copy, list(sources))


def download_files(objects: Sequence[Stat], files: Sequence[str]) -> None:
    """Copies objects, in these versions, to local files; creates the files' folders.

    Raises:
        ConflictError: one of them has been deleted, or has another version.
    """
    for file in files:
        os.makedirs(os.path.dirname(file), exist_ok=True)
    _in_threads(lambda pair: _download(*pair), list(zip(objects, files, strict=True)))


def _download(item: Stat, file: str) -> None:
    from botocore.exceptions import ClientError

    def attempt() -> None:
        answer = client().get_object(**s3.address(item.path), **s3.condition(item.version))
        with contextlib.closing(answer["Body"]) as body, open(file, "wb") as target:
            shutil.copyfileobj(body, target, 2**20)

    with translate_storage_errors(item.path):
        try:
            retried(attempt)
        except ClientError as error:
            if s3_errors.is_not_found(error):
                raise conflict_error(item.path) from None
            raise


def _upload(file: str, path: str, if_version: Version) -> None:
    with translate_storage_errors(path, writing=True), open(file, "rb") as source:
        if os.fstat(source.fileno()).st_size <= _CHUNK_BYTES:
            s3.put(path, source.read(), if_version)
        else:
            _upload_parts(source, path, if_version)


def _upload_parts(source: BinaryIO, path: str, if_version: Version) -> None:
    """Uploads in parts, which become an object at the end; where that fails, they are removed."""
    from botocore.exceptions import ClientError

    write_id = uuid.uuid4().hex
    started = call(
        "create_multipart_upload", **s3.address(path), Metadata={s3.WRITER: write_id}, ChecksumAlgorithm="CRC32"
    )
    upload_of = {**s3.address(path), "UploadId": started["UploadId"]}
    size = os.fstat(source.fileno()).st_size
    descriptor = source.fileno()

    def send(number: int) -> dict[str, Any]:
        content = os.pread(descriptor, _CHUNK_BYTES, (number - 1) * _CHUNK_BYTES)
        sent = call("upload_part", **upload_of, PartNumber=number, Body=content, ChecksumAlgorithm="CRC32")
        checksum = {"ChecksumCRC32": sent["ChecksumCRC32"]} if "ChecksumCRC32" in sent else {}
        return {"PartNumber": number, "ETag": sent["ETag"], **checksum}

    try:
        parts = _in_threads(send, range(1, -(-size // _CHUNK_BYTES) + 1))
        complete = functools.partial(
            call, "complete_multipart_upload", **upload_of, MultipartUpload={"Parts": parts}, **s3.condition(if_version)
        )
        try:
            complete()
        except ClientError:
            if not s3.written_by(path, write_id):
                raise
    except BaseException:
        with contextlib.suppress(Exception):  # the service removes it by its own rules: the error counts
            client().abort_multipart_upload(**upload_of)
        raise


def _in_threads(work: Callable[[_Item], Any], items: Sequence[_Item]) -> list[Any]:
    """The results for each item, in order. After the first error, nothing more is begun."""
    with ThreadPoolExecutor(_THREADS) as executor:
        futures = [executor.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
