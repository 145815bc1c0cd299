"""Inputs that are built on Apache Beam and on this machine."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.build_tfrecords.image_kinds import KINDS
from tests.build_tfrecords.support import pictures
from tests.conftest import SHARED_CASES, SHARED_DATA

SHARD_BYTES = 4000  # of small pictures, so that there are several shards

with_photographs = pytest.mark.skipif(not (SHARED_DATA / "pets").is_dir(), reason="no photographs here")


def good_and_bad_images(root: Path) -> Path:
    """A folder of every kind of image, and of files that are none or damaged."""
    pictures(root, {"cat": 40, "dog": 40})
    for number, kind in enumerate(kind for kind in KINDS if kind.make):
        (root / "cat" / f"{number}-{Path(kind.file).name}").write_bytes(kind.make())
    if SHARED_CASES.is_dir():
        for path in (SHARED_CASES / "images").iterdir():
            (root / "dog" / path.name).write_bytes(path.read_bytes())
    for name, content in (("text.jpg", b"no image"), ("empty.png", b""), ("half.jpg", KINDS[0].make()[:200])):
        (root / "dog" / name).write_bytes(content)
    (root / "loose.png").write_bytes(b"")
    return root


def list_of_two_label_columns(path: Path) -> str:
    """A CSV of 60 `pictures` of cats and of dogs, with lines that are rejected."""
    names = [f"{label}/{number:04}.png" for label in ("cat", "dog") for number in range(60)]
    rows = [(name, name[:3], f"size {number % 3}") for number, name in enumerate(names)]
    rows += [("cat/none.png", "cat", "size 1"), ("cat/0000.png", "cat", "size 0"), ("dog/0001.png", "cat", "size 2")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "animal", "size"), *rows, ("cat/0002.png", "cat", "")])
    return str(path)
