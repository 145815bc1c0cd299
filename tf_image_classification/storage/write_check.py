"""Whether a bucket lets objects be overwritten and deleted, for who depends on it, before hours of work do.

A retention policy, a hold, or an account without the right to delete (storage.objects.delete, s3:DeleteObject) refuses
both.
"""

from __future__ import annotations

import contextlib

from tf_image_classification.errors import AccessError, ConflictError, FlagError
from tf_image_classification.storage.gcs_requests import bucket_not_found
from tf_image_classification.storage.local_files import Stat
from tf_image_classification.storage.paths import is_remote, join
from tf_image_classification.storage.stores import store_of

_FILE = ".write-check"


def check_overwritable(folder: str, use: str) -> None:
    """Creates, overwrites and deletes an object in a folder of a bucket. Does nothing for a local folder.

    Args:
        folder: need not exist.
        use: what depends on it, for the message, such as 'Checkpoints are replaced'.

    Raises:
        FlagError: the service refuses it, or the bucket does not exist.
    """
    if not is_remote(folder):
        return
    store = store_of(folder)
    path = join(folder, _FILE)
    try:
        with contextlib.suppress(ConflictError):  # another process checks the same folder
            found = store.find(path)
            version = store.write(path, b"created", found.version if found else 0)
            version = store.write(path, b"overwritten", version)
            store.delete([Stat(path, 0, version)])
    except FlagError:
        raise bucket_not_found(folder) from None
    except AccessError as error:
        raise FlagError(
            f"{use}, which the bucket of {folder} does not let this account do",
            received=error.received,
            expected="a bucket whose objects it may overwrite and delete",
            hint=error.hint,
        ) from None
