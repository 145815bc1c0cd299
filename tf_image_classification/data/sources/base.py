"""What a kind of source is: the protocol that each of them implements in a file of its own."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tf_image_classification import image_limits, storage
from tf_image_classification.data.manifest import Downscaled, Task
from tf_image_classification.data.sources import listing
from tf_image_classification.flag_types import Flags
from tf_image_classification.image_limits import ImageLimits

FingerprintItem = tuple[object, ...]  # plain values, as JSON holds them, or a listing.File


class Entry(NamedTuple):
    """An image that a source names.

    Attributes:
        path: as storage opens it.
        filename: relative to its root, with POSIX separators.
        labels: a class name per task.
        split: the one that its list names, see named_splits; None where the source names none.
    """

    path: str
    filename: str
    labels: tuple[str, ...]
    split: str | None = None


class Rejected(NamedTuple):
    """An image that cannot be used, and why."""

    path: str
    reason: str


class RecordFile(NamedTuple):
    """A TFRecord file.

    Attributes:
        path: as storage opens it.
        crc32c: of the whole file as its manifest records it, 8 hexadecimal digits; None when it has no manifest.
        image_feature, label_features: names of its features as its manifest records them.
    """

    path: str
    crc32c: str | None = None
    image_feature: str | None = None
    label_features: tuple[str, ...] = ()


class Candidate:
    """A path that the metadata names, as every kind of source is given it. It is looked up once, when first needed."""

    def __init__(self, path: str) -> None:
        self.path = path

    @functools.cached_property
    def is_folder(self) -> bool:
        """Whether the path is a folder; False for a file."""
        return storage.is_dir(self.path)

    @property
    def has_nested_files(self) -> bool:
        """Whether some sub-folder of the folder holds a file."""
        return self._listing is None

    @property
    def file_names(self) -> list[str]:
        """Names of the files directly in the folder, sorted; none where files are nested."""
        return self._listing or []

    @functools.cached_property
    def _listing(self) -> list[str] | None:
        names = []
        for file in listing.walk(self.path):
            folder, is_nested, _ = file.filename.partition("/")
            if is_nested and listing.is_system_folder(folder):
                continue
            if is_nested:
                return None  # a listing of all images could take minutes
            names.append(file.filename)
        return sorted(names)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are read, as flags say it.

    Attributes:
        image_root: folders that images may be read from, separated by commas; relative paths in a list are relative to
            the first. None for the list's own folder, or the folder of the classes. See `ImageRoots`.
        split_column: column of a list that says to which split a line belongs; None if there is none.
        image_feature, label_feature: of TFRecords in another schema than slim's or the original's; None for these.
        max_image_pixels, max_image_mib: see image_limits.
        max_side: pixels to which the shorter side of a larger image is reduced; 0 for none.
    """

    image_root: str | None = None
    split_column: str | None = None
    image_feature: str | None = None
    label_feature: str | None = None
    max_image_pixels: int = image_limits.DEFAULT_PIXELS
    max_image_mib: int = image_limits.DEFAULT_MIB
    max_side: int = 0

    @classmethod
    def of(cls, flags: Flags) -> ReadOptions:
        """The options that flags name. A flag that a command or a step does not take is not set."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in vars(flags).items() if name in names})

    @property
    def limits(self) -> ImageLimits:
        """What an image may take."""
        return ImageLimits(self.max_image_pixels, self.max_image_mib)


AS_GIVEN = ReadOptions()


@dataclass(frozen=True, slots=True)
class Source(abc.ABC):
    """One part of a metadata text. A kind of source is a subclass of ImageSource or RecordSource, listed in KINDS.

    Attributes:
        kind: what messages call it, as "CSV".
        description: how to give one, as part of a sentence, as "a CSV".
        suffixes: endings, in lower case, of files that are of this kind.
        takes_split_column: whether --split_column can name a column of it.
        path: as the metadata names it: a file or a folder.
    """

    kind: ClassVar[str]
    description: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    takes_split_column: ClassVar[bool] = False

    path: str

    @classmethod
    @abc.abstractmethod
    def match(cls, candidate: Candidate) -> Source | None:
        """The source that a path is, or None when it is of another kind. The kinds are tried in the order of KINDS.

        Raises:
            FlagError: the path is of this kind and cannot be used.
        """

    @abc.abstractmethod
    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """What identifies the source's content, in any order, without reading images or records."""


@dataclass(frozen=True, slots=True)
class ImageSource(Source):
    """A source that names images. By default it is a file that lists them.

    Attributes:
        fingerprint_name: names the file's content in `fingerprint_items`; with another one, models that were trained on
            such a source count as trained on other data. Needed only where the source is a file.
    """

    fingerprint_name: ClassVar[str]

    @abc.abstractmethod
    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        """What the images are labelled with: one name per label of an entry.

        Raises:
            DataError: the source does not name them.
        """

    @abc.abstractmethod
    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        """Everything that the source names, in a fixed order. An image may be named twice.

        Raises:
            DataError: the source is not readable as one of its kind.
        """

    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """The content of the file that lists the images, and names, sizes and versions of these."""
        yield self.fingerprint_name, listing.digest_of_list(self.path)
        images = (entry for entry in self.entries(options) if isinstance(entry, Entry))
        yield from listing.stat_items((image.path, image.filename) for image in images)


@dataclass(frozen=True, slots=True)
class RecordSource(Source):
    """A source of TFRecord files, which are checked and listed but not copied.

    Attributes:
        has_splits: whether the source itself knows which of its files are for training and which for evaluation.
    """

    has_splits: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def named_paths(self) -> tuple[str, ...]:
        """The files or the folder that the metadata names: no two sources may share one."""

    @abc.abstractmethod
    def files(self, split: str) -> list[RecordFile]:
        """The files of `train` or `eval`; all files, for a source without splits.

        Raises:
            DataError: a source with splits does not have this one.
        """

    @abc.abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """The tasks with their class names, where the source records them; else none."""

    def downscaled(self) -> Downscaled | None:
        """What --max_side did when the files were built, where the source records it."""
        return None
