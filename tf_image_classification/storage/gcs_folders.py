"""Folders of objects in a bucket: replaced and copied so that a reader never sees half of one.

Objects cannot be renamed as a folder. So a folder has a marker, a file (or folder of files) that all folders of its
kind have: it is deleted before all others and uploaded after them, and where it exists the folder is whole. While it is
gone, a hidden file, the unfinished marker, marks this as an unfinished folder of the same kind, which the next
writer may replace, and not as other content.
"""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Sequence

from tf_image_classification.errors import ConflictError, UserError
from tf_image_classification.storage import gcs, gcs_requests
from tf_image_classification.storage.gcs_requests import retry_on_corruption, translate_storage_errors
from tf_image_classification.storage.leftovers import tidying
from tf_image_classification.storage.local_files import Stat, conflict_error
from tf_image_classification.storage.paths import GCS_SCHEME, as_prefix

_LARGE_BYTES = 32 * 2**20  # larger objects are downloaded in parts of this size
_CHUNK_BYTES = 16 * 2**20  # of uploads; each thread holds one in memory
_THREADS = 8


def unfinished_marker(marker: str) -> str:
    """The name of the file that a folder has while its marker is gone."""
    return f".{marker}.unfinished"


def replace_dir(folder: str, names: Sequence[str], destination: str, marker: str, *, keep_whole: bool = False) -> None:
    """Replaces a folder in a bucket by a local one. Killed at any moment, it leaves no marker without all other files.

    Args:
        folder: the local folder.
        names: of its files, relative to it.
        destination: gs://BUCKET/FOLDER.
        marker: the file, or folder of files, that is deleted first and uploaded last.
        keep_whole: leave a folder as it is whose marker, a file, exists.

    Raises:
        ConflictError: another process is writing there.
    """
    prefix = as_prefix(destination)
    unfinished_path = prefix + unfinished_marker(marker)
    left_by_another = gcs.find(unfinished_path)
    our_version = gcs.write(unfinished_path, b"", left_by_another.version if left_by_another else 0)
    if keep_whole and left_by_another is None and gcs.find(f"{destination}/{marker}"):
        with tidying(unfinished_path):
            gcs.delete([Stat(unfinished_path, 0, our_version)])
        return
    old = list(gcs.list_objects(destination))
    gcs.delete(sorted(old, key=lambda item: not _belongs_to_marker(marker, item.path[len(prefix) :])))
    upload_files(folder, [name for name in names if not _belongs_to_marker(marker, name)], destination)
    unfinished = gcs.find(unfinished_path)
    if unfinished is None or unfinished.version != our_version:
        raise conflict_error(destination)
    upload_files(folder, [name for name in names if _belongs_to_marker(marker, name)], destination)
    with tidying(unfinished_path):
        gcs.delete([unfinished])


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


def download(path: str, file: str) -> None:
    """Copies an object to a local file; of one that is being replaced, a whole version.

    Raises:
        FileNotFoundError: object not found.
    """
    from google.api_core.retry import Retry, if_exception_type

    retry_when_replaced = Retry(
        predicate=if_exception_type(ConflictError),
        initial=gcs_requests.INITIAL_DELAY,
        timeout=gcs_requests.RETRY_TIMEOUT,
    )
    retry_when_replaced(lambda: download_files([gcs.stat(path)], [file]))()


def local_path(folder: str, name: str) -> str:
    """The path below a local folder to which an object of this name is copied.

    Raises:
        UserError: a part of the name is empty, '.' or '..'.
    """
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise UserError(
            "The name of an object is no valid file name",
            received=name,
            expected="a name without empty parts, '.' and '..'",
        )
    return os.path.join(folder, *name.split("/"))


def _belongs_to_marker(marker: str, name: str) -> bool:
    return name.split("/")[0] == marker


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
