"""A folder with one sub-folder of images per class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification.data import manifest
from tf_image_classification.data.sources import listing, other_kinds
from tf_image_classification.data.sources.base import (
    Candidate,
    Entry,
    FingerprintItem,
    ImageSource,
    ReadOptions,
    Rejected,
)
from tf_image_classification.data.sources.image_paths import OUTSIDE_ROOT, check_labels, is_below, normalize

NOT_IN_CLASS_FOLDER = "not in a class folder"


@dataclass(frozen=True, slots=True)
class ClassFolder(ImageSource):
    """The first folder below `path` names the class, at whatever depth an image is."""

    kind: ClassVar[str] = "folder"
    description: ClassVar[str] = "a folder with one sub-folder per class"

    @classmethod
    def match(cls, candidate: Candidate) -> ClassFolder | None:
        if not candidate.is_folder or not candidate.has_nested_files:
            return None
        other_kinds.refuse_model(candidate.path)
        return cls(candidate.path)

    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        return (manifest.DEFAULT_TASK,)

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        folder = normalize(self.path)
        inside = options.image_root is None or is_below(folder + "/", normalize(options.image_root))
        for path, filename, _, _ in listing.walk(folder):
            label, slash, _ = filename.partition("/")
            if not inside:
                yield Rejected(path, OUTSIDE_ROOT)
            elif not slash:
                yield Rejected(path, NOT_IN_CLASS_FOLDER)
            else:
                yield check_labels(Entry(path, filename, (label.strip(),)))

    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """Names, sizes and versions of all files, as one listing gives them."""
        for _, filename, size, version in listing.walk(self.path):
            yield "image", filename, size, version
