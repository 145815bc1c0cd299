"""Building from and into a bucket, served by a local emulator."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.standin import bucket as standin
from tests.standin.faults import Fault
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords import images, prepare
from tf_image_classification.data import manifest, sources, tfrecord
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.image_limits import ImageLimits

BUCKET = "gs://photos"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with standin.serving("photos") as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        fill()
        yield BUCKET


def fill() -> None:
    for label in ("cat", "dog"):
        for number in range(15):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, label == "cat")).save(file, "PNG")
            storage.write_bytes(f"{BUCKET}/images/{label}/{number}.png", file.getvalue())
    storage.write_text(f"{BUCKET}/images/cat/notes.txt", "no image")
    lines = [f"{label}/{number}.png,{label}" for label in ("cat", "dog") for number in range(15)]
    storage.write_text(
        f"{BUCKET}/images.csv", "\n".join([*lines, "gs://photos/images/dog/none.png,dog", "gs://other/dog.png,dog"])
    )


def test_a_folder_in_a_bucket_becomes_a_data_set_in_a_bucket(bucket, tmp_path):
    data = build_tfrecords.build(f"{bucket}/images", f"{bucket}/data")
    assert manifest.read(f"{bucket}/data") == data
    assert sum(split.examples for split in data.splits.values()) == 30
    assert data.rejected_reasons == {"not an image": 1}
    shard = storage.fetch(data.shard_paths("eval")[0], str(tmp_path))
    names = [tfrecord.parse_example(record)["image/filename"][0].decode() for record in tfrecord.read(shard)]
    assert all(sources.split_of(name, 0.2) == "eval" for name in names)
    assert all(storage.exists(f"{bucket}/images/{name}") for name in names)


def test_whether_a_data_set_is_whole_is_seen_in_a_listing_and_it_is_built_again_if_not(monkeypatch):
    with standin.Buckets("photos") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        fill()
        folder = f"{BUCKET}/data"
        built = build_tfrecords.build(f"{BUCKET}/images", folder, shard_bytes=1)
        assert len(built.splits["train"].shards) > 10
        before = len(service.requests)
        assert prepare.prepare_training(f"{BUCKET}/images", folder) == built
        assert not [request for request in service.requests[before:] if ".tfrecord" in request]
        storage.delete(built.shard_paths("train")[3])
        again = prepare.prepare_training(f"{BUCKET}/images", folder)
        assert again != built and all(map(storage.exists, again.shard_paths("train")))


def test_an_image_above_the_limit_is_not_downloaded_whole(bucket):
    storage.write_bytes(f"{bucket}/large.png", bytes(3 * 2**20))
    assert len(storage.read_bytes(f"{bucket}/large.png")) == 3 * 2**20
    with pytest.raises(DataError, match=r"too large.*at most 3,145,727 bytes"):
        storage.read_bytes(f"{bucket}/large.png", 3 * 2**20 - 1)
    with pytest.raises(images.RejectedImage, match="file larger than 1 MiB"):
        images.read(f"{bucket}/large.png", ImageLimits(max_mib=1))


def test_one_worker_reads_several_images_at_a_time(tmp_path, monkeypatch):
    """Waiting for the network takes longer than checking an image."""
    together = threading.Event()

    class Slow(standin.Buckets):
        reading = 0
        patience = 10.0

        def next_fault(self, method: str, path: str) -> Fault | None:
            if method == "GET" and "alt=media" in path:
                with self.lock:
                    self.reading += 1
                    if self.reading > 1:
                        together.set()
                if not together.wait(self.patience):  # the first answer is sent when a second one is requested
                    self.patience = 0.0
                with self.lock:
                    self.reading -= 1
            return super().next_fault(method, path)

    with Slow("photos") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        fill()
        build_tfrecords.build(f"{BUCKET}/images", str(tmp_path / "data"), workers=1)
    assert together.is_set()


def test_a_csv_in_a_bucket_names_images_below_a_root_in_it(bucket, tmp_path):
    data = build_tfrecords.build(
        f"{bucket}/images.csv", str(tmp_path / "data"), options=ReadOptions(image_root=f"{bucket}/images")
    )
    assert sum(split.examples for split in data.splits.values()) == 30
    assert data.rejected_reasons == {"file not found": 1, f"outside --image_root {bucket}/images": 1}


def test_shards_in_a_bucket_are_checked_and_listed(bucket, tmp_path):
    built = build_tfrecords.build(f"{bucket}/images", f"{bucket}/more")
    data = build_tfrecords.build(f"{bucket}/more/train*", str(tmp_path / "data"), eval_metadata=f"{bucket}/more/eval*")
    assert data.shard_paths("train") == built.shard_paths("train")
    assert data.tasks == built.tasks


def test_the_fingerprint_follows_an_image_in_a_bucket(bucket):
    before = (
        build_tfrecords.fingerprint(f"{bucket}/images"),
        build_tfrecords.fingerprint(f"{bucket}/images.csv", options=ReadOptions(image_root=f"{bucket}/images")),
    )
    image = storage.read_bytes(f"{bucket}/images/dog/1.png")
    storage.write_bytes(f"{bucket}/images/cat/0.png", image)
    after = (
        build_tfrecords.fingerprint(f"{bucket}/images"),
        build_tfrecords.fingerprint(f"{bucket}/images.csv", options=ReadOptions(image_root=f"{bucket}/images")),
    )
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_data_set_is_not_written_into_the_images_it_is_built_from_nor_over_something_else(bucket):
    for output_dir, problem in (
        (f"{bucket}/images/data", "is inside the data"),
        (f"{bucket}/images", "would replace|has other content"),
    ):
        with pytest.raises(FlagError, match=problem):
            build_tfrecords.build(f"{bucket}/images", output_dir)
    assert sum(1 for _ in storage.walk(f"{bucket}/images")) == 31


def test_each_name_of_an_object_has_its_own_pixels_under_its_own_label(bucket, tmp_path):
    """As files, both images would be exact/x.png, and both TFRecords exact/one.tfrecord."""
    for name, colour in (("exact//x.png", (255, 0, 0)), ("exact/x.png", (0, 255, 0))):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        storage.write_bytes(f"{bucket}/{name}", file.getvalue())
    table = str(tmp_path / "exact.csv")
    storage.write_text(table, f"{bucket}/exact//x.png,red\n{bucket}/exact/x.png,green\n")
    options = ReadOptions(image_root=bucket)
    listed = build_tfrecords.build(table, str(tmp_path / "listed"), eval_metadata=table, options=options)
    for label, folder in (("red", "exact//"), ("green", "exact/")):
        records = [record for record in tfrecord.read(listed.shard_paths("train")[0]) if label.encode() in record]
        storage.write_bytes(f"{bucket}/{folder}one.tfrecord", b"".join(map(tfrecord.frame, records)))
    both = f"{bucket}/exact//one.tfrecord,{bucket}/exact/one.tfrecord"
    data = build_tfrecords.build(both, str(tmp_path / "data"), eval_metadata=table, options=options)
    assert data.shard_paths("train") == both.split(",")
    for path in (*listed.shard_paths("train"), *data.shard_paths("train")):
        for record in map(tfrecord.parse_example, tfrecord.read(storage.fetch(path, str(tmp_path / "copies")))):
            pixel = Image.open(io.BytesIO(record["image/encoded"][0])).getpixel((0, 0))
            assert record["image/class/text"] == [{(255, 0, 0): b"red", (0, 255, 0): b"green"}[pixel]]
