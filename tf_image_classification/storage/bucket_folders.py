"""Folders of objects in a bucket: replaced and copied so that a reader never sees half of one.

Objects cannot be renamed as a folder. So a folder has a marker, a file (or folder of files) that all folders of its
kind have: it is deleted before all others and uploaded after them, and where it exists the folder is whole. While it is
gone, a hidden file, the unfinished marker, marks this as an unfinished folder of the same kind, which the next
writer may replace, and not as other content.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tf_image_classification.errors import ConflictError, UserError
from tf_image_classification.storage import gcs_requests
from tf_image_classification.storage.leftovers import tidying
from tf_image_classification.storage.local_files import Stat, conflict_error
from tf_image_classification.storage.paths import as_prefix
from tf_image_classification.storage.stores import store_of, transfers_of


def unfinished_marker(marker: str) -> str:
    """The name of the file that a folder has while its marker is gone."""
    return f".{marker}.unfinished"


def replace_dir(
    folder: str,
    names: Sequence[str],
    destination: str,
    marker: str,
    *,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
    keep_whole: bool = False,
) -> None:
    """Replaces a folder in a bucket by a local one. Killed at any moment, it leaves no marker without all other files.

    Args:
        folder: the local folder.
        names: of its files, relative to it.
        destination: the folder, gs:// or s3://.
        marker: the file, or folder of files, that is deleted first and uploaded last.
        elsewhere: names of further files -> objects of the same service, which are copied.
        keep_whole: leave a folder as it is whose marker, a file, exists.

    Raises:
        ConflictError: another process is writing there.
    """
    prefix = as_prefix(destination)
    store, transfers = store_of(destination), transfers_of(destination)
    unfinished_path = prefix + unfinished_marker(marker)
    left_by_another = store.find(unfinished_path)
    # The content is this writer's own: on S3, equal contents have one version.
    content = uuid.uuid4().hex.encode()
    our_version = store.write(unfinished_path, content, left_by_another.version if left_by_another else 0)
    if keep_whole and left_by_another is None and store.find(f"{destination}/{marker}"):
        with tidying(unfinished_path):
            store.delete([Stat(unfinished_path, len(content), our_version)])
        return
    old = list(store.list_objects(destination))
    store.delete(sorted(old, key=lambda item: not _belongs_to_marker(marker, item.path[len(prefix) :])))
    transfers.upload_files(folder, [name for name in names if not _belongs_to_marker(marker, name)], destination)
    transfers.copy_files(elsewhere, destination)
    unfinished = store.find(unfinished_path)
    if unfinished is None or unfinished.version != our_version:
        raise conflict_error(destination)
    transfers.upload_files(folder, [name for name in names if _belongs_to_marker(marker, name)], destination)
    with tidying(unfinished_path):
        store.delete([unfinished])


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
    retry_when_replaced(lambda: transfers_of(path).download_files([store_of(path).stat(path)], [file]))()


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
