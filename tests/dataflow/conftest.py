"""Fixtures: Dataflow on this machine, and the step's follower for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.standin import bucket
from tests.standin.dataflow import Dataflow
from tf_image_classification.dataflow.client import ENDPOINT_VARIABLE


@pytest.fixture(scope="session")
def storage_url() -> Iterator[str]:
    """A storage service with the bucket `bucket`."""
    with bucket.serving("bucket") as url:
        yield url


@pytest.fixture
def dataflow(tmp_path, storage_url, monkeypatch) -> Iterator[Dataflow]:
    """Dataflow without jobs; the environment has its address, and that of the storage service, for clients."""
    service = Dataflow(tmp_path, storage_url)
    service.start()
    monkeypatch.setenv(ENDPOINT_VARIABLE, service.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    yield service
    service.stop()
