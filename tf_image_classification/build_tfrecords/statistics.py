"""statistics.html: a self-contained page about a data set."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tf_image_classification import pages
from tf_image_classification.build_tfrecords.large_images import LargeImages
from tf_image_classification.build_tfrecords.near_duplicates import Pair
from tf_image_classification.build_tfrecords.worker_messages import WrittenImage
from tf_image_classification.data.manifest import Manifest, Split

FILE_NAME = "statistics.html"
SAMPLE_CLASSES, SAMPLES_PER_CLASS = 24, 4
REJECTED_SHOWN = 100

_CLASSES_SHOWN = 200
_SHORTER_SIDES = (32, 75, 128, 224, 299)  # 75: the least that Inception takes; the others are usual input sizes
_LONGER_SIDES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass
class Pixels:
    """Sizes and formats of the images that were written, as counts: memory does not grow with their number."""

    formats: Counter[str] = field(default_factory=Counter)
    longer_sides: Counter[int] = field(default_factory=Counter)
    shorter_sides: Counter[int] = field(default_factory=Counter)
    reencoded: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    large: LargeImages = field(default_factory=LargeImages)

    def add(self, image: WrittenImage) -> None:
        """Counts one image."""
        self.formats[_kind(image.format, image.reencoded)] += 1
        width, height = size = (image.width, image.height)
        shorter, longer = size if width < height else (height, width)
        self.longer_sides[bisect.bisect_left(_LONGER_SIDES, longer)] += 1
        self.shorter_sides[bisect.bisect_right(_SHORTER_SIDES, shorter)] += 1
        self.reencoded += image.reencoded
        self.large.add(image)
        if self.smallest is None or width * height < _area(self.smallest):
            self.smallest = size
        if self.largest is None or width * height > _area(self.largest):
            self.largest = size

    def size_counts(self) -> list[tuple[str, int]]:
        """Ranges of the longer side in pixels and their numbers of images, from the smallest image to the largest."""
        if not self.longer_sides:
            return []
        names = [f"up to {side:,}" for side in _LONGER_SIDES] + [f"over {_LONGER_SIDES[-1]:,}"]
        return [
            (names[index], self.longer_sides[index])
            for index in range(min(self.longer_sides), max(self.longer_sides) + 1)
        ]

    def shorter_sides_below(self) -> dict[str, int]:
        """Pixels -> number of images whose height or width is less: below the input size of a network they are
        enlarged."""
        counts = itertools.accumulate(self.shorter_sides[index] for index in range(len(_SHORTER_SIDES)))
        return {str(side): count for side, count in zip(_SHORTER_SIDES, counts, strict=True)}


class Samples:
    """A few thumbnails of some classes: each is a JPEG in base64."""

    def __init__(self) -> None:
        self._wanted: Counter[str] = Counter()
        self.by_class: dict[str, list[str]] = defaultdict(list)

    def wants(self, label: str) -> bool:
        """Whether the page has room for another image of this class; if so, the room is taken."""
        if label not in self._wanted and len(self._wanted) >= SAMPLE_CLASSES:
            return False
        if self._wanted[label] >= SAMPLES_PER_CLASS:
            return False
        self._wanted[label] += 1
        return True

    def add(self, label: str, thumbnail: str) -> None:
        """Adds a thumbnail, for which `wants` was true."""
        self.by_class[label].append(thumbnail)


class ShownPair(NamedTuple):
    """A pair of near duplicates with their thumbnails: JPEGs in base64, '' of a file that cannot be read any more."""

    pair: Pair
    thumbnails: tuple[str, str]


class _Histogram(NamedTuple):
    task: str
    rows: list[tuple[str, list[int]]]
    max_count: int
    num_hidden: int


def render(
    manifest: Manifest,
    pixels: Pixels,
    samples: Samples,
    rejected: Iterable[tuple[str, str, str]],
    pairs: Mapping[str, Sequence[ShownPair]],
) -> str:
    """The page.

    Args:
        pixels: empty if nothing was built from images.
        rejected: split, path and reason of the first rejected images.
        pairs: kind of near duplicates -> some of them.
    """
    page = pages.template(
        "tf_image_classification.build_tfrecords",
        FILE_NAME,
        number=_number,
        bytes=human_bytes,
        printable=_printable,
    )
    return page.render(
        manifest=manifest,
        splits=manifest.splits,
        written=all(shard.path for split in manifest.splits.values() for shard in split.shards),
        bytes_of={name: split_bytes(split) for name, split in manifest.splits.items()},
        histograms=_histograms(manifest),
        pixels=pixels,
        sizes=pixels.size_counts(),
        samples=sorted(samples.by_class.items()),
        quality=manifest.quality,
        pairs=pairs,
        rejected=[(split, _printable(path), reason) for split, path, reason in rejected],
        rejected_total=sum(split.rejected for split in manifest.splits.values()),
    )


def split_bytes(split: Split) -> int:
    """The size of a split's shards."""
    return sum(shard.bytes for shard in split.shards)


def human_bytes(size: float) -> str:
    """A size as people read it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _histograms(manifest: Manifest) -> list[_Histogram]:
    histograms = []
    for task in manifest.tasks:
        counts_by_split = [split.class_counts[task.name] for split in manifest.splits.values()]
        rows = []
        for label in task.labels:
            rows.append((label, [counts.get(label, 0) for counts in counts_by_split]))
        if len(rows) > _CLASSES_SHOWN:
            rows.sort(key=lambda row: -sum(row[1]))
        max_count = max((max(counts) for _, counts in rows), default=0)
        shown = rows[:_CLASSES_SHOWN]
        histograms.append(_Histogram(task.name, shown, max_count, len(rows) - len(shown)))
    return histograms


def _number(value: int) -> str:
    return f"{value:,}"


@functools.cache
def _kind(image_format: str, reencoded: bool) -> str:
    return f"{image_format.upper()}, {'re-encoded' if reencoded else 'byte for byte'}"


def _printable(name: str) -> str:
    """A file name with a question mark for what is not Unicode."""
    return name.encode(errors="replace").decode()


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
