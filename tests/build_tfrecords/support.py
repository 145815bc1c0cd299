"""Images to build, and what tests read of what was built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.errors import DataError


def pictures(root: Path, classes: dict[str, int], size: int = 8) -> Path:
    """A folder with so many different PNGs of each class."""
    for value, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (size, size), (value, number % 256, number // 256)).save(root / name / f"{number:04}.png")
    return root


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def filenames(data: manifest.Manifest, split: str) -> list[str]:
    records = [tfrecord.parse_example(record) for path in data.shard_paths(split) for record in tfrecord.read(path)]
    return [record["image/filename"][0].decode() for record in records]


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tf_image_classification.build_tfrecords", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


def fail(job: str) -> None:
    """Work that cannot be done, in whichever process."""
    raise DataError("It failed", received=job, expected="something else", hint=f"In process {os.getpid()}.")


def print_and_answer(job: str) -> tuple[str, int]:
    """Work of a library that prints."""
    print("chatter")
    return job, os.getpid()
