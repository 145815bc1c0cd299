"""Files to and from Cloud Storage: several at once, large ones in parts."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tf_image_classification.storage import gcs, gcs_requests
from tf_image_classification.storage.gcs_requests import retry_on_corruption, translate_storage_errors
from tf_image_classification.storage.local_files import Stat, conflict_error
from tf_image_classification.storage.paths import GCS_SCHEME, as_prefix

_LARGE_BYTES = 32 * 2**20  # larger objects are downloaded in parts of this size
_CHUNK_BYTES = 16 * 2**20  # of uploads; each thread holds one in memory
_THREADS = 8


def upload_files(folder: str, names: Sequence[str], destination: str) -> None:
    """Copies local files to objects that do not exist yet.

    Args:
        folder: the local folder.
        names: of the files, relative to both folders.
        destination: gs://BUCKET/FOLDER.

    Raises:
        ConflictError: another process has written one of them.
    """
    from google.cloud.storage import transfer_manager

    pairs = []
    for name in names:
        blob = gcs.blob_of(as_prefix(destination) + name, chunk_bytes=_CHUNK_BYTES)
        blob.metadata = {gcs.WRITER: uuid.uuid4().hex}
        pairs.append((os.path.join(folder, name), blob))
    with translate_storage_errors(destination, writing=True):
        results = transfer_manager.upload_many(
            pairs,
            upload_kwargs={**gcs.upload_options(), "if_generation_match": 0},
            worker_type=transfer_manager.THREAD,
            max_workers=_THREADS,
        )
    for (file, blob), result in zip(pairs, results, strict=True):
        if isinstance(result, Exception):  # again, alone: it may have been carried out, or arrived corrupted
            with translate_storage_errors(f"{GCS_SCHEME}{blob.bucket.name}/{blob.name}", writing=True):
                gcs.upload_blob(blob, functools.partial(blob.upload_from_filename, file), 0)


def upload(file: str, path: str) -> None:
    """Copies a local file of any size to an object, which it replaces; it appears whole or not at all.

    Raises:
        ConflictError: another process has written it meanwhile.
    """
    found = gcs.find(path)
    with translate_storage_errors(path, writing=True):
        blob = gcs.blob_of(path, chunk_bytes=_CHUNK_BYTES)
        gcs.upload_blob(blob, functools.partial(blob.upload_from_filename, file), found.version if found else 0)


def copy_files(sources: Mapping[str, str], destination: str) -> None:
    """Copies objects; their contents stay in the service.

    Args:
        sources: name of the copy, relative to `destination` -> the object, gs://BUCKET/OBJECT.
        destination: gs://BUCKET/FOLDER.

    Raises:
        FlagError: one of the objects, or the bucket, does not exist.
    """

    def copy(name: str) -> None:
        path, token = as_prefix(destination) + name, None
        with translate_storage_errors(path, writing=True):
            target, source = gcs.blob_of(path), gcs.blob_of(sources[name])
            target.content_type = "application/octet-stream"  # as of a file that is uploaded; not '', as of no resource
            while True:  # of large objects, or between places, a part per request
                token, _, _ = target.rewrite(
                    source, token, retry=gcs_requests.storage_retry(), timeout=gcs_requests.TIMEOUT
                )
                if token is None:
                    return

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(copy, sources))


def download_files(objects: Sequence[Stat], files: Sequence[str]) -> None:
    """Copies objects, in these versions, to local files; creates the files' folders.

    Raises:
        ConflictError: one of them has been deleted, or has another version.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud.storage import transfer_manager

    for file in files:
        os.makedirs(os.path.dirname(file), exist_ok=True)
    pairs = list(zip(objects, files, strict=True))
    small = [(item, file) for item, file in pairs if item.size <= _LARGE_BYTES]
    large = [(item, file) for item, file in pairs if item.size > _LARGE_BYTES]
    results: list[Exception | None] = transfer_manager.download_many(
        [(gcs.blob_of(item.path, item.version), file) for item, file in small],
        download_kwargs={"retry": None, "timeout": gcs_requests.TIMEOUT, "checksum": "crc32c"},
        worker_type=transfer_manager.THREAD,
        max_workers=_THREADS,
    )
    failed = [pair for pair, result in zip(small, results, strict=True) if isinstance(result, Exception)]
    for item, file in [*failed, *large]:  # one by one, with retries
        with translate_storage_errors(item.path):
            try:
                retry_on_corruption(functools.partial(_download_version, item, file))
            except NotFound:
                raise conflict_error(item.path) from None


def _download_version(item: Stat, file: str) -> None:
    from google.cloud.storage import transfer_manager

    blob = gcs.blob_of(item.path, item.version)
    is_large = item.size > _LARGE_BYTES
    if is_large:
        blob.reload(retry=gcs_requests.storage_retry(), timeout=gcs_requests.TIMEOUT)
    if is_large and not blob.content_encoding:  # content that is decompressed on the way cannot be split
        transfer_manager.download_chunks_concurrently(
            blob,
            file,
            chunk_size=_LARGE_BYTES,
            download_kwargs={"retry": gcs_requests.storage_retry(), "timeout": gcs_requests.TIMEOUT},
            worker_type=transfer_manager.THREAD,
            max_workers=_THREADS,
        )
    else:
        blob.download_to_filename(file, retry=None, timeout=gcs_requests.TIMEOUT, checksum="crc32c")
