from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tf_image_classification.data import fingerprint as module
from tf_image_classification.data.fingerprint import fingerprint
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError


def write(path: Path, content: str | bytes = "x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_pinned(path: Path, content: bytes) -> str:
    """A file whose modification time is always the same."""
    write(path, content)
    os.utime(path, ns=(10**18, 10**18))
    return str(path)


@pytest.fixture
def pinned(tmp_path) -> Path:
    """Sources of every kind whose fingerprints are known."""
    for name, content in {
        "photos/cat/a.jpg": b"aa",
        "photos/dog/b.jpg": b"bbb",
        "photos/loose.txt": b"x",
        "held-out/cat/c.jpg": b"c",
        "images.csv": b"URIs,labels\nphotos/cat/a.jpg,cat\nphotos/dog/b.jpg,dog\n"
        b"photos/dog/missing.jpg,dog\n../x.jpg,cat\n",
        "labels.txt": b"cat\ndog\n",
        "records/train-0.tfrecord": b"record",
        "records/train-1.tfrecord": b"another",
        "data/train-00000-of-00001.tfrecord": b"train",
        "data/eval-00000-of-00001.tfrecord": b"eval",
    }.items():
        write_pinned(tmp_path / name, content)
    manifest = {
        "format": 1,
        "tasks": [{"name": "label", "labels": ["cat", "dog"], "feature": "image/class/label"}],
        "splits": {split: pinned_split(split) for split in ("train", "eval")},
        "rejected_reasons": {},
        "reencoded": 0,
        "sources": {},
        "fingerprint": "",
        "versions": {},
    }
    write_pinned(tmp_path / "data" / "manifest.json", json.dumps(manifest).encode())
    return tmp_path


def pinned_split(name: str) -> dict:
    return {
        "shards": [{"path": f"{name}-00000-of-00001.tfrecord", "examples": 1, "bytes": 5, "crc32c": "00000000"}],
        "schema": "slim",
        "compression": "",
        "images": 1,
        "rejected": 0,
        "class_counts": {},
        "examples": 1,
    }


def fingerprints(pinned: Path) -> list[str]:
    photos, table, held_out = str(pinned / "photos"), str(pinned / "images.csv"), str(pinned / "held-out")
    labels, records = str(pinned / "labels.txt"), str(pinned / "records")
    return [
        fingerprint(photos, eval_fraction=0.2),
        fingerprint(table, options=ReadOptions(image_root=str(pinned)), labels_file=labels, eval_fraction=0.2),
        fingerprint(records, f"{records}/train-0.tfrecord"),
        fingerprint(str(pinned / "data")),
        fingerprint(f"{photos},{table}", held_out),
    ]


def test_equal_data_keeps_its_fingerprint_from_version_to_version(pinned):
    assert fingerprints(pinned) == [
        "67f610a8fedce1e98f99e17ebf13fc5e66ddb11986eec48bcda13a5a64695199",
        "b85e950962b1d96af4f6ef4b9671a5f744c8a16f7880f314617c6145ec42bbc2",
        "ca36cc86a513eccf8b2644497859243237f7c408bb1ef70471c164aea47ed018",
        "a571ef115dc7edf86c1fd97890d738cf7daf2da31206f83ccc47f9f47f79d0da",
        "758e53770d7799291298b1d67e962521113df754b3c0e8298d8d48d33032c6c9",
    ]


def test_data_too_large_to_be_read_has_the_fingerprint_that_version_2_0_0_gave_it(pinned, monkeypatch):
    monkeypatch.setattr(module, "CONTENT_BYTES", 0)
    assert fingerprints(pinned) == [
        "894f569b6d98d27d81421300458bd6e19b04490027e41b9818cd140be2c26705",
        "c116adfeb35f978574e41e733d1d74db1bc68120cfdce678f2969334638054b2",
        "b9b8c67c8e1c6a4dfc301d92fd9cbdbb1f1d614e82611d2a122d90c7667bef28",
        "8401ae6f88475b6a533a38bdf7c054b0f1875269ae64dee2017ac3c4de14ca80",
        "cb2313b99578f5be6def90f6da4d5f7a2e17c2a002c29ce66a96549162223d52",
    ]


def test_the_fingerprint_of_a_copy_is_the_same_whatever_its_times_and_order(tmp_path):
    for time, (root, order) in enumerate((("one", "ab"), ("two", "ba"))):
        for name in order:
            os.utime(write(tmp_path / root / "cat" / f"{name}.jpg", name), (time, time))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(f"{one},{two}") == fingerprint(f"{two},{one}")
    assert len(fingerprint(one)) == 64


@pytest.mark.parametrize("path", ["photos/cat/a.jpg", "records/train-0.tfrecord", "data/eval-00000-of-00001.tfrecord"])
def test_another_content_of_the_same_size_and_time_is_other_data(pinned, path):
    before = fingerprints(pinned)
    write_pinned(pinned / path, bytes(len((pinned / path).read_bytes())))
    assert fingerprints(pinned) != before


@pytest.mark.parametrize("limit", ["CONTENT_BYTES", "CONTENT_FILES"])
def test_more_than_can_be_read_in_seconds_goes_by_modification_times_and_the_log_says_which(
    pinned, limit, monkeypatch, caplog
):
    caplog.set_level("INFO")
    photos = pinned / "photos"
    fingerprint(str(photos))
    assert "3 files by content" in caplog.text
    monkeypatch.setattr(module, limit, 2)
    before = fingerprint(str(photos))
    assert "3 files by size and modification time" in caplog.text
    write_pinned(photos / "cat" / "a.jpg", b"zz")
    assert fingerprint(str(photos)) == before
    os.utime(photos / "cat" / "a.jpg", (1, 1))
    assert fingerprint(str(photos)) != before


def test_a_pipe_and_a_dangling_link_among_the_images_are_not_waited_for(tmp_path):
    write(tmp_path / "photos" / "cat" / "a.jpg")
    os.mkfifo(tmp_path / "photos" / "cat" / "pipe.jpg")
    (tmp_path / "photos" / "cat" / "link.jpg").symlink_to("nowhere")
    assert len(fingerprint(str(tmp_path / "photos"))) == 64


def test_a_labels_file_that_is_missing_is_a_wrong_call(tmp_path):
    write(tmp_path / "photos" / "cat" / "a.jpg")
    with pytest.raises(FlagError, match="--labels_file does not exist"):
        fingerprint(str(tmp_path / "photos"), labels_file=str(tmp_path / "labels.txt"))


def test_the_fingerprint_changes_with_anything_that_could_change_the_data(tmp_path):
    table = write(tmp_path / "images.csv", "a.jpg,cat\nb.jpg,dog\n")
    labels = write(tmp_path / "labels.txt", "cat\ndog\n")
    write(tmp_path / "photos" / "cat" / "a.jpg")
    record = write(tmp_path / "train.tfrecord")
    folder = str(tmp_path / "photos")

    def all_of_them() -> tuple[str, ...]:
        return (
            fingerprint(table),
            fingerprint(table, labels_file=labels),
            fingerprint(folder),
            fingerprint(record),
        )

    def changed() -> list[bool]:
        nonlocal before
        after = all_of_them()
        result = [old != new for old, new in zip(before, after, strict=True)]
        before = after
        return result

    before = all_of_them()
    assert len({*before, fingerprint(folder, folder), fingerprint(folder, eval_fraction=0.1)}) == 6
    assert changed() == [False, False, False, False]
    write(tmp_path / "a.jpg")  # an image that the CSV names
    assert changed() == [True, True, False, False]
    write(tmp_path / "a.jpg", "y")
    assert changed() == [True, True, False, False]
    write(Path(labels), "cat\ndog\nowl\n")
    assert changed() == [False, True, False, False]
    write(tmp_path / "photos" / "cat" / "b.jpg")
    assert changed() == [False, False, True, False]
    write(Path(record), "y")
    assert changed() == [False, False, False, True]
    write(Path(table), "a.jpg,cat\nb.jpg,cat\n")
    assert changed() == [True, True, False, False]


def test_limits_and_size_of_images_are_part_of_the_fingerprint_unless_they_are_the_defaults(tmp_path):
    table = write(tmp_path / "images.csv", "a.jpg,cat\n")
    given = [ReadOptions(), ReadOptions(max_image_pixels=10**6), ReadOptions(max_image_mib=10), ReadOptions(max_side=9)]
    assert len({fingerprint(table), *(fingerprint(table, options=options) for options in given)}) == 4


def test_the_fraction_held_out_is_part_of_the_fingerprint_only_where_it_decides(tmp_path):
    for split in ("train", "eval"):
        write(tmp_path / split / "cat" / "1.png", split)

    def with_fraction(fraction: float, evaluation: str | None) -> str:
        return fingerprint(str(tmp_path / "train"), evaluation, eval_fraction=fraction)

    assert with_fraction(0.1, None) != with_fraction(0.2, None)
    assert with_fraction(0.1, str(tmp_path / "eval")) == with_fraction(0.2, str(tmp_path / "eval"))
