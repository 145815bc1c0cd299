"""Folders in a bucket: a reader that sees the marker sees all files, even if writers are killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.standin.bucket import Buckets
from tests.standin.faults import STALLED, Fault
from tf_image_classification import storage
from tf_image_classification.errors import AccessError, ConflictError, FlagError
from tf_image_classification.storage import gcs, gcs_requests, gcs_transfers, writing

FILES = ("a", "deep/b", "marker", "z")
UNFINISHED = "gs://bucket/out/.marker.unfinished"


@pytest.fixture
def service(monkeypatch):
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        monkeypatch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
        yield service


def write(content: str, names=FILES) -> None:
    with storage.replacing_dir("gs://bucket/out", "marker") as staging:
        for name in names:
            os.makedirs(os.path.dirname(os.path.join(staging, name)), exist_ok=True)
            storage.write_text(os.path.join(staging, name), f"{content} {name}")


def read() -> dict[str, str]:
    return {
        file.path.removeprefix("gs://bucket/out/"): storage.read_text(file.path)
        for file in storage.walk("gs://bucket/out")
    }


def states(service: Buckets) -> list[dict[str, str]]:
    """What was visible after each change: path -> CRC."""
    seen, visible = [], {}
    for change in service.changes:
        visible[change.path] = change.crc32c
        visible = {path: crc for path, crc in visible.items() if crc}
        seen.append(visible)
    return seen


def test_a_marker_is_visible_only_with_all_the_files_of_its_folder(service):
    write("old", [*FILES, "older"])
    write("new")
    assert read() == {name: f"new {name}" for name in FILES}
    seen_with_marker = set()
    for state in states(service):
        if "gs://bucket/out/marker" in state:
            seen_with_marker.add(frozenset(state.keys() - {UNFINISHED}))
    new = frozenset(f"gs://bucket/out/{name}" for name in FILES)
    assert seen_with_marker == {new, new | {"gs://bucket/out/older"}}
    assert not storage.exists(UNFINISHED)


@pytest.mark.parametrize("changes", range(10))  # unfinished marker, 4 deletions, 4 uploads, its deletion
def test_a_writer_that_stops_anywhere_leaves_no_marker_without_the_rest_and_the_next_one_succeeds(
    service, monkeypatch, changes
):
    write("old")
    old, began = read(), len(service.changes)
    carried_out = Buckets.carry_out

    def carry_out(service, *request):
        answer = carried_out(service, *request)
        if len(service.changes) >= began + changes:
            service.faults = [Fault(code=403, times=10**6)]
        return answer

    monkeypatch.setattr(gcs_transfers, "_THREADS", 1)
    with monkeypatch.context() as patch, pytest.raises(AccessError):
        patch.setattr(Buckets, "carry_out", carry_out)
        write("new")
    service.faults = []
    left = read()
    assert "marker" not in left or left in (old, {name: f"new {name}" for name in FILES})
    assert len(service.changes) == began + changes
    write("newer")
    assert read() == {name: f"newer {name}" for name in FILES}


def test_a_writer_killed_while_it_uploads_is_followed_by_the_next(service, tmp_path):
    service.faults = [Fault(STALLED, "POST", "uploadType", times=10**6, seconds=60)]
    program = (
        "import os, pathlib\nfrom tf_image_classification import storage\n"
        "with storage.replacing_dir('gs://bucket/out', 'marker') as staging:\n"
        "    for name in ('marker', 'a'):\n"
        "        pathlib.Path(staging, name).write_text(name)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program])
    while not service.changes:  # the first upload is carried out, its response stalls
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    service.faults = []
    assert read() == {}
    write("new")
    assert read() == {name: f"new {name}" for name in FILES}


@pytest.mark.parametrize("ended", [True, False])
def test_of_two_concurrent_writers_the_first_fails(service, monkeypatch, ended):
    find = gcs.find

    def overtaken(path):
        if path == UNFINISHED and storage.exists("gs://bucket/out/a"):  # the last check before the marker is uploaded
            monkeypatch.undo()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
            if ended:
                write("quick")
            else:
                gcs.write(UNFINISHED, b"", find(UNFINISHED).version)
        return find(path)

    with (
        pytest.raises(ConflictError, match="Another process"),
        storage.replacing_dir("gs://bucket/out", "marker") as staging,
    ):
        storage.write_text(os.path.join(staging, "marker"), "slow")
        storage.write_text(os.path.join(staging, "a"), "slow")
        monkeypatch.setattr(gcs, "find", overtaken)
    assert read() == ({name: f"quick {name}" for name in FILES} if ended else {"a": "slow"})


def test_an_object_of_a_concurrent_writer_is_not_overwritten(service, tmp_path):
    (tmp_path / "a").write_text("ours")
    storage.write_text("gs://bucket/out/a", "theirs")
    with pytest.raises(ConflictError, match="gs://bucket/out/a"):
        gcs_transfers.upload_files(str(tmp_path), ["a"], "gs://bucket/out")
    assert read() == {"a": "theirs"}


def test_other_content_is_never_replaced(service):
    storage.write_text("gs://bucket/precious/thesis.txt", "x")
    storage.write_text("gs://bucket/file", "x")
    for path in (
        "gs://bucket/precious",
        "gs://bucket/precious/",
        "gs://bucket/precious/thesis.txt",
        "gs://bucket/file",
        "gs://bucket",
    ):
        with pytest.raises(FlagError, match="has other content"), storage.replacing_dir(path, "marker"):
            pytest.fail("it may be written to")
    storage.check_replaceable("gs://bucket/prec", "marker")
    assert storage.read_text("gs://bucket/precious/thesis.txt") == "x"


@pytest.mark.parametrize("kept", ["gs://bucket/out", "gs://bucket/out/model", "gs://bucket/out/deep/er"])
def test_an_input_is_never_replaced(service, kept):
    with pytest.raises(FlagError, match="would replace"):
        storage.check_replaceable("gs://bucket/out", "marker", [kept])
    storage.check_replaceable(
        "gs://bucket/out", "marker", ["gs://bucket/output", "gs://bucket/images.csv", "/out/model"]
    )


def test_a_whole_bucket_may_be_one_folder(service):
    with storage.replacing_dir("gs://bucket", "marker") as staging:
        storage.write_text(os.path.join(staging, "marker"), "x")
    assert [file.path for file in storage.walk("gs://bucket")] == ["gs://bucket/marker"]


def test_a_folder_that_is_replaced_while_it_is_copied_is_not_taken_for_whole(service, tmp_path):
    write("old")
    found = list(gcs.list_objects("gs://bucket/out"))
    write("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs, "list_objects", lambda folder: iter(found))
        with pytest.raises(ConflictError):
            storage.fetch_dir("gs://bucket/out", str(tmp_path / "copy"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_not_copied(service, tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.fetch_dir("gs://bucket/none", str(tmp_path / "copy"))
    assert storage.fetch_dir(str(tmp_path), "elsewhere") == str(tmp_path)


def copy_once(tmp_path, content: str) -> None:
    folder = tmp_path / content
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content} {name}")
    storage.copy_dir_once(str(folder), "gs://bucket/out", "marker")


def test_a_whole_folder_whose_name_stands_for_its_content_is_never_touched(service, tmp_path):
    copy_once(tmp_path, "first")
    changes = len(service.changes)
    copy_once(tmp_path, "second")
    assert read() == {name: f"first {name}" for name in FILES}
    assert len(service.changes) == changes
    storage.write_text(UNFINISHED, "")  # of a writer that was killed
    copy_once(tmp_path, "third")
    assert read() == {name: f"third {name}" for name in FILES}


def test_a_folder_that_another_process_completes_meanwhile_is_not_touched_either(service, tmp_path, monkeypatch):
    find = gcs.find

    def overtaken(path):
        if path == UNFINISHED:
            monkeypatch.undo()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
            write("theirs")
        return find(path)

    monkeypatch.setattr(gcs, "find", overtaken)
    monkeypatch.setattr(writing, "_is_whole", lambda *_: False)  # when it looked
    copy_once(tmp_path, "ours")
    assert read() == {name: f"theirs {name}" for name in FILES}
    assert not storage.exists(UNFINISHED)
