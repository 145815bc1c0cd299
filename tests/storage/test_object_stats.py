"""Objects that lie close together are looked up by pages of a listing, with the results of single look-ups."""

from __future__ import annotations

import random

from tests.storage.conftest import serving
from tf_image_classification import storage
from tf_image_classification.data.sources import listing
from tf_image_classification.storage import object_stats


def looked_up(paths: list[str]) -> list[listing.File]:
    return sorted(listing.stat_items((path, path.rpartition("/")[2]) for path in paths))


def fill(root: str, names: list[str]) -> list[str]:
    paths = [f"{root}/{name}" for name in names]
    for path in paths:
        storage.write_bytes(path, path.encode())
    return paths


def test_a_list_of_neighbours_takes_few_requests_and_has_the_same_versions(root, service, monkeypatch):
    named = fill(root, [f"photos/{number:02}.jpg" for number in range(40)])
    fill(root, [f"photos/{number:02}.txt" for number in range(5)])
    missing = [f"{root}/photos/missing.jpg", f"{root}/photos/~.jpg"]
    asked = [*named, *missing, named[5]]
    random.Random(1).shuffle(asked)
    monkeypatch.setattr(listing, "_LISTED", 10)
    monkeypatch.setattr(object_stats, "_PAGE", 25)
    before = len(service.requests)
    found = looked_up(asked)
    assert len(service.requests) - before < 20
    monkeypatch.setattr(listing, "_LISTED", 1000)
    before = len(service.requests)
    assert looked_up(asked) == found
    assert len(service.requests) - before >= len(named)
    assert [file.size for file in found if file.path in missing] == [-1, -1]


def test_objects_among_many_others_are_asked_for_one_by_one(root, service, monkeypatch):
    asked = fill(root, [f"all/{number:02}.jpg" for number in range(60)])[::6]
    monkeypatch.setattr(listing, "_LISTED", 10)
    monkeypatch.setattr(object_stats, "_PAGE", 6)
    before = len(service.requests)
    assert [file.path for file in looked_up(asked)] == asked
    assert len(service.requests) - before == len(asked)  # a page, which shows one of them, and the others


def test_of_a_bucket_that_does_not_exist_each_object_is_missing(root, service, monkeypatch):
    monkeypatch.setattr(listing, "_LISTED", 1)
    assert [file.size for file in looked_up([f"{root}-2/{number}.jpg" for number in range(3)])] == [-1, -1, -1]


def test_objects_of_two_services_and_files_of_a_disk_are_in_one_list(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_LISTED", 1)
    local = tmp_path / "a.jpg"
    local.write_bytes(b"abc")
    with serving("gs", "bucket"), serving("s3", "bucket"):
        remote = [path for root in ("gs://bucket", "s3://bucket") for path in fill(root, ["x/1.jpg", "x/2.jpg"])]
        found = looked_up([*remote, str(local)])
        assert sorted(found) == sorted(
            listing.File(path, path.rpartition("/")[2], *storage.stat(path)[1:]) for path in [*remote, str(local)]
        )
