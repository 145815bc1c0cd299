"""An image that a line of a list names."""

from __future__ import annotations

import itertools
import re
import shlex

from tf_image_classification import storage
from tf_image_classification.data.sources.base import Entry, ReadOptions, Rejected
from tf_image_classification.data.sources.image_paths import check_labels, folder_of, is_below, locate
from tf_image_classification.data.sources.image_roots import ImageRoots
from tf_image_classification.data.sources.path_list import is_absolute
from tf_image_classification.errors import MAX_NAMES, FlagError, printable

OTHER_SERVICE = "not a local or gs:// path"
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
        self._inside = self._outside = 0
        self._first_outside = ""
        self._have_relative = False
        self._fitting: dict[tuple[str, ...], list[str]] = {}  # top folder or bucket -> common folder of those outside

    def entry(self, text: str, labels: tuple[str, ...], split: str | None) -> Entry | Rejected:
        """The entry of an image, or the reason why it cannot be one.

        Args:
            text: path as the line gives it.
            labels: a class name per task.
            split: see `Entry`.
        """
        if _URL.match(text) and not storage.is_gcs(text):
            return Rejected(text, OTHER_SERVICE)
        path = locate(text, self.base)
        if isinstance(path, Rejected):
            return path
        self._have_relative |= not is_absolute(text)
        if not self._roots.contain(path):
            self._add_outside(text, path)
            return Rejected(text, self._roots.outside)
        self._inside += 1
        # A backslash may be part of a name. In a bucket, looking up each such path would cost a request.
        if "\\" in text and not storage.is_gcs(path) and not storage.exists(path):
            return Rejected(text, BACKSLASHES)
        return check_labels(Entry(path, self._filename(text, path), labels, split))

    def check(self) -> None:
        """Refuses a list whose images are nearly all outside the folders that may be read; for after its last line.

        Raises:
            FlagError: they are. It names the folders to give as --image_root.
        """
        total = self._inside + self._outside
        if self._outside <= _NEARLY_ALL * total:
            return
        kept = self._roots.folders if self._inside or self._have_relative else ()
        fitting = ("/".join(parts) or "/" for parts in self._fitting.values())
        roots = shlex.quote(printable(",".join(dict.fromkeys((*kept, *fitting)))))
        raise FlagError(
            "The list names images outside of the folders that may be read",
            received=f"{self._path}: {self._outside:,} of {total:,} images, such as {printable(self._first_outside)}",
            expected=f"images in {'--image_root' if self._roots.are_named else 'the folder of the list'}, "
            f"{printable(','.join(self._roots.folders))}",
            hint=f"Give --image_root {roots} to read them.",
        )

    def _filename(self, text: str, path: str) -> str:
        """The path relative to its root. Without --image_root an absolute path is its own name, as it has been before
        there was a root for it: the name decides the split, and no image may change its split."""
        if self._roots.are_named or not is_absolute(text):
            for root in self._roots.folders:
                if is_below(path, root):
                    return path[len(storage.as_prefix(root)) :]
        return path.removeprefix(storage.GCS_SCHEME).lstrip("/")

    def _add_outside(self, text: str, path: str) -> None:
        self._first_outside = self._first_outside or text
        self._outside += 1
        real = self._roots.real(path)
        folder = real.split("/")[:-1]
        top = tuple(folder[: 3 if storage.is_gcs(real) else 2])
        if top in self._fitting or len(self._fitting) < MAX_NAMES:
            pairs = zip(self._fitting.get(top, folder), folder, strict=False)
            self._fitting[top] = [name for name, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
