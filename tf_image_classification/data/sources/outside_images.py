"""The images of one source that are outside the roots, and the flag that would read them."""

from __future__ import annotations

import itertools
import shlex

from tf_image_classification import storage
from tf_image_classification.data.sources.image_roots import ImageRoots
from tf_image_classification.errors import MAX_NAMES, printable


class OutsideImages:
    """Counts them, and keeps which folders they have in common: one in each bucket or top folder.

    Attributes:
        count: number of images.
        example: the first one, as the source names it.
    """

    def __init__(self, roots: ImageRoots) -> None:
        self.count, self.example = 0, ""
        self._roots = roots
        self._common: dict[tuple[str, ...], list[str]] = {}  # first parts of a path -> parts of the common folder

    def add(self, path: str, text: str) -> None:
        """Adds an image by its normalized path, and as the source names it."""
        self.count += 1
        self.example = self.example or text
        real = self._roots.real(path)
        folder = real.split("/")[:-1]
        top = tuple(folder[: 3 if storage.is_remote(real) else 2])
        if top in self._common or len(self._common) < MAX_NAMES:
            pairs = zip(self._common.get(top, folder), folder, strict=False)
            self._common[top] = [part for part, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]

    def flag(self, *, with_roots: bool) -> str:
        """`--image_root FOLDERS` for a shell, which reads the images that were added.

        Args:
            with_roots: whether it goes on to name the present roots.
        """
        common = ("/".join(parts) or "/" for parts in self._common.values())
        folders = dict.fromkeys((*(self._roots.folders if with_roots else ()), *common))
        return f"--image_root {shlex.quote(printable(','.join(folders)))}"
