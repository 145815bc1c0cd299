"""An image that a line of a list names."""

from __future__ import annotations

import re

from tf_image_classification import storage
from tf_image_classification.data.sources.base import Entry, ReadOptions, Rejected
from tf_image_classification.data.sources.image_paths import folder_of, locate, normalize

OTHER_SERVICE = "not a local or gs:// path"
BACKSLASHES = "file not found: Windows path, with backslashes"

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ListedImages:
    """Makes entries of what the lines of one list name.

    Attributes:
        folder: that relative paths are relative to, without --image_root.
        base: that relative paths are relative to.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.folder = folder_of(path)
        self._image_root = None if options.image_root is None else normalize(options.image_root)
        self.base = self._image_root or self.folder

    def entry(self, text: str, labels: tuple[str, ...], split: str | None) -> Entry | Rejected:
        """The entry of an image, or the reason why it cannot be one.

        Args:
            text: path as the line gives it.
            labels: a class name per task.
            split: see `Entry`.
        """
        if _URL.match(text) and not storage.is_gcs(text):
            return Rejected(text, OTHER_SERVICE)
        found = locate(text, labels, self.folder, self._image_root)
        if isinstance(found, Rejected):
            return found
        # A backslash may be part of a name. In a bucket, looking up each such path would cost a request.
        if "\\" in text and not storage.is_gcs(found.path) and not storage.exists(found.path):
            return Rejected(text, BACKSLASHES)
        return found._replace(split=split)
