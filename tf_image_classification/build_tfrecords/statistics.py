"""statistics.html: what a data set holds, on one self-contained page."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tf_image_classification import pages
from tf_image_classification.data.manifest import Manifest, Split

FILE_NAME = "statistics.html"
SAMPLE_CLASSES, SAMPLES_PER_CLASS = 24, 4
REJECTED_SHOWN = 100

_CLASSES_SHOWN = 200
_SIDES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass
class Pixels:
    """Sizes and formats of the images that were written, as counts: they do not grow with the number of images."""

    formats: Counter[str] = field(default_factory=Counter)
    longer_sides: Counter[int] = field(default_factory=Counter)
    reencoded: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None

    def add(self, height: int, width: int, image_format: str, reencoded: bool) -> None:
        """Counts one image."""
        self.formats[f"{image_format.upper()}, {'re-encoded' if reencoded else 'byte for byte'}"] += 1
        self.longer_sides[bisect.bisect_left(_SIDES, max(height, width))] += 1
        self.reencoded += reencoded
        size = (width, height)
        self.smallest = min(self.smallest or size, size, key=_area)
        self.largest = max(self.largest or size, size, key=_area)

    def side_counts(self) -> list[tuple[str, int]]:
        """How many images have a longer side within which bounds, from the smallest that occurs to the largest."""
        if not self.longer_sides:
            return []
        names = [f"up to {side:,}" for side in _SIDES] + [f"over {_SIDES[-1]:,}"]
        return [
            (names[index], self.longer_sides[index])
            for index in range(min(self.longer_sides), max(self.longer_sides) + 1)
        ]


class Samples:
    """A few thumbnails of some classes: each is a JPEG in base64."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self.by_class: dict[str, list[str]] = defaultdict(list)

    def wants(self, label: str) -> bool:
        """Whether another image of this class is to be shown; counts it as asked for."""
        if self._asked[label] >= SAMPLES_PER_CLASS or (label not in self._asked and len(self._asked) >= SAMPLE_CLASSES):
            return False
        self._asked[label] += 1
        return True

    def add(self, label: str, thumbnail: str) -> None:
        """Takes a thumbnail that was asked for."""
        self.by_class[label].append(thumbnail)


class _Histogram(NamedTuple):
    task: str
    rows: list[tuple[str, list[int]]]
    most: int
    left_out: int


def render(manifest: Manifest, pixels: Pixels, samples: Samples, rejected: Iterable[tuple[str, str, str]]) -> str:
    """The page.

    Args:
        pixels: empty if nothing was built from images.
        rejected: split, path and reason of the first rejected images.
    """
    page = pages.template(
        "tf_image_classification.build_tfrecords", FILE_NAME, number=lambda value: f"{value:,}", bytes=human_bytes
    )
    return page.render(
        manifest=manifest,
        splits=manifest.splits,
        bytes_of={name: split_bytes(split) for name, split in manifest.splits.items()},
        histograms=_histograms(manifest),
        pixels=pixels,
        sides=pixels.side_counts(),
        samples=sorted(samples.by_class.items()),
        rejected=[(split, path.encode(errors="replace").decode(), reason) for split, path, reason in rejected],
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
        rows = [
            (label, [split.class_counts[task.name].get(label, 0) for split in manifest.splits.values()])
            for label in task.labels
        ]
        if len(rows) > _CLASSES_SHOWN:
            rows.sort(key=lambda row: -sum(row[1]))
        most = max((max(counts) for _, counts in rows), default=0)
        histograms.append(_Histogram(task.name, rows[:_CLASSES_SHOWN], most, max(0, len(rows) - _CLASSES_SHOWN)))
    return histograms


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
