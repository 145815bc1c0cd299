"""An image that a line of a list names."""

from __future__ import annotations

import re

from tf_image_classification import storage
from tf_image_classification.data.sources.base import Entry, ReadOptions, Rejected
from tf_image_classification.data.sources.image_paths import check_labels, folder_of, is_below, locate
from tf_image_classification.data.sources.image_roots import ImageRoots
from tf_image_classification.data.sources.outside_images import OutsideImages
from tf_image_classification.data.sources.path_list import is_absolute
from tf_image_classification.errors import FlagError, printable

OTHER_SERVICE = "not a local, gs:// or s3:// path"
BACKSLASHES = "file not found: Windows path, with backslashes"

_NEARLY_ALL = 0.9  # of a list's images outside: the roots are wrong, not the lines
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ListedImages:
    """Makes entries of what the lines of one list name. An image outside the folders that may be read is rejected.

    Attributes:
        base: folder that relative paths are relative to.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self._path = path
        self._roots = ImageRoots(options.image_root, folder_of(path))
        self.base = self._roots.folders[0]
        self._inside, self._outside = 0, OutsideImages(self._roots)
        self._have_relative = False

    def entry(self, text: str, labels: tuple[str, ...], split: str | None) -> Entry | Rejected:
        """The entry of an image, or the reason why it cannot be one.

        Args:
            text: path as the line gives it.
            labels: a class name per task.
            split: see `Entry`.
        """
        if _URL.match(text) and not storage.is_remote(text):
            return Rejected(text, OTHER_SERVICE)
        path = locate(text, self.base)
        if isinstance(path, Rejected):
            return path
        self._have_relative |= not is_absolute(text)
        if not self._roots.contain(path):
            self._outside.add(path, text)
            return Rejected(text, self._roots.outside)
        self._inside += 1
        # A backslash may be part of a name. In a bucket, looking up each such path would cost a request.
        if "\\" in text and not storage.is_remote(path) and not storage.exists(path):
            return Rejected(text, BACKSLASHES)
        return check_labels(Entry(path, self._filename(text, path), labels, split))

    def check(self) -> None:
        """Refuses a list whose images are nearly all outside the folders that may be read; for after its last line.

        Raises:
            FlagError: they are. It names the folders to give as --image_root.
        """
        outside, total = self._outside, self._outside.count + self._inside
        if outside.count <= _NEARLY_ALL * total:
            return
        flag = outside.flag(with_roots=self._inside > 0 or self._have_relative)
        raise FlagError(
            "The list names images outside of the folders that may be read",
            received=f"{self._path}: {outside.count:,} of {total:,} images, such as {printable(outside.example)}",
            expected=f"images in {'--image_root' if self._roots.are_named else 'the folder of the list'}, "
            f"{printable(','.join(self._roots.folders))}",
            hint=f"Give {flag} if the list may read there.",
        )

    def _filename(self, text: str, path: str) -> str:
        """The path relative to its root.

        Without --image_root an absolute path is its own name, as it has been before there was a root for it: the name
        decides the split, and no image may change its split.
        """
        if self._roots.are_named or not is_absolute(text):
            for root in self._roots.folders:
                if is_below(path, root):
                    return path[len(storage.as_prefix(root)) :]
        return (path.partition("://")[2] if storage.is_remote(path) else path).lstrip("/")
