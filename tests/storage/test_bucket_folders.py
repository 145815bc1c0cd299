"""Folders in a bucket: a reader that sees the marker sees all files, even if writers are killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.standin.faults import STALLED, Fault
from tf_image_classification import storage
from tf_image_classification.errors import AccessError, ConflictError, FlagError
from tf_image_classification.storage import writing
from tf_image_classification.storage.stores import store_of, transfers_of

FILES = ("a", "deep/b", "marker", "z")
UNFINISHED = "out/.marker.unfinished"


def write(root: str, content: str, names=FILES) -> None:
    with storage.replacing_dir(f"{root}/out", "marker") as staging:
        for name in names:
            os.makedirs(os.path.dirname(os.path.join(staging, name)), exist_ok=True)
            storage.write_text(os.path.join(staging, name), f"{content} {name}")


def read(root: str) -> dict[str, str]:
    return {
        file.path.removeprefix(f"{root}/out/"): storage.read_text(file.path) for file in storage.walk(f"{root}/out")
    }


def states(service) -> list[dict[str, str]]:
    """What was visible after each change: path -> CRC."""
    seen, visible = [], {}
    for change in service.changes:
        visible[change.path] = change.crc32c
        visible = {path: crc for path, crc in visible.items() if crc}
        seen.append(visible)
    return seen


def test_a_marker_is_visible_only_with_all_the_files_of_its_folder(service, root):
    write(root, "old", [*FILES, "older"])
    write(root, "new")
    assert read(root) == {name: f"new {name}" for name in FILES}
    seen_with_marker = set()
    for state in states(service):
        if f"{root}/out/marker" in state:
            seen_with_marker.add(frozenset(name for name in state if "/." not in name))
    new = frozenset(f"{root}/out/{name}" for name in FILES)
    assert seen_with_marker == {new, new | {f"{root}/out/older"}}
    assert not storage.exists(f"{root}/{UNFINISHED}")


def test_files_that_are_elsewhere_in_the_service_are_copied_before_the_marker_is_visible(service, root):
    write(root, "old")
    storage.write_text(f"{root}/work/.1", "made elsewhere")
    elsewhere: dict[str, str] = {}
    with storage.replacing_dir(f"{root}/out", "marker", elsewhere) as staging:
        storage.write_text(os.path.join(staging, "marker"), "new marker")
        elsewhere["deep/copy"] = f"{root}/work/.1"
    assert read(root) == {"marker": "new marker", "deep/copy": "made elsewhere"}
    of_old = {f"{root}/out/{name}" for name in FILES}
    for state in states(service):
        if f"{root}/out/marker" in state:
            assert of_old <= state.keys() or f"{root}/out/deep/copy" in state
    storage.delete_dir(f"{root}/work")
    assert storage.names_in(root) == ["out"]


# 3 of the check, unfinished marker, 4 deletions, 4 uploads
STOPS = [("gs", changes) for changes in range(12)]
STOPS += [
    ("s3", changes) if changes == 9 else pytest.param("s3", changes, marks=pytest.mark.slow) for changes in range(12)
]


@pytest.mark.parametrize(("scheme", "changes"), STOPS, indirect=["scheme"])
def test_a_writer_that_stops_anywhere_leaves_no_marker_without_the_rest_and_the_next_one_succeeds(
    service, root, monkeypatch, changes
):
    write(root, "old")
    old, began = read(root), len(service.changes)
    carried_out = type(service).carry_out

    def carry_out(service, *request):
        answer = carried_out(service, *request)
        if len(service.changes) >= began + changes:
            service.faults = [Fault(code=403, times=10**6)]
        return answer

    monkeypatch.setattr(transfers_of(root), "_THREADS", 1)
    with monkeypatch.context() as patch, pytest.raises((AccessError, FlagError)):
        patch.setattr(type(service), "carry_out", carry_out)
        write(root, "new")
    service.faults = []
    left = read(root)
    assert "marker" not in left or left in (old, {name: f"new {name}" for name in FILES})
    assert len(service.changes) == began + changes
    write(root, "newer")
    assert read(root) == {name: f"newer {name}" for name in FILES}


def test_a_writer_killed_while_it_uploads_is_followed_by_the_next(service, root, tmp_path):
    service.faults = [Fault(STALLED, "POST|PUT", "uploadType|/bucket/", times=10**6, seconds=60)]
    program = (
        "import os, pathlib\nfrom tf_image_classification import storage\n"
        f"with storage.replacing_dir('{root}/out', 'marker') as staging:\n"
        "    for name in ('marker', 'a'):\n"
        "        pathlib.Path(staging, name).write_text(name)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program])
    while not service.changes:  # the first upload is carried out, its response stalls
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    service.faults = []
    assert read(root) == {}
    write(root, "new")
    assert read(root) == {name: f"new {name}" for name in FILES}


@pytest.mark.parametrize("ended", [True, False])
def test_of_two_concurrent_writers_the_first_fails(service, root, monkeypatch, ended):
    store = store_of(root)
    find = store.find

    def overtaken(path):
        if path == f"{root}/{UNFINISHED}" and storage.exists(
            f"{root}/out/a"
        ):  # the last check before the marker is uploaded
            monkeypatch.undo()
            if ended:
                write(root, "quick")
            else:
                store.write(path, b"another", find(path).version)
        return find(path)

    with (
        pytest.raises(ConflictError, match="Another process"),
        storage.replacing_dir(f"{root}/out", "marker") as staging,
    ):
        storage.write_text(os.path.join(staging, "marker"), "slow")
        storage.write_text(os.path.join(staging, "a"), "slow")
        monkeypatch.setattr(store, "find", overtaken)
    assert read(root) == ({name: f"quick {name}" for name in FILES} if ended else {"a": "slow"})


def test_an_object_of_a_concurrent_writer_is_not_overwritten(service, root, tmp_path):
    (tmp_path / "a").write_text("ours")
    storage.write_text(f"{root}/out/a", "theirs")
    with pytest.raises(ConflictError, match=f"{root}/out/a"):
        transfers_of(root).upload_files(str(tmp_path), ["a"], f"{root}/out")
    assert read(root) == {"a": "theirs"}


def test_other_content_is_never_replaced(service, root):
    storage.write_text(f"{root}/precious/thesis.txt", "x")
    storage.write_text(f"{root}/file", "x")
    for path in (
        f"{root}/precious",
        f"{root}/precious/",
        f"{root}/precious/thesis.txt",
        f"{root}/file",
        root,
    ):
        with pytest.raises(FlagError, match="has other content"), storage.replacing_dir(path, "marker"):
            pytest.fail("it may be written to")
    storage.check_replaceable(f"{root}/prec", "marker")
    assert storage.read_text(f"{root}/precious/thesis.txt") == "x"


@pytest.mark.parametrize("kept", ["out", "out/model", "out/deep/er"])
def test_an_input_is_never_replaced(service, root, kept):
    with pytest.raises(FlagError, match="would replace"):
        storage.check_replaceable(f"{root}/out", "marker", [f"{root}/{kept}"])
    storage.check_replaceable(f"{root}/out", "marker", [f"{root}/output", f"{root}/images.csv", "/out/model"])


def test_a_whole_bucket_may_be_one_folder(service, root):
    with storage.replacing_dir(root, "marker") as staging:
        storage.write_text(os.path.join(staging, "marker"), "x")
    assert [file.path for file in storage.walk(root)] == [f"{root}/marker"]


def test_a_folder_that_is_replaced_while_it_is_copied_is_not_taken_for_whole(service, root, tmp_path):
    write(root, "old")
    found = list(storage.walk(f"{root}/out"))
    write(root, "new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_of(root), "list_objects", lambda folder: iter(found))
        with pytest.raises(ConflictError):
            storage.fetch_dir(f"{root}/out", str(tmp_path / "copy"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_not_copied(service, root, tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.fetch_dir(f"{root}/none", str(tmp_path / "copy"))
    assert storage.fetch_dir(str(tmp_path), "elsewhere") == str(tmp_path)


def copy_once(root: str, tmp_path, content: str) -> None:
    folder = tmp_path / content
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content} {name}")
    storage.copy_dir_once(str(folder), f"{root}/out", "marker")


def test_a_whole_folder_whose_name_stands_for_its_content_is_never_touched(service, root, tmp_path):
    copy_once(root, tmp_path, "first")
    changes = len(service.changes)
    copy_once(root, tmp_path, "second")
    assert read(root) == {name: f"first {name}" for name in FILES}
    assert len(service.changes) == changes
    storage.write_text(f"{root}/{UNFINISHED}", "")  # of a writer that was killed
    copy_once(root, tmp_path, "third")
    assert read(root) == {name: f"third {name}" for name in FILES}


def test_a_folder_that_another_process_completes_meanwhile_is_not_touched_either(service, root, tmp_path, monkeypatch):
    store = store_of(root)
    find = store.find

    def overtaken(path):
        if path == f"{root}/{UNFINISHED}":
            monkeypatch.undo()
            write(root, "theirs")
        return find(path)

    monkeypatch.setattr(store, "find", overtaken)
    monkeypatch.setattr(writing, "_is_whole", lambda *_: False)  # when it looked
    copy_once(root, tmp_path, "ours")
    assert read(root) == {name: f"theirs {name}" for name in FILES}
    assert not storage.exists(f"{root}/{UNFINISHED}")
