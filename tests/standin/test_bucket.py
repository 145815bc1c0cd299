"""The stand-in rejects what Cloud Storage rejects: otherwise tests would pass with requests that fail there."""

from __future__ import annotations

import pytest
import requests
from google.api_core.exceptions import BadRequest, NotFound, PreconditionFailed

from tests.standin import bucket, faults, remote_bucket
from tests.standin.faults import Fault, RandomFaults
from tests.standin.remote_bucket import needs_emulator


@pytest.fixture
def service():
    with bucket.Buckets("bucket", page_size=3) as service:
        yield service


@pytest.fixture
def remote(service):
    return bucket.client(service.url).bucket("bucket")


@needs_emulator
def test_conditions_are_kept(remote):
    blob = remote.blob("object")
    blob.upload_from_string("one", if_generation_match=0)
    first = blob.generation
    for work in (
        lambda: remote.blob("object").upload_from_string("two", if_generation_match=0),
        lambda: remote.blob("object").upload_from_string("x" * 9 * 2**20, if_generation_match=first + 1),  # resumably
        lambda: remote.blob("object").delete(if_generation_match=first + 1),
        lambda: remote.blob("object").download_as_bytes(if_generation_match=first + 1),
        lambda: remote.blob("object").upload_from_string("two", if_metageneration_match=7),
    ):
        with pytest.raises(PreconditionFailed):
            work()
    assert remote.blob("object").download_as_bytes(if_generation_match=first) == b"one"
    remote.blob("object").upload_from_string("two", if_generation_match=first)
    with pytest.raises(NotFound):
        remote.blob("object", generation=first).download_as_bytes()
    remote.blob("object").delete(if_generation_match=remote.get_blob("object").generation)
    assert remote.get_blob("object") is None


def test_a_resumable_upload_is_checked_when_it_ends_too(service, remote):
    session_url = remote.blob("object").create_resumable_upload_session(if_generation_match=0, size=3)
    remote.blob("object").upload_from_string("theirs")
    assert (
        requests.put(session_url, data=b"abc", headers={"Content-Range": "bytes 0-2/3"}, timeout=5).status_code == 412
    )
    assert remote.blob("object").download_as_bytes() == b"theirs"


def test_a_finished_upload_that_is_sent_again_gets_the_same_response(remote):
    session_url = remote.blob("object").create_resumable_upload_session(size=3)
    content = {"data": b"abc", "headers": {"Content-Range": "bytes 0-2/3"}}
    first, second = (requests.put(session_url, **content, timeout=5) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()


def test_listings_come_in_pages(service, remote):
    for name in ("a/1", "a/2", "b/1", "c", "d", "e"):
        remote.blob(name).upload_from_string("x")
    requests_before = len(service.requests)
    assert [blob.name for blob in remote.list_blobs()] == ["a/1", "a/2", "b/1", "c", "d", "e"]
    assert len(service.requests) - requests_before == 2
    listing = remote.list_blobs(delimiter="/")
    assert [blob.name for blob in listing] == ["c", "d", "e"]
    assert listing.prefixes == {"a/", "b/"}
    assert [blob.name for blob in remote.list_blobs(max_results=2)] == ["a/1", "a/2"]


@needs_emulator
def test_names_that_a_file_system_takes_for_one_are_different_objects(remote):
    names = ["a/b", "a//b", "/a/b", "a/./b", "a/c/../b", "a/b/", "a%2Fb", "a\\b", "a/b?x=1", "a/b#1", "a/b ", "a", "a/"]
    for name in names:
        remote.blob(name).upload_from_string(name)
    assert {name: remote.blob(name).download_as_bytes().decode() for name in names} == {name: name for name in names}
    assert [blob.name for blob in remote.list_blobs()] == sorted(names)
    listing = remote.list_blobs(prefix="a/", delimiter="/")
    assert {blob.name for blob in listing} == {"a/", "a/b", "a/b ", "a/b#1", "a/b?x=1"}
    assert listing.prefixes == {"a//", "a/./", "a/b/", "a/c/"}


@needs_emulator
@pytest.mark.parametrize("name", ["a\nb", "a\r", "x" * 1025])
def test_names_that_the_service_refuses_are_refused(remote, name):
    with pytest.raises(BadRequest, match="Invalid object name"):
        remote.blob(name).upload_from_string("x")


@pytest.mark.parametrize("kind", [faults.RESET, faults.RESET_IN_BODY, faults.TRUNCATED, faults.STALLED])
def test_a_broken_connection_is_broken_for_the_client_too(service, kind):
    service.faults = [Fault(kind, "GET", seconds=0.5)]
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        requests.get(f"{service.url}/storage/v1/b/bucket/o", timeout=0.1)
    assert requests.get(f"{service.url}/storage/v1/b/bucket/o", timeout=5).ok


def test_the_same_seed_makes_the_same_faults():
    def outcome(seed: int) -> list[str]:
        random_faults = RandomFaults(0.3, seed)
        met = [random_faults.draw("GET", f"/o/{number % 50}?upload_id={seed * number}", True) for number in range(300)]
        return [fault.kind if fault else "" for fault in met]

    assert outcome(1) == outcome(1) != outcome(2)
    assert 60 < sum(map(bool, outcome(1))) < 120


@needs_emulator
def test_another_service_may_keep_the_objects(service, monkeypatch):
    monkeypatch.setenv(remote_bucket.VARIABLE, service.url)
    with bucket.Buckets("bucket") as front, bucket.Buckets("bucket") as other:
        remote = bucket.client(front.url).bucket("bucket")
        for name, content in (("small", b"x"), ("large", bytes(9 * 2**20))):  # above 8 MiB in parts
            remote.blob(name).upload_from_string(content, if_generation_match=0)
            assert remote.blob(name).download_as_bytes() == content
            with pytest.raises(PreconditionFailed):
                remote.blob(name).upload_from_string(b"y", if_generation_match=0)
        assert [blob.name for blob in remote.list_blobs()] == ["large", "small"]
        assert list(bucket.client(other.url).bucket("bucket").list_blobs()) == []
        remote.blob("small").delete()
        assert [(change.path, change.size) for change in front.changes] == [
            ("gs://bucket/small", 1),
            ("gs://bucket/large", 9 * 2**20),
            ("gs://bucket/small", 0),
        ]
    assert list(bucket.client(service.url).bucket("bucket").list_blobs()) == []
