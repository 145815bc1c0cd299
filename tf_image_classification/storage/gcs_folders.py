"""Folders of objects in a bucket: copied there so that a reader never meets a half, and copied from there.

Objects cannot be renamed as a folder. So a folder's marker, a file that all folders of its kind have, goes first and
comes last: where it is, everything else is. While it is away, a hidden sign tells the next writer that what lies there
is an unfinished folder of this kind, and nobody's photos.
"""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Sequence

from tf_image_classification.errors import ConflictError, UserError
from tf_image_classification.storage import gcs, gcs_requests
from tf_image_classification.storage.local_files import Stat

_LARGE = 32 * 2**20  # bytes; larger objects are fetched in parts of this size
_PART = 16 * 2**20  # bytes sent at a time, by each thread: they are in memory
_THREADS = 8


def sign(marker: str) -> str:
    """The name of the file that lies in a folder while its marker is away."""
    return f".{marker}.unfinished"


def publish(folder: str, names: Sequence[str], destination: str, marker: str) -> None:
    """Replaces a folder in a bucket by a local one. Killed at any moment, it leaves no marker without all that belongs
    to it.

    Args:
        names: of the files, relative to the folder.
        marker: the file, or folder of files, that goes first and comes last.

    Raises:
        ConflictError: another process is writing there.
    """
    destination = destination.rstrip("/")
    signed = f"{destination}/{sign(marker)}"
    begun = gcs.find(signed)
    mine = gcs.write(signed, b"", begun.version if begun else 0)
    old = list(gcs.objects(destination))
    gcs.delete(sorted(old, key=lambda found: not _is_of(marker, found.path[len(destination) + 1 :])))
    upload(folder, [name for name in names if not _is_of(marker, name)], destination)
    now = gcs.find(signed)
    if now is None or now.version != mine:
        raise gcs_requests.changed(destination)
    upload(folder, [name for name in names if _is_of(marker, name)], destination)
    gcs.delete([now])


def upload(folder: str, names: Sequence[str], destination: str) -> None:
    """Copies files to objects that are not there yet.

    Args:
        names: of the files, relative to both folders.

    Raises:
        ConflictError: another writer has made one of them.
    """
    from google.cloud.storage import transfer_manager

    pairs = [(os.path.join(folder, name), gcs.blob_of(f"{destination}/{name}", part=_PART)) for name in names]
    for _, blob in pairs:
        blob.metadata = {gcs.WRITER: uuid.uuid4().hex}
    with gcs_requests.translate_storage_errors(destination, writing=True):
        results = transfer_manager.upload_many(
            pairs,
            upload_kwargs={**gcs.upload_options(), "if_generation_match": 0},
            worker_type=transfer_manager.THREAD,
            max_workers=_THREADS,
        )
    for (file, blob), result in zip(pairs, results, strict=True):
        if isinstance(result, Exception):  # once more, alone: it may be there already, or have arrived damaged
            with gcs_requests.translate_storage_errors(f"{gcs.SCHEME}{blob.bucket.name}/{blob.name}", writing=True):
                gcs.put(blob, functools.partial(blob.upload_from_filename, file), 0)


def send(file: str, path: str) -> None:
    """Copies a file to an object, in the place of the one that is there.

    Raises:
        ConflictError: another writer has changed it meanwhile.
    """
    found = gcs.find(path)
    with gcs_requests.translate_storage_errors(path, writing=True):
        blob = gcs.blob_of(path, part=_PART)
        gcs.put(blob, functools.partial(blob.upload_from_filename, file), found.version if found else 0)


def download(found: Sequence[Stat], files: Sequence[str]) -> None:
    """Copies objects, in the versions found, to local files, whose folders are made.

    Raises:
        ConflictError: one of them is gone, or has another version by now.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud.storage import transfer_manager

    for file in files:
        os.makedirs(os.path.dirname(file), exist_ok=True)
    small = [(item, file) for item, file in zip(found, files, strict=True) if item.size <= _LARGE]
    results: list[Exception | None] = transfer_manager.download_many(
        [(gcs.blob_of(item.path, item.version), file) for item, file in small],
        download_kwargs={"retry": None, "timeout": gcs_requests.TIMEOUT, "checksum": "crc32c"},
        worker_type=transfer_manager.THREAD,
        max_workers=_THREADS,
    )
    # Once more, alone and patiently, whatever did not come in one piece.
    again = [pair for pair, result in zip(small, results, strict=True) if isinstance(result, Exception)]
    for item, file in [*again, *(pair for pair in zip(found, files, strict=True) if pair[0].size > _LARGE)]:
        with gcs_requests.translate_storage_errors(item.path):
            try:
                gcs_requests.retry_on_corruption(functools.partial(_download, item, file))
            except NotFound:
                raise gcs_requests.changed(item.path) from None


def fetch(path: str, file: str) -> None:
    """Copies an object to a local file.

    Raises:
        FileNotFoundError: there is no such object.
    """
    from google.api_core.retry import Retry, if_exception_type

    replaced_meanwhile = Retry(
        predicate=if_exception_type(ConflictError), initial=gcs_requests.FIRST_PAUSE, timeout=gcs_requests.PATIENCE
    )
    replaced_meanwhile(lambda: download([gcs.stat(path)], [file]))()


def local_path(folder: str, name: str) -> str:
    """Where an object of this name goes below a local folder.

    Raises:
        UserError: nowhere: a part of its name is empty or means another folder.
    """
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise UserError(
            "The name of an object cannot be a file's",
            received=name,
            expected="a name without empty parts, '.' and '..'",
        )
    return os.path.join(folder, *name.split("/"))


def _is_of(marker: str, name: str) -> bool:
    return name.split("/")[0] == marker


def _download(item: Stat, file: str) -> None:
    from google.cloud.storage import transfer_manager

    blob = gcs.blob_of(item.path, item.version)
    if item.size > _LARGE:
        blob.reload(retry=gcs_requests.retrying(), timeout=gcs_requests.TIMEOUT)
    if item.size > _LARGE and not blob.content_encoding:  # what is decompressed on its way has no parts
        transfer_manager.download_chunks_concurrently(
            blob,
            file,
            chunk_size=_LARGE,
            download_kwargs={"retry": gcs_requests.retrying(), "timeout": gcs_requests.TIMEOUT},
            worker_type=transfer_manager.THREAD,
            max_workers=_THREADS,
        )
    else:
        blob.download_to_filename(file, retry=None, timeout=gcs_requests.TIMEOUT, checksum="crc32c")
