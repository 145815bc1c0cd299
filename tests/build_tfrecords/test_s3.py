"""Building from and into a bucket on s3://, by a list that names its images in each way."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.standin import s3
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.data import fingerprint, manifest, tfrecord


@pytest.fixture
def bucket(monkeypatch):
    with s3.S3("photos") as service:
        for name, value in s3.environment(service.url).items():
            monkeypatch.setenv(name, value)
        yield "s3://photos"


def test_a_list_on_s3_becomes_a_data_set_on_s3(bucket, tmp_path):
    for number in range(20):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
        storage.write_bytes(f"{bucket}/lists/images/{number}.png", file.getvalue())
    prefixes = ("images/", "s3://photos/lists/images/", "minio://photos/lists/images/")
    lines = [f"{prefixes[number % 3]}{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(20)]
    others = ["https://x.org/1.png,cat", "s3://other/1.png,cat", "images/none.png,cat"]
    storage.write_text(f"{bucket}/lists/all.csv", "\n".join([*lines, *others]))
    before = fingerprint.fingerprint(f"{bucket}/lists/all.csv")
    data = build_tfrecords.build(f"{bucket}/lists/all.csv", f"{bucket}/data", workers=1)
    assert manifest.read(f"{bucket}/data") == data
    assert data.rejected_reasons == {
        "not a local, gs:// or s3:// path": 1,
        "outside --image_root s3://photos/lists/": 1,
        "file not found": 1,
    }
    names = set()
    for split in data.splits:
        for path in data.shard_paths(split):
            records = tfrecord.read(storage.fetch(path, str(tmp_path)))
            names |= {tfrecord.parse_example(record)["image/filename"][0].decode() for record in records}
    # As on gs://, an absolute path without --image_root is its own name, without the scheme.
    assert names == {
        ("images/" if number % 3 == 0 else "photos/lists/images/") + f"{number}.png" for number in range(20)
    }
    content = storage.read_bytes(f"{bucket}/lists/images/1.png")
    storage.write_bytes(f"{bucket}/lists/images/1.png", content)
    assert fingerprint.fingerprint(f"{bucket}/lists/all.csv") == before  # the same content is the same data
    storage.write_bytes(f"{bucket}/lists/images/1.png", content + b" ")
    assert fingerprint.fingerprint(f"{bucket}/lists/all.csv") != before
