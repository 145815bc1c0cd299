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
from tf_image_classification.data.sources.image_paths import locate
from tf_image_classification.errors import FlagError


@dataclass(frozen=True, slots=True)
class JsonLines(ImageSource):
    """Lines such as {"image": "a.jpg", "class": "cat"}."""

    kind: ClassVar[str] = "JSON lines file"
    fingerprint_name: ClassVar[str] = "json lines"
    description: ClassVar[str] = "a file of JSON lines"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    @classmethod
    def match(cls, candidate: Candidate) -> JsonLines | None:
        return cls(candidate.path) if candidate.path.endswith(cls.suffixes) else None

    def task_names(self) -> tuple[str, ...]:
        return ("label",)

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        for line in Path(self.path).read_text().splitlines():
            row = json.loads(line)
            yield locate(row["image"], (row["class"],), str(Path(self.path).parent), options.image_root)


@pytest.fixture
def listed(tmp_path, monkeypatch) -> Path:
    """A file of JSON lines beside the images that it names."""
    monkeypatch.setattr(sources, "KINDS", (JsonLines, *sources.KINDS))
    rows = []
    for number in range(60):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "class": ["cat", "dog"][number % 2]}))
    (tmp_path / "images.jsonl").write_text("\n".join(rows))
    return tmp_path / "images.jsonl"


def test_it_is_recognized_and_built_with_nothing_else_changed(listed, tmp_path):
    assert sources.expand(str(listed)) == [JsonLines(str(listed))]
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
    assert list(found[0].paths_read(sources.AS_GIVEN)) == [str(tmp_path / f"{number}.png") for number in range(60)]


def test_messages_name_it(listed):
    with pytest.raises(FlagError, match=r"JSON lines file does not exist.*Expected: a file of JSON lines, a CSV, "):
        sources.expand("nothing.jsonl")
    with pytest.raises(FlagError, match="a CSV or a folder with one sub-folder per class; or"):
        sources.expand(f"{listed},{__file__}")
