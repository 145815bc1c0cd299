"""Deleting what nothing needs any more: where that is refused, the files stay and the work goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

_log = logging.getLogger(__name__)
_said: set[str] = set()  # folders of which the log has said it


@contextlib.contextmanager
def tidying(path: str) -> Iterator[None]:
    """A block that only deletes leftovers. If it may not, it ends quietly, and the log says so once per folder.

    A retention policy, a hold, or an account without storage.objects.delete refuses it in a bucket, mounted or not.

    Args:
        path: of a file that is deleted, for the log.
    """
    try:
        yield
    except OSError as error:  # AccessError is one
        folder = path.rpartition("/")[0]
        if folder not in _said:
            _said.add(folder)
            reason = getattr(error, "received", None) or error
            _log.warning("Files that are no longer needed stay in %s, as they cannot be deleted: %s", folder, reason)
