"""Every fault of a request to a bucket, for every operation: the operation succeeds all the same, and is done once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import faults
from tests.standin.bucket import Buckets
from tests.standin.faults import Fault
from tests.standin.remote_bucket import needs_emulator
from tf_image_classification import storage
from tf_image_classification.errors import AccessError, FlagError, ServiceError, UserError
from tf_image_classification.storage import gcs, gcs_requests, gcs_transfers

CONTENT = bytes(range(256)) * 400
TRANSIENT = {
    "429": Fault(code=429, times=2),
    "500": Fault(code=500),
    "502": Fault(code=502),
    "503": Fault(code=503, times=3),
    "504": Fault(code=504),
    "503 after being carried out": Fault(carried_out=True),
    "reset": Fault(faults.RESET),
    "reset after being carried out": Fault(faults.RESET, carried_out=True),
    "reset in the response": Fault(faults.RESET_IN_BODY, times=2),
    "truncated": Fault(faults.TRUNCATED, times=2),
    "stalled": Fault(faults.STALLED, seconds=0.6),
}
CORRUPTION = {"clipped": Fault(faults.CLIPPED), "corrupted": Fault(faults.CORRUPTED, times=2)}


@pytest.fixture
def service(monkeypatch) -> Iterator[Buckets]:
    with Buckets("bucket", page_size=7) as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
        monkeypatch.setattr(gcs_requests, "TIMEOUT", (5.0, 0.3))
        yield service


def inject(service: Buckets, fault: Fault, method: str = ".*", path: str = ".") -> None:
    service.faults = [Fault(fault.kind, method, path, fault.times, fault.code, fault.carried_out, fault.seconds)]


def assert_injected(service: Buckets) -> None:
    assert [fault.times for fault in service.faults] == [0]


@pytest.mark.parametrize("fault", (TRANSIENT | CORRUPTION).values(), ids=(TRANSIENT | CORRUPTION).keys())
def test_an_object_is_read_whole(service, fault):
    storage.write_bytes("gs://bucket/object", CONTENT)
    inject(service, fault, "GET")
    assert storage.read_bytes("gs://bucket/object") == CONTENT
    assert_injected(service)


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_an_object_is_written_once(service, fault):
    storage.write_bytes("gs://bucket/object", b"old")
    inject(service, fault, "POST")
    storage.write_bytes("gs://bucket/object", CONTENT)
    assert_injected(service)
    assert storage.read_bytes("gs://bucket/object") == CONTENT
    assert [change.size for change in service.changes] == [3, len(CONTENT)]


@needs_emulator
def test_content_that_is_corrupted_on_the_way_is_rejected_and_sent_again(service):
    inject(service, Fault(faults.CORRUPTED_UPLOAD, times=2), "POST")
    storage.write_bytes("gs://bucket/object", CONTENT)
    assert_injected(service)
    assert storage.read_bytes("gs://bucket/object") == CONTENT
    assert len(service.changes) == 1


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_listing_of_many_pages_names_everything_once(service, fault):
    names = [f"gs://bucket/folder/{number:02}" for number in range(30)]
    for name in names:
        storage.write_text(name, "x")
    inject(service, fault, "GET", "pageToken=14")
    assert [file.path for file in storage.walk("gs://bucket/folder")] == names
    assert_injected(service)
    inject(service, fault, "GET", "pageToken=14")
    assert storage.names_in("gs://bucket/folder") == [os.path.basename(name) for name in names]
    assert_injected(service)
    inject(service, fault, "GET", "pageToken=14")
    assert storage.glob("gs://bucket/folder/*") == names
    assert_injected(service)


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_folder_is_replaced_whole_and_its_files_are_written_once(service, fault, method):
    for content in ("old", "new"):
        if content == "new":
            inject(service, fault, method)
        with storage.replacing_dir("gs://bucket/folder", "marker") as staging:
            for name in ("marker", f"{content}/a", f"{content}/b", "c"):
                os.makedirs(os.path.dirname(os.path.join(staging, name)), exist_ok=True)
                storage.write_text(os.path.join(staging, name), f"{content} {name}")
    assert_injected(service)
    found = {file.path: storage.read_text(file.path) for file in storage.walk("gs://bucket/folder")}
    assert found == {f"gs://bucket/folder/{name}": f"new {name}" for name in ("marker", "new/a", "new/b", "c")}
    uploaded = [change for change in service.changes if change.crc32c and "/." not in change.path]
    assert len(uploaded) == 8


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        *(pytest.param(fault, "alt=media", id=f"content {name}") for name, fault in (TRANSIENT | CORRUPTION).items()),
        *(pytest.param(fault, "/o[?]", id=f"listing {name}") for name, fault in TRANSIENT.items()),
    ],
)
def test_a_folder_is_copied_whole(service, tmp_path, fault, part):
    for number in range(9):
        storage.write_bytes(f"gs://bucket/folder/{number}/file", CONTENT[number:])
    storage.write_bytes("gs://bucket/folder/empty", b"")
    inject(service, fault, "GET", part)
    copy = Path(storage.fetch_dir("gs://bucket/folder", str(tmp_path / "copy")))
    assert_injected(service)
    assert {file.relative_to(copy).as_posix(): file.read_bytes() for file in copy.rglob("*") if file.is_file()} == {
        "empty": b"",
        **{f"{number}/file": CONTENT[number:] for number in range(9)},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("fault", (TRANSIENT | CORRUPTION).values(), ids=(TRANSIENT | CORRUPTION).keys())
def test_a_large_object_is_fetched_in_parts_that_are_checked_together(service, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(gcs_transfers, "_LARGE_BYTES", 30_000)
    storage.write_bytes("gs://bucket/large", CONTENT)
    inject(service, fault, "GET", "alt=media")
    local = storage.fetch("gs://bucket/large", str(tmp_path))
    assert Path(local).read_bytes() == CONTENT
    assert_injected(service)
    assert len([request for request in service.requests if "alt=media" in request]) > 4


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_large_file_is_sent_in_parts(service, tmp_path, monkeypatch, fault, method):
    monkeypatch.setattr(gcs_transfers, "_CHUNK_BYTES", 4 * 2**20)
    (tmp_path / "large").write_bytes(CONTENT * 100)  # 10 MB; up to 8 MiB go in one request
    inject(service, fault, method, "resumable")
    gcs_transfers.upload_files(str(tmp_path), ["large"], "gs://bucket/folder")
    assert_injected(service)
    assert storage.read_bytes("gs://bucket/folder/large") == CONTENT * 100
    assert len(service.changes) == 1


def test_a_permanent_failure_is_one_error_that_names_the_object(service, monkeypatch, tmp_path, caplog):
    storage.write_text("gs://bucket/folder/object", "x")
    monkeypatch.setattr(gcs_requests, "RETRY_TIMEOUT", 0.2)
    service.faults = [Fault(times=10**6)]
    for work in (
        lambda: storage.read_bytes("gs://bucket/folder/object"),
        lambda: storage.write_text("gs://bucket/folder/object", "y"),
        lambda: storage.write_text("gs://bucket/folder/object", "y", if_version=1),
        lambda: storage.stat("gs://bucket/folder/object"),
        lambda: storage.exists("gs://bucket/folder/object"),
        lambda: list(storage.walk("gs://bucket/folder")),
        lambda: storage.glob("gs://bucket/folder/*"),
        lambda: storage.fetch("gs://bucket/folder/object", str(tmp_path)),
        lambda: storage.check_replaceable("gs://bucket/folder", "marker"),
    ):
        with pytest.raises(UserError, match=r"gs://bucket/folder.*: 503 .*: injected") as raised:
            work()
        assert raised.value.exit_code == 1
    service.faults = [Fault(faults.CORRUPTED, path="alt=media", times=10**6)]
    with pytest.raises(UserError, match=r"gs://bucket/folder.*Checksum mismatch"):
        storage.read_bytes("gs://bucket/folder/object")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with caplog.at_level(logging.DEBUG):
        service.faults = [Fault(times=10**6, method="PUT")]
        (tmp_path / "large").write_bytes(CONTENT * 100)
        with pytest.raises(UserError) as raised:
            gcs_transfers.upload_files(str(tmp_path), ["large"], "gs://bucket/folder")
    assert "upload_id" not in str(raised.value)  # whoever has it may write


def test_a_precondition_that_fails_for_another_reason_than_a_writer_is_no_silent_success(service):
    service.faults = [Fault(code=412, method="POST", times=1)]
    storage.write_text("gs://bucket/object", "x")  # another one that is gone again
    assert storage.read_text("gs://bucket/object") == "x"
    service.faults = [Fault(code=412, method="POST", times=10**6)]
    with pytest.raises(ServiceError, match=r"failed.*gs://bucket/object.*412"):
        storage.write_text("gs://bucket/object", "y")


def test_missing_objects_and_missing_permissions_are_reported_without_retries(service, tmp_path):
    for path in (
        "gs://bucket/none",
        "gs://none/object",
        "gs://bucket",
        "gs://bucket/" + "x" * 1025,
        "gs://bucket/a\nb",
    ):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(path)
        with pytest.raises(FileNotFoundError):
            storage.stat(path)
        assert not storage.exists(path)
    assert storage.glob("gs://none/*") == storage.names_in("gs://none/folder") == []
    with pytest.raises(FlagError, match="bucket does not exist"):
        storage.write_text("gs://none/object", "x")
    with pytest.raises(FlagError, match="bucket does not exist"):
        storage.check_replaceable("gs://none/folder", "marker")
    service.faults = [Fault(code=403, times=10**6)]
    for work in (
        lambda: storage.read_bytes("gs://bucket/a"),
        lambda: list(storage.walk("gs://bucket/a")),
        lambda: storage.stat("gs://bucket/a"),
    ):
        with pytest.raises(PermissionError, match=r"may not read from.*gs://bucket/a.*objectViewer") as raised:
            work()
        assert isinstance(raised.value, UserError)
        assert raised.value.filename == "gs://bucket/a"
    with pytest.raises(AccessError, match=r"may not write to.*objectUser"):
        gcs.write("gs://bucket/a", b"", 0)
    service.faults = [Fault(code=401, times=10**6)]
    with pytest.raises(UserError, match="credentials") as raised:
        storage.read_bytes("gs://bucket/a")
    assert not isinstance(raised.value, OSError)


@pytest.mark.parametrize("name", ["a//b", "/root", "../../up"])
def test_a_folder_with_an_object_whose_name_leads_out_of_it_is_not_copied(service, tmp_path, name):
    storage.write_text(f"gs://bucket/folder/{name}", "x")
    with pytest.raises(UserError, match="no valid file name"):
        storage.fetch_dir("gs://bucket/folder", str(tmp_path / "copy"))
    assert list(tmp_path.iterdir()) == []
