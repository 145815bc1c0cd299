"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.data.sources import folder_layout, listing, other_kinds
from tf_image_classification.data.sources.base import (
    Candidate,
    Entry,
    FingerprintItem,
    ImageSource,
    ReadOptions,
    Rejected,
)
from tf_image_classification.data.sources.image_paths import check_labels, normalize
from tf_image_classification.data.sources.image_roots import ImageRoots
from tf_image_classification.data.sources.outside_images import OutsideImages
from tf_image_classification.errors import abridged, printable

NOT_IN_CLASS_FOLDER = "not in a class folder"
HIDDEN = "hidden file or folder"
IN_SYSTEM_FOLDER = "in a folder of the system"
LISTED_ELSEWHERE = "link to a folder above it, or to one that is reached by another link"

_COMPARED_FOLDERS = 1000  # sub-folders of a class that are compared with those of the others

_log = logging.getLogger(__name__)


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
        folder_layout.check_classes(candidate.path)
        return cls(candidate.path)

    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        return (manifest.DEFAULT_TASK,)

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        folder = normalize(self.path)
        roots = ImageRoots(options.image_root, folder)
        outside = OutsideImages(roots)
        folders: dict[str, set[str]] = {}  # class name -> names of its folders
        left_out: Counter[str] = Counter()
        inner: dict[str, set[str]] = {}  # top folder, or '' -> its sub-folders, as far as they are few
        for path, filename, _, _, may_be_link in listing.walk(folder, hidden=True, sizes=False):
            label, slash, below = filename.partition("/")
            _add_inner(inner, label if slash else "", below)  # a file that is in no folder has none
            if reason := _left_out(path, filename):
                left_out[reason] += 1
                yield Rejected(path, reason)
            elif not roots.contain(path, may_be_link):
                outside.add(path, path)
                yield Rejected(path, roots.outside)
            elif not slash:
                yield Rejected(path, NOT_IN_CLASS_FOLDER)
            else:
                entry = check_labels(Entry(path, filename, (label,)))
                if isinstance(entry, Entry):
                    folders.setdefault(entry.labels[0], set()).add(label)
                yield entry
        if outside.count:
            _log.warning(
                "%s: %s images are outside of the folders that may be read, such as %s. Give %s if they may be read",
                self.path,
                f"{outside.count:,}",
                printable(outside.example),
                outside.flag(with_roots=True),
            )
        self._announce(folders, left_out)
        self._announce_layout(inner)

    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """All files, as one listing gives them; one outside the roots counts as missing."""
        folder = normalize(self.path)
        roots = ImageRoots(options.image_root, folder)
        for file in listing.walk(self.path):
            path = file.path if folder == self.path else storage.join(folder, file.filename)
            is_inside = roots.contain(path, file.may_be_link)
            yield file if is_inside else file._replace(size=-1, version=0)

    def _announce(self, folders: Mapping[str, set[str]], left_out: Mapping[str, int]) -> None:
        for reason, count in left_out.items():
            _log.warning("%s: %s left out: %s", self.path, f"{count:,}", reason)
        if merged := [label for label, names in folders.items() if len(names) > 1]:
            _log.warning(
                "%s: each of these classes has several folders, whose names differ in their Unicode form or in what "
                "surrounds them: %s",
                self.path,
                abridged(merged),
            )
        if named_like_splits := folder_layout.named_like_splits(folders):
            _log.warning(
                "%s: the folder %s counts as a class, although it has the name of a split",
                self.path,
                abridged(named_like_splits),
            )
        if len(folders) == 1 and (inner := folder_layout.inner_folder(self.path)):
            _log.warning(
                "%s holds a single class, %s. If its sub-folders are the classes, give %s",
                self.path,
                next(iter(folders)),
                inner,
            )

    def _announce_layout(self, inner: Mapping[str, set[str]]) -> None:
        """Warns of sub-folders that may not be the classes, and of those that are empty."""
        if empty := folder_layout.without_files(self.path, set(inner)):
            _log.warning("%s: folders without files are no classes: %s", self.path, abridged(empty))
        common = set.intersection(*inner.values()) if len(inner) > 1 else set()
        if len(common) > 1:
            _log.warning(
                "%s: its folders, %s, all have the sub-folders %s. If these are the classes, the folders are splits: "
                "give one as --train_metadata and one as --eval_metadata. If these are splits, they are not kept",
                self.path,
                abridged(sorted(inner)),
                abridged(sorted(common)),
            )


def _add_inner(inner: dict[str, set[str]], label: str, below: str) -> None:
    """Adds the sub-folder of a file to those of its class."""
    folders = inner.setdefault(label, set())
    folder, slash, _ = below.partition("/")
    if slash and len(folders) < _COMPARED_FOLDERS:
        folders.add(folder)


@functools.lru_cache(_COMPARED_FOLDERS)
def _is_below_system_folder(folder: str) -> bool:
    return any(map(listing.is_system_folder, folder.split("/")))


def _left_out(path: str, filename: str) -> str | None:
    """Why a file is none that the user put there, or a folder is not listed; None if it is a file of the user's."""
    folder, _, name = filename.removesuffix("/").rpartition("/")
    if _is_below_system_folder(folder):
        return IN_SYSTEM_FOLDER
    if listing.is_hidden(name):
        return HIDDEN
    is_folder = filename.endswith("/") and not storage.is_remote(path)  # the name of an object may end so
    return LISTED_ELSEWHERE if is_folder else None
