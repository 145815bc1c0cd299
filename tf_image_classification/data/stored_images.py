"""What the encoded images of a split are: counted while it is built or checked, and kept in its manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

JPEG = "jpeg"
OTHER = "other"  # than a build stores: of TFRecords that others wrote


@dataclass(frozen=True, slots=True)
class StoredImages:
    """What the encoded images of a split are, so that an input need not be ready for others.

    Attributes:
        formats: `jpeg`, `png`, or `other` -> number of images. The first two are such as a build stores: 8-bit, RGB or
            grey, without transparency and upright.
        height, width: the largest, in pixels, maybe of two images.
    """

    formats: dict[str, int]
    height: int
    width: int

    @property
    def are_jpegs(self) -> bool:
        """Whether each image is a JPEG as a build stores it."""
        return list(self.formats) == [JPEG]


@dataclass
class StoredCounts:
    """The images of a split so far; attributes as those of StoredImages."""

    formats: Counter[str] = field(default_factory=Counter)
    height: int = 0
    width: int = 0

    def add(self, image_format: str, height: int, width: int) -> None:
        """Counts an image."""
        self.add_all(StoredImages({image_format: 1}, height, width))

    def add_all(self, images: StoredImages) -> None:
        """Counts the images of a file."""
        self.formats.update(images.formats)
        self.height, self.width = max(self.height, images.height), max(self.width, images.width)

    def stored(self) -> StoredImages:
        """What was counted."""
        return StoredImages(dict(sorted(self.formats.items())), self.height, self.width)
