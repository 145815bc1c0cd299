"""The folders that images may be read from: a path or a link that leads out of them is not followed."""

from __future__ import annotations

import contextlib
import os

from tf_image_classification import storage
from tf_image_classification.data.sources.image_paths import is_below, normalize
from tf_image_classification.data.sources.path_list import split_metadata
from tf_image_classification.errors import FlagError, printable

_MAX_FOLDERS = 4096  # whose real paths are kept


class ImageRoots:
    """The folders that --image_root names, or the one that is meant without it.

    Links are resolved on both sides: a folder may be a link itself, and a link in it may lead to another place in it.
    In a bucket a folder is the beginning of names; `/gcs/BUCKET/x` is `gs://BUCKET/x` where the bucket is mounted.

    Attributes:
        folders: absolute. Relative paths in a list are relative to the first.
        are_named: whether --image_root names them.
        outside: the reason why an image elsewhere is rejected.
    """

    def __init__(self, image_root: str | None, *default: str) -> None:
        named = tuple(map(normalize, split_metadata(image_root or "")))
        if image_root and not named:
            raise FlagError("--image_root names no folder", received=repr(image_root), expected="a folder, or several")
        self.folders = named or default
        self.are_named = bool(named)
        self.outside = f"outside --image_root {printable(','.join(self.folders))}"
        self._real_folders: dict[str, str] = {}  # folder -> where it is without links
        self._inside: set[str] = set()  # those of them whose files are all in the folders, but for links
        self._beginnings: tuple[str, ...] = ()
        self._real = tuple(self.real(folder) for folder in self.folders)
        prefixes = map(storage.as_prefix, self._real)
        # Of real paths in the folders; in a folder of mounted buckets they have another form.
        self._beginnings = tuple(prefix for prefix in prefixes if not storage.GCS_MOUNT.startswith(prefix))

    def __getstate__(self) -> dict[str, object]:
        """Without the known folders: a worker that checks open files has no use for them."""
        return {**self.__dict__, "_real_folders": {}, "_inside": set()}

    def contain(self, path: str, may_be_link: bool = True) -> bool:
        """Whether the file that opening a normalized path reads is in one of the folders.

        Args:
            may_be_link: False for a file that a listing says to be none, which saves a look at it.
        """
        if not may_be_link and path.rpartition("/")[0] in self._inside:
            return True
        return self._contain_real(self.real(path, may_be_link))

    def contain_open(self, path: str, descriptor: int) -> bool:
        """Whether a file that was opened by a path is in one of the folders, even if a link has changed meanwhile.

        On gs://, the path is that of the mount, where an object may be a link as well.
        """
        with contextlib.suppress(OSError):  # where there is /proc, which is faster
            real = os.readlink(f"/proc/self/fd/{descriptor}")
            if real.startswith(self._beginnings) or self._contain_real(storage.canonical(real)):
                return True
        real = os.path.realpath(path)
        is_same = os.path.samestat(os.stat(real), os.fstat(descriptor))
        return is_same and self._contain_real(storage.canonical(real))

    def real(self, path: str, may_be_link: bool = True) -> str:
        """The path of what opening a normalized path reads: without links, and in the Unicode form that exists. For
        `may_be_link` see `contain`."""
        if storage.is_remote(path):
            return path
        folder, _, name = path.rpartition("/")
        if folder not in self._real_folders:  # of a million images in a few folders
            if len(self._real_folders) == _MAX_FOLDERS:
                self._real_folders.clear()
                self._inside.clear()
            self._real_folders[folder] = real_folder = storage.canonical(os.path.realpath(folder or "/"))
            if storage.as_prefix(real_folder).startswith(self._beginnings):
                self._inside.add(folder)
        if may_be_link and not path.isascii() and not os.path.exists(path) and (other := storage.other_form(path)):
            return self.real(other)
        if may_be_link and os.path.islink(path):
            return storage.canonical(os.path.realpath(path))
        return storage.join(self._real_folders[folder], name)

    def _contain_real(self, path: str) -> bool:
        # The name of an object may be that of the folder, with the slash at its end.
        is_known = path.startswith(self._beginnings) and not path.endswith("/")
        return is_known or any(is_below(path, root) for root in self._real)
