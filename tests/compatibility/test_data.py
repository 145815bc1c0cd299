"""The data set in v2.0.0/data was built by version 2.0.0 from v2.0.0/images."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import pytest

from tf_image_classification import build_tfrecords
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.manifest import Manifest

WRITTEN = Path(__file__).parent / "v2.0.0"
SHARDS = ("train-00000-of-00001.tfrecord", "eval-00000-of-00001.tfrecord")


@pytest.fixture
def rebuilt(tmp_path, monkeypatch) -> Manifest:
    """The same images built now, as they were then: `images` into `data` of the working directory."""
    shutil.copytree(WRITTEN / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return build_tfrecords.build("images", "data", eval_fraction=0.3, workers=1, fingerprint="f" * 64)


def test_its_manifest_is_read():
    data = manifest.read(str(WRITTEN / "data"))
    assert [task.labels for task in data.tasks] == [("bright", "dark")]
    assert {name: (split.examples, split.rejected) for name, split in data.splits.items()} == {
        "train": (15, 1),
        "eval": (9, 0),
    }
    assert data.sources == {"train": "images"}
    for split in data.splits:
        for path, shard in zip(data.shard_paths(split), data.splits[split].shards, strict=True):
            assert tfrecord.file_crc32c(path) == shard.crc32c
            assert len(list(tfrecord.read(path))) == shard.examples


def test_it_is_metadata_like_any_built_data_set(tmp_path):
    data = build_tfrecords.build(str(WRITTEN / "data"), str(tmp_path / "data"))
    written = manifest.read(str(WRITTEN / "data"))
    assert data.tasks == written.tasks
    assert {name: split.class_counts for name, split in data.splits.items()} == {
        name: split.class_counts for name, split in written.splits.items()
    }


@pytest.mark.parametrize("name", [*SHARDS, "labels.txt"])
def test_the_same_images_give_the_same_bytes(rebuilt, name):
    assert Path("data", name).read_bytes() == (WRITTEN / "data" / name).read_bytes()


def test_the_same_images_give_the_same_manifest(rebuilt):
    written = manifest.read(str(WRITTEN / "data"))
    assert written.quality is None  # 2.0.0 did not look
    assert written.splits["train"].stored is None  # nor count formats
    splits = {name: dataclasses.replace(split, stored=None) for name, split in rebuilt.splits.items()}
    as_written = dataclasses.replace(rebuilt, versions={}, folder="", quality=None, splits=splits)
    assert as_written == dataclasses.replace(written, versions={}, folder="")
    assert rebuilt.versions.keys() == written.versions.keys()


def test_the_same_images_are_rejected_in_the_same_words(rebuilt):
    """Apart from the folder that the images were in, the files agree byte for byte."""
    written = (WRITTEN / "data" / "rejected.csv").read_bytes()
    ((_, path, _),) = list(csv.reader(written.decode().splitlines()))[1:]
    folder = path.removesuffix("/images/dark/broken.jpg")
    assert Path("data", "rejected.csv").read_bytes() == written.replace(folder.encode(), bytes(Path.cwd()))
