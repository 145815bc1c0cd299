"""What can go wrong with a request to S3 or MinIO: it is repeated, or its error says what to do next."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from tests.standin import faults, s3
from tests.standin.faults import Fault
from tests.storage.conftest import serving
from tf_image_classification import storage
from tf_image_classification.errors import AccessError, ConflictError, FlagError, ServiceError, UserError
from tf_image_classification.storage import gcs_requests, s3_requests, s3_transfers
from tf_image_classification.storage import s3 as s3_module
from tf_image_classification.storage.stores import store_of

CONTENT = bytes(range(256)) * 400
TRANSIENT = {
    "429": Fault(code=429, times=2),
    "500": Fault(code=500),
    "503": Fault(code=503, times=3),
    "503 after being carried out": Fault(carried_out=True),
    "409, two conditional writes at once": Fault(code=409),
    "reset": Fault(faults.RESET),
    "reset after being carried out": Fault(faults.RESET, carried_out=True),
    "reset in the response": Fault(faults.RESET_IN_BODY, times=2),
    "truncated": Fault(faults.TRUNCATED, times=2),
    "stalled": Fault(faults.STALLED, seconds=1.5),
}
CORRUPTION = {"clipped": Fault(faults.CLIPPED), "corrupted": Fault(faults.CORRUPTED, times=2)}


@pytest.fixture(scope="module")
def running():
    with serving("s3", "bucket") as service, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_requests, "TIMEOUT", (5.0, 1.0))
        s3_requests._client.cache_clear()
        yield service
    s3_requests._client.cache_clear()


@pytest.fixture
def service(running):
    """The service without objects and faults."""
    running.reset("bucket")
    return running


def inject(service: s3.S3, fault: Fault, method: str = ".*", path: str = "/bucket") -> None:
    service.faults = [Fault(fault.kind, method, path, fault.times, fault.code, fault.carried_out, fault.seconds)]


@pytest.mark.parametrize("fault", (TRANSIENT | CORRUPTION).values(), ids=(TRANSIENT | CORRUPTION).keys())
def test_an_object_is_read_whole(service, fault):
    storage.write_bytes("s3://bucket/object", CONTENT)
    inject(service, fault, "GET")
    assert storage.read_bytes("s3://bucket/object") == CONTENT
    assert service.faults[0].times == 0


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_an_object_is_written_once(service, fault):
    storage.write_bytes("s3://bucket/object", b"old")
    inject(service, fault, "PUT")
    storage.write_bytes("s3://bucket/object", CONTENT)
    assert service.faults[0].times == 0
    assert storage.read_bytes("s3://bucket/object") == CONTENT
    assert len(service.changes) == 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=[] if name == "503 after being carried out" else pytest.mark.slow)
        for name, fault in TRANSIENT.items()
    ],
)
def test_a_folder_is_replaced_whole_and_a_large_file_is_sent_in_parts(service, monkeypatch, tmp_path, fault):
    monkeypatch.setattr(s3_transfers, "_CHUNK_BYTES", 5 * 2**20)
    big = os.urandom(2**10) * 5200
    for content, method in (("old", ".*"), ("new", "POST"), ("newer", "PUT"), ("newest", "DELETE")):
        inject(service, fault, method)
        with storage.replacing_dir("s3://bucket/folder", "marker") as staging:
            Path(staging, "marker").write_text(content)
            Path(staging, "big").write_bytes(big)
        assert service.faults[0].times == 0
    copy = storage.fetch_dir("s3://bucket/folder", str(tmp_path / "copy"))
    assert Path(copy, "marker").read_text() == "newest"
    assert Path(copy, "big").read_bytes() == big


def test_content_that_is_corrupted_on_the_way_is_rejected_and_sent_again(service):
    inject(service, Fault(faults.CORRUPTED_UPLOAD, times=2), "PUT")
    storage.write_bytes("s3://bucket/object", CONTENT)
    assert service.faults[0].times == 0
    assert storage.read_bytes("s3://bucket/object") == CONTENT
    assert len(service.changes) == 1


def test_an_upload_in_parts_that_fails_leaves_none_behind(service, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_transfers, "_CHUNK_BYTES", 5 * 2**20)
    (tmp_path / "big").write_bytes(bytes(6 * 2**20))
    service.faults = [Fault(code=403, method="PUT", path="partNumber=2")]
    with pytest.raises(AccessError, match="may not write to the bucket"):
        storage.upload(str(tmp_path / "big"), "s3://bucket/big")
    assert service.unfinished_uploads("bucket") == 0
    assert not storage.exists("s3://bucket/big")


def test_of_two_uploads_in_parts_of_one_object_the_second_to_end_is_a_conflict(service, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_transfers, "_CHUNK_BYTES", 5 * 2**20)
    (tmp_path / "big").write_bytes(bytes(6 * 2**20))
    carried_out = type(service).carry_out

    def carry_out(service, environ, headers):
        if environ["REQUEST_METHOD"] == "POST" and "uploadId" in environ["QUERY_STRING"]:
            monkeypatch.undo()
            storage.write_text("s3://bucket/big", "theirs")
        return carried_out(service, environ, headers)

    monkeypatch.setattr(type(service), "carry_out", carry_out)
    with pytest.raises(ConflictError):
        storage.upload(str(tmp_path / "big"), "s3://bucket/big")
    assert storage.read_text("s3://bucket/big") == "theirs"
    assert service.unfinished_uploads("bucket") == 0


@pytest.mark.parametrize("aws", [True, False], ids=["Amazon S3", "MinIO, which ignores conditions of deletions"])
def test_an_object_is_deleted_only_in_the_version_that_was_seen(service, aws):
    service.aws = aws
    storage.write_text("s3://bucket/object", "old")
    seen = storage.stat("s3://bucket/object")
    storage.write_text("s3://bucket/object", "new")
    store = store_of("s3://")
    with pytest.raises(ConflictError):
        store.delete([seen])
    store.delete([storage.stat("s3://bucket/object"), seen])  # one that is gone is no error
    assert not storage.exists("s3://bucket/object")


def test_a_service_that_ignores_conditions_is_refused(service):
    service.is_old = True
    s3_module._conditional.clear()
    with pytest.raises(FlagError, match=r"ignores conditional writes.*If-Match.*recent MinIO"):
        storage.write_text("s3://bucket/pointer", "x", if_version=0)


ANSWERS = {
    "InvalidAccessKeyId": (403, ServiceError, "credentials are refused.*AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, ServiceError, "credentials are refused.*AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (400, ServiceError, "AWS_SESSION_TOKEN has expired"),
    "RequestTimeTooSkewed": (403, ServiceError, "clock of this machine"),
    "AccessDenied": (403, AccessError, "may not read from the bucket.*s3:GetObject and s3:ListBucket"),
    "AuthorizationHeaderMalformed": (400, ServiceError, "another region.*AWS_REGION"),
    "InvalidArgument": (400, ServiceError, "not its console's"),
}


@pytest.mark.parametrize("code", ANSWERS)
def test_a_refusal_says_what_to_do_next_also_where_its_answer_has_no_body(service, code):
    status, kind, message = ANSWERS[code]
    for work in (storage.exists, storage.read_bytes, lambda path: list(storage.walk(path))):
        service.faults = [Fault(code=status, times=10**6)]
        service.code = code
        with pytest.raises(kind, match=message) as raised:
            work("s3://bucket/object")
        assert "s3://bucket/object" in str(raised.value)


def test_what_is_missing_is_told_apart(service, monkeypatch):
    for path in (
        "s3://bucket/none",
        "s3://none/object",
        "s3://bucket",
        "s3://bucket/" + "x" * 1025,
        "s3://bucket/a\nb",
    ):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(path)
        assert not storage.exists(path)
    with pytest.raises(FileNotFoundError, match="bucket not found: 's3://none/object'"):
        storage.read_bytes("s3://none/object")
    assert storage.glob("s3://none/*") == storage.names_in("s3://none/folder") == []
    for work in (lambda: storage.write_text("s3://none/a", "x"), lambda: storage.check_replaceable("s3://none/a", "m")):
        with pytest.raises(FlagError, match="bucket does not exist"):
            work()
    with pytest.raises(FlagError, match=r"Invalid bucket name.*s3://BUCKET/OBJECT"):
        storage.read_bytes("s3://")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(ServiceError, match=r"InvalidAccessKeyId.*is the service that issued it"):
        storage.exists("s3://bucket/a")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    with pytest.raises(ServiceError, match=r"no usable S3 credentials.*Set AWS_ACCESS_KEY_ID.*secret"):
        storage.exists("s3://bucket/a")


def test_a_wrong_address_is_said_within_seconds(service, monkeypatch):
    monkeypatch.setattr(s3_requests, "_UNREACHABLE_SECS", 0.3)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"Could not connect.*Set AWS_ENDPOINT_URL_S3.*minio-service.kubeflow"):
        storage.read_bytes("s3://bucket/object")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(FlagError, match=r"settings are invalid.*minio:9000.*http://HOST:PORT"):
        storage.read_bytes("s3://bucket/object")
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    s3_requests._client.cache_clear()
    with pytest.raises(FlagError, match=r"boto3.*pip install 'tf-image-classification\[s3\]'"):
        storage.read_bytes("s3://bucket/object")


def test_a_service_that_restarts_is_waited_for():
    address = {"endpoint_url": "http://minio", "error": "refused"}
    assert s3_requests._is_transient(EndpointConnectionError(**address))
    assert s3_requests._is_transient(ConnectTimeoutError(**address))


def test_an_outage_is_one_error_that_names_the_object(service, monkeypatch, tmp_path):
    storage.write_text("s3://bucket/folder/object", "x")
    monkeypatch.setattr(gcs_requests, "RETRY_TIMEOUT", 0.1)
    service.faults = [Fault(times=10**6)]
    for work in (
        lambda: storage.read_bytes("s3://bucket/folder/object"),
        lambda: storage.write_text("s3://bucket/folder/object", "y"),
        lambda: list(storage.walk("s3://bucket/folder")),
        lambda: storage.fetch("s3://bucket/folder/object", str(tmp_path)),
    ):
        with pytest.raises(UserError, match=r"request to S3 failed.*s3://bucket/folder.*503") as raised:
            work()
        assert raised.value.exit_code == 1


def test_kubeflows_name_for_its_own_store_is_another_one_for_s3(service):
    storage.write_text("minio://bucket/a//b", "x")
    assert storage.read_text("s3://bucket/a//b") == "x"
    assert storage.canonical("minio://bucket/a//b") == "s3://bucket/a//b"
    assert [file.path for file in storage.walk("minio://bucket")] == ["minio://bucket/a//b"]
