"""What a build or a check leaves for people: statistics.html, rejected.csv, and a line that sums it up."""

from __future__ import annotations

import csv
import itertools
import os
import platform

from tf_image_classification import __version__, storage
from tf_image_classification import versions as package_versions
from tf_image_classification.build_tfrecords import quality, statistics
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex
from tf_image_classification.data.csv_cells import cell
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.sources import ImageRoots
from tf_image_classification.errors import printable

REJECTED_FILE = "rejected.csv"

_NAMED_REASONS = 5


def write(
    folder: str,
    data: Manifest,
    index: ImageIndex,
    duplicates: DuplicateIndex,
    pixels: statistics.Pixels,
    samples: statistics.Samples,
    roots: ImageRoots,
) -> None:
    """Writes statistics.html and rejected.csv.

    Args:
        folder: a local one.
        data: what was built or checked.
        index: with the rejected images.
        duplicates: of the images, after the search for them.
        pixels, samples: of the images.
        roots: that images are read from.
    """
    with open(os.path.join(folder, REJECTED_FILE), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "reason"])
        writer.writerows(map(cell, row) for row in index.rejected())
    first_rejected = itertools.islice(index.rejected(), statistics.REJECTED_SHOWN)
    pairs = quality.shown_pairs(duplicates, roots) if data.quality is not None else {}
    page = statistics.render(data, pixels, samples, first_rejected, pairs)
    storage.write_text(os.path.join(folder, statistics.FILE_NAME), page)


def versions() -> dict[str, str]:
    """What a manifest records of the packages that built it."""
    own = {"tf-image-classification": __version__, "python": platform.python_version()}
    return own | package_versions.installed("pillow", "protobuf")


def reasons(index: ImageIndex, *splits: str) -> str:
    """The most frequent reasons for rejections, each with its number and an image as example; '' if there are none."""
    paths = index.examples_of(*splits)
    named = itertools.islice(index.reasons(*splits).items(), _NAMED_REASONS)
    return "; ".join(f"{number:,} x " + printable(f"{reason} ({paths[reason]})") for reason, number in named)


def summary(data: Manifest, *, shards: bool = True) -> str:
    """A data set in a line; without its number of shards where none were written."""
    examples = " and ".join(f"{split.examples:,} {name}" for name, split in data.splits.items())
    size = statistics.human_bytes(sum(statistics.split_bytes(split) for split in data.splits.values()))
    written = f" in {sum(len(split.shards) for split in data.splits.values()):,} shards" if shards else ""
    rejected = sum(split.rejected for split in data.splits.values())
    line = f"{examples} examples{written} ({size}), {rejected:,} images rejected, {data.reencoded:,} re-encoded"
    if data.downscaled:
        before, after = map(statistics.human_bytes, (data.downscaled.file_bytes, data.downscaled.record_bytes))
        line += f", {data.downscaled.images:,} reduced by --max_side {data.downscaled.max_side} ({before} to {after})"
    return line


def metadata(data: Manifest) -> dict[str, str | int]:
    """What a pipeline shows of a data set beside its artifact."""
    shown: dict[str, str | int] = {f"{name}_examples": split.examples for name, split in data.splits.items()}
    if data.quality is not None:
        near = data.quality.near_duplicates
        shown |= {"duplicates_across_splits": near.across_splits, "duplicates_with_other_labels": near.other_labels}
    if data.downscaled is not None:
        shown["downscaled"] = data.downscaled.images
    rejected = sum(split.rejected for split in data.splits.values())
    return shown | {"fingerprint": data.fingerprint, "rejected": rejected}
