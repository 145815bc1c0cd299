"""A kind of source that is added: a class, and its entry in KINDS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from tf_image_classification import build_tfrecords
from tf_image_classification.data import sources
from tf_image_classification.data.sources import Candidate, Entry, ImageSource, ReadOptions, Rejected
from tf_image_classification.data.sources.listed_image import ListedImages
from tf_image_classification.errors import FlagError


@dataclass(frozen=True, slots=True)
class JsonFile(ImageSource):
    """A list such as [{"image": "a.jpg", "class": "cat"}]."""

    kind: ClassVar[str] = "JSON file"
    fingerprint_name: ClassVar[str] = "json"
    description: ClassVar[str] = "a JSON file"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @classmethod
    def match(cls, candidate: Candidate) -> JsonFile | None:
        return cls(candidate.path) if candidate.path.endswith(cls.suffixes) else None

    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        return ("label",)

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        images = ListedImages(self.path, options)
        for item in json.loads(Path(self.path).read_text()):
            yield images.entry(item["image"], (item["class"],), split=None)


@pytest.fixture
def listed(tmp_path, monkeypatch) -> Path:
    """A JSON file beside the images that it names."""
    monkeypatch.setattr(sources, "KINDS", (JsonFile, *sources.KINDS))
    items = []
    for number in range(60):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        items.append({"image": f"{number}.png", "class": ["cat", "dog"][number % 2]})
    (tmp_path / "images.json").write_text(json.dumps(items))
    return tmp_path / "images.json"


def test_it_is_recognized_and_built_with_nothing_else_changed(listed, tmp_path):
    assert sources.expand(str(listed)) == [JsonFile(str(listed))]
    data = build_tfrecords.build(str(listed), str(tmp_path / "data"))
    assert data.tasks[0].labels == ("cat", "dog")
    assert sum(split.examples for split in data.splits.values()) == 60


def test_its_fingerprint_changes_with_the_list_and_with_an_image(listed, tmp_path):
    prints = {build_tfrecords.fingerprint(str(listed))}
    listed.write_text(listed.read_text().replace("cat", "owl"))
    prints.add(build_tfrecords.fingerprint(str(listed)))
    (tmp_path / "0.png").write_bytes(b"longer than before")
    prints.add(build_tfrecords.fingerprint(str(listed)))
    assert len(prints) == 3


def test_it_mixes_with_other_images_and_its_images_are_what_it_reads(listed, tmp_path):
    (tmp_path / "images.csv").write_text("0.png,cat\n")
    found = sources.expand(f"{listed},{tmp_path}/images.csv")
    assert len(list(sources.read_entries(found))) == 61
    assert [entry.path for entry in found[0].entries(sources.AS_GIVEN)] == [
        str(tmp_path / f"{number}.png") for number in range(60)
    ]


def test_messages_name_it(listed, tmp_path):
    (tmp_path / "train.tfrecord").write_bytes(b"")
    with pytest.raises(FlagError, match=r"JSON file does not exist.*Expected: a JSON file, a CSV, "):
        sources.expand("nothing.json")
    with pytest.raises(FlagError, match="a JSON Lines file of Vertex AI or a folder with one sub-folder per class; or"):
        sources.expand(f"{listed},{tmp_path}/train.tfrecord")
