"""What a bucket's settings, its project and the account's rights refuse: work goes on where it can, else the service's
reason and the step that mends it are one error."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials

from tests.standin import bucket_rules
from tests.standin.bucket import Buckets
from tests.standin.bucket_rules import Rules
from tf_image_classification import storage
from tf_image_classification.errors import AccessError, FlagError, ServiceError, UserError
from tf_image_classification.storage import gcs_client, gcs_requests, gcs_transfers, leftovers

FOLDER = "gs://bucket/folder"
LOCKED = {"retention policy": Rules(retention=True), "no delete rights": Rules(deletion=False)}


@pytest.fixture
def service(monkeypatch) -> Iterator[Buckets]:
    with Buckets("bucket", page_size=2) as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        monkeypatch.delenv(gcs_client.BILLING_VARIABLE, raising=False)
        monkeypatch.setattr(leftovers, "_said", set())
        yield service


def write_folder(path: str = FOLDER) -> None:
    with storage.replacing_dir(path, "marker") as staging:
        for name in ("marker", "a", "b"):
            storage.write_text(f"{staging}/{name}", name)


@pytest.mark.parametrize("rules", LOCKED.values(), ids=LOCKED.keys())
def test_a_new_folder_is_written_where_nothing_may_be_deleted(service, rules, caplog):
    service.rules = rules
    write_folder()
    assert {file.path: storage.read_text(file.path) for file in storage.walk(FOLDER)} == {
        f"{FOLDER}/{name}": name for name in ("a", "b", "marker")
    }
    said = [record.getMessage() for record in caplog.records if "no longer needed" in record.getMessage()]
    assert len(said) == 1
    assert f"stay in {FOLDER}" in said[0]
    assert ("retention policy" if rules.retention else "storage.objects.delete") in said[0]


@pytest.mark.parametrize("rules", LOCKED.values(), ids=LOCKED.keys())
def test_an_older_folder_that_may_not_be_replaced_is_refused_before_the_work(service, rules):
    write_folder()
    service.rules = rules
    with (
        pytest.raises(
            FlagError, match=r"older folder is replaced.*Received: .*gs://bucket/folder.*Expected: "
        ) as raised,
        storage.replacing_dir(FOLDER, "marker"),
    ):
        pytest.fail("the work began")
    assert ("until 2099" if rules.retention else "storage.objects.delete access") in str(raised.value)
    assert storage.read_text(f"{FOLDER}/marker") == "marker"


@pytest.mark.parametrize("rules", LOCKED.values(), ids=LOCKED.keys())
def test_what_replaces_objects_is_refused_at_its_start(service, rules):
    storage.check_overwritable(FOLDER, "Checkpoints are replaced")
    assert list(storage.walk(FOLDER, hidden=True)) == []
    service.rules = rules
    with pytest.raises(FlagError, match=r"^Checkpoints are replaced.*gs://bucket/folder.*may overwrite and delete"):
        storage.check_overwritable(FOLDER, "Checkpoints are replaced")
    service.rules = Rules(blocked=bucket_rules.KEY_FORBIDDEN)
    with pytest.raises(FlagError, match=r"^Checkpoints are replaced.*service-agent --authorize-cmek"):
        storage.check_overwritable(FOLDER, "Checkpoints are replaced")


def test_leftovers_that_may_not_be_deleted_fail_nothing(service, caplog):
    for name in ("1", "2"):
        storage.write_text(f"gs://bucket/checkpoints/{name}", name)
    service.rules = Rules(retention=True)
    for name in ("1", "2"):
        with storage.tidying(f"gs://bucket/checkpoints/{name}"):
            storage.delete(f"gs://bucket/checkpoints/{name}")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_every_request_names_who_pays(service, monkeypatch, tmp_path):
    service.rules = Rules(payers=("payer",))
    monkeypatch.setenv(gcs_client.BILLING_VARIABLE, "")  # what bill_to sets is undone
    with pytest.raises(ServiceError, match=r"no user project.*--billing_project"):
        storage.read_bytes("gs://bucket/folder/a")
    storage.bill_to("stranger")
    with pytest.raises(AccessError, match=r"serviceusage.services.use.*serviceUsageConsumer.*--billing_project"):
        storage.exists("gs://bucket/folder/a")
    storage.bill_to("payer")
    storage.bill_to(None)
    for _ in range(2):
        write_folder()
    (tmp_path / "large").write_bytes(bytes(9 * 2**20))  # more than 8 MiB are sent in parts
    storage.upload(str(tmp_path / "large"), "gs://bucket/large")
    monkeypatch.setattr(gcs_transfers, "_LARGE_BYTES", 4 * 2**20)
    storage.fetch("gs://bucket/large", str(tmp_path / "copies"))
    storage.fetch_dir(FOLDER, str(tmp_path / "folder"))
    storage.check_bucket(FOLDER)
    assert storage.glob(f"{FOLDER}/?") == [f"{FOLDER}/a", f"{FOLDER}/b"]
    assert storage.names_in(FOLDER) == ["a", "b", "marker"]
    assert storage.read_version(f"{FOLDER}/a")[0] == b"a"
    storage.delete(f"{FOLDER}/a")
    assert not storage.exists(f"{FOLDER}/a")


REFUSALS = {
    bucket_rules.KEY_DISABLED: r"Cloud KMS key is disabled.*gcloud kms keys versions enable",
    bucket_rules.KEY_FORBIDDEN: r"Permission denied on Cloud KMS key.*service-agent --authorize-cmek",
    bucket_rules.API_DISABLED: r"has not been used.*gcloud services enable storage.googleapis.com --project 123",
    bucket_rules.BILLING_DISABLED: r"billing account.*disabled.*gcloud billing projects link",
    bucket_rules.OUTSIDE_PERIMETER: r"prohibited.*VPC Service Controls.*eYhDkfYCu-dOCjuj8X4Am9",
}


@pytest.mark.parametrize(("blocked", "message"), REFUSALS.items(), ids=REFUSALS.keys())
def test_the_services_own_reason_and_the_next_step_are_one_error(service, blocked, message):
    service.rules = Rules(blocked=blocked)
    for work in (
        lambda: storage.read_bytes("gs://bucket/a"),  # of a refused content, the service sends the message alone
        lambda: storage.write_text("gs://bucket/a", "x"),
        lambda: list(storage.walk("gs://bucket/a")),
        lambda: storage.check_replaceable("gs://bucket/a", "marker"),
    ):
        requests_before = len(service.requests)
        with pytest.raises(UserError, match=message):
            work()
        assert len(service.requests) == requests_before + 1  # it is not retried


def test_user_credentials_without_a_default_project_are_enough(service, monkeypatch):
    storage.write_text("gs://bucket/a", "x")
    for variable in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), None))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", service.url)
    gcs_client._client.cache_clear()
    try:
        assert storage.read_text("gs://bucket/a") == "x"
    finally:
        gcs_client._client.cache_clear()


def test_a_service_that_cannot_be_connected_to_at_first_is_an_error_within_seconds(monkeypatch):
    monkeypatch.setattr(gcs_client, "FIRST_CONTACT_TIMEOUT", 0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{unused.getsockname()[1]}")
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(ServiceError, match=r"cannot be reached.*127\.0\.0\.1:\d+.*refused.*network"):
                storage.read_bytes("gs://bucket/object")
            assert time.monotonic() - started < 2


def test_a_name_server_that_does_not_answer_is_an_error_within_seconds(monkeypatch):
    monkeypatch.setattr(gcs_client, "FIRST_CONTACT_TIMEOUT", 0.2)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5) or [])
    with pytest.raises(ServiceError, match=r"cannot be reached.*storage.invalid:80.*no answer.*DNS"):
        storage.exists("gs://bucket/object")


def test_an_outage_after_the_first_contact_is_waited_for(monkeypatch):
    monkeypatch.setattr(gcs_client, "FIRST_CONTACT_TIMEOUT", 0.1)
    monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
    monkeypatch.setattr(gcs_requests, "RETRY_TIMEOUT", 0.6)
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        storage.write_text("gs://bucket/a", "x")
    gcs_client.client()._http.close()
    with pytest.raises(ServiceError, match="request to Cloud Storage failed after"):
        storage.read_bytes("gs://bucket/a")
