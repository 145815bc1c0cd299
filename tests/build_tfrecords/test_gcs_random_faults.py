"""A data set is built from a bucket and into it while a quarter of all requests fail."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.standin.bucket import Buckets
from tests.standin.faults import Fault, RandomFaults
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.sources import listing
from tf_image_classification.errors import UserError
from tf_image_classification.storage import gcs, gcs_requests

IMAGES = 240
OUTPUT = "gs://bucket/data"


@pytest.fixture
def service(monkeypatch) -> Iterator[Buckets]:
    """A bucket with photos and a CSV that names them, two of which cannot be used."""
    with Buckets("bucket", page_size=50) as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        lines = []
        for number in range(IMAGES):
            label = ("cat", "dog", "eel")[number % 3]
            file = io.BytesIO()
            Image.effect_noise((24, 24), number).convert("RGB").save(file, "PNG")
            lines.append(add(service, f"{label}/{number}.png", file.getvalue()) + f",{label}")
        lines.append(add(service, "cat/notes.png", b"no image") + ",cat")
        lines.append("gs://bucket/images/none.png,dog")
        storage.write_text("gs://bucket/images.csv", "\n".join(lines))
        yield service


def add(service: Buckets, name: str, content: bytes) -> str:
    gcs.write(f"gs://bucket/images/{name}", content, 0)
    return f"gs://bucket/images/{name}"


@pytest.mark.slow
def test_random_faults_do_not_change_what_is_built(service, tmp_path):
    options = {"workers": 2, "shard_bytes": 50_000}
    expected = build_tfrecords.build("gs://bucket/images.csv", str(tmp_path / "expected"), **options)
    began, without_faults = len(service.changes), len(service.requests)
    service.random_faults = RandomFaults(rate=0.25, seed=1)
    built = build_tfrecords.build("gs://bucket/images.csv", OUTPUT, **options)
    service.random_faults = None

    assert built.splits == expected.splits
    assert sum(split.examples for split in built.splits.values()) == IMAGES
    assert built.rejected_reasons == {"not an image": 1, "file not found": 1}
    names = []
    for split in built.splits:
        for path, expected_path in zip(built.shard_paths(split), expected.shard_paths(split), strict=True):
            assert storage.read_bytes(path) == Path(expected_path).read_bytes()
            names += [tfrecord.parse_example(record)["image/filename"][0] for record in tfrecord.read(expected_path)]
    assert len(names) == len(set(names)) == IMAGES
    assert_never_half(service, began)
    assert sum(service.injected.values()) > 0.2 * (len(service.requests) - without_faults)


@pytest.mark.slow
def test_a_data_set_is_replaced_despite_faults_and_no_half_is_ever_visible(service):
    build_tfrecords.build("gs://bucket/images.csv", OUTPUT, workers=1, shard_bytes=50_000)
    csv = storage.read_text("gs://bucket/images.csv").splitlines()
    storage.write_text("gs://bucket/images.csv", "\n".join(csv[: IMAGES // 2]))
    service.random_faults = RandomFaults(rate=0.3, seed=2)
    build_tfrecords.build("gs://bucket/images.csv", OUTPUT, workers=1, shard_bytes=50_000)
    service.random_faults = None
    assert_never_half(service, 0)


def assert_never_half(service: Buckets, began: int) -> None:
    """Replays everything that was visible: each file appeared complete, and a manifest only with all the files of its
    data set."""
    marker = f"{OUTPUT}/manifest.json"
    whole: dict[str, str] = {}  # the content of the folder when the manifest appeared
    visible: dict[str, str] = {}
    for change in service.changes[began:]:
        if not change.path.startswith(OUTPUT) or "/." in change.path:
            continue
        assert change.path == marker or marker not in visible, (
            "a file was written or deleted while the manifest existed"
        )
        if change.crc32c:
            assert change.path not in visible, "a file was written twice"
            visible[change.path] = change.crc32c
        else:
            del visible[change.path]
        if change.path == marker and change.crc32c:
            whole = dict(visible)
    assert visible == whole
    data = manifest.read(OUTPUT)
    shards = {
        path: shard
        for split in data.splits
        for path, shard in zip(data.shard_paths(split), data.splits[split].shards, strict=True)
    }
    assert shards.keys() == {path for path in visible if ".tfrecord" in path}
    for path, shard in shards.items():
        assert base64.b64decode(visible[path]).hex() == shard.crc32c


@pytest.mark.slow
def test_an_image_that_cannot_be_fetched_ends_the_build_and_is_not_left_out(service, monkeypatch, tmp_path):
    monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
    monkeypatch.setattr(gcs_requests, "RETRY_TIMEOUT", 0.2)
    service.faults = [Fault(path="cat%2F9.png.*alt=media", times=10**6)]
    with pytest.raises(UserError, match=r"request to Cloud Storage failed.*gs://bucket/images/cat/9.png.*503"):
        build_tfrecords.build("gs://bucket/images.csv", str(tmp_path / "data"), workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listed", "request_of", "named"),
    [(1000, "cat%2F9.png", "gs://bucket/images/cat/9.png"), (1, "startOffset=", "gs://bucket/")],
)
def test_a_fingerprint_does_not_take_an_image_for_missing_because_the_network_failed(
    service, monkeypatch, listed, request_of, named
):
    monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
    monkeypatch.setattr(gcs_requests, "RETRY_TIMEOUT", 0.2)
    monkeypatch.setattr(listing, "_LISTED", listed)
    service.faults = [Fault("reset", path=request_of, times=10**6)]
    with pytest.raises(UserError, match=rf"request to Cloud Storage failed.*{named}"):
        build_tfrecords.fingerprint("gs://bucket/images.csv")
