"""A model in a bucket: downloaded completely despite failing requests, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standin import faults
from tests.standin.bucket import Buckets, client, fill
from tests.standin.faults import Fault
from tf_image_classification import storage
from tf_image_classification.errors import DataError
from tf_image_classification.evaluate import served_model
from tf_image_classification.storage import gcs_requests


@pytest.fixture
def service(model_dir, monkeypatch):
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
        fill(service.url, "bucket", "model", Path(model_dir))
        yield service


def test_a_model_is_downloaded_through_faults_unchanged(service, model_dir):
    service.faults = [
        Fault(faults.RESET_IN_BODY, path="variables.*alt=media", times=2),
        Fault(faults.CORRUPTED, path="saved_model.pb.*alt=media"),
        Fault(code=429, path="model.json"),
        Fault(path="prefix=model%2F", times=2),
    ]
    with served_model.load("gs://bucket/model") as fetched, served_model.load(model_dir) as local:
        assert fetched.tasks == local.tasks
        assert set(fetched.signature.structured_outputs) == set(local.signature.structured_outputs)
    assert [fault.times for fault in service.faults] == [0, 0, 0, 0]


def test_a_model_without_its_saved_model_is_an_error(service):
    for file in list(storage.walk("gs://bucket/model/saved_model")):
        client(service.url).bucket("bucket").blob(storage.split_gcs(file.path)[1]).delete()
    with pytest.raises(DataError, match="has no SavedModel"), served_model.load("gs://bucket/model"):
        pytest.fail("it was loaded")
