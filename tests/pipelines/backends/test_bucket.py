"""What is checked of the bucket of a pipeline root before a run is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.backends import bucket
from tests.standin import bucket_rules
from tests.standin.bucket import Buckets
from tests.standin.bucket_rules import Rules
from tests.standin.remote_bucket import needs_emulator
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.storage import gcs_client

ROOT = "gs://bucket/root"


@pytest.fixture
def service(monkeypatch) -> Iterator[Buckets]:
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        monkeypatch.setenv(gcs_client.BILLING_VARIABLE, "")
        yield service


@needs_emulator
def test_a_bucket_that_retains_its_objects_is_refused(service):
    service.rules = Rules(retention=True)
    bucket.check(ROOT)  # an empty bucket does not show it: the steps find out at their start
    storage.write_text("gs://bucket/elsewhere", "x")
    with pytest.raises(FlagError, match=r"retention policy.*checkpoints.*gs://bucket/root.*2099-01-01"):
        bucket.check(ROOT)


def test_requester_pays_and_a_disabled_api_are_told_with_what_mends_them(service):
    service.rules = Rules(payers=("payer",))
    with pytest.raises(UserError, match=r"requester pays bucket.*--billing_project"):
        bucket.check(ROOT)
    storage.bill_to("payer")
    bucket.check(ROOT)
    service.rules = Rules(blocked=bucket_rules.API_DISABLED)
    with pytest.raises(UserError, match=r"has not been used.*gcloud services enable storage\.googleapis\.com"):
        bucket.check(ROOT)
