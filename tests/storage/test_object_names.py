"""The names of objects are no file paths: `//`, `.`, `..`, `[` and `?` are characters like any other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.standin.remote_bucket import needs_emulator
from tests.storage.conftest import SCHEMES, serving
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import mounts, paths

NAMES = (
    "a/b",
    "a//b",
    "a/./b",
    "a/../b",
    "//a/b",
    "a/b[1]",
    "a/b1",
    "a/b?",
    "a/b*",
    "a/b#c",
    "a/b%2Fc",
    "a/b%20c",
    "a/b c",
    " a/b ",
    "a\\b",
    "a/{x,y}",
    "a/x",
    "a/é",
    "a/e\u0301",
    "a/b\u2028c",
    "a/b/",
)


@pytest.fixture(scope="module", params=SCHEMES)
def bucket(request) -> Iterator[str]:
    with serving(request.param, "names", "more"):
        for name in NAMES:
            storage.write_text(f"{request.param}://names/{name}", name)
        yield f"{request.param}://names"


@pytest.fixture
def more(bucket) -> str:
    """The address of another bucket."""
    return bucket.replace("names", "more")


@needs_emulator
def test_every_object_is_found_read_and_listed_under_its_exact_name(bucket):
    for name in NAMES:
        assert storage.read_text(f"{bucket}/{name}") == name
        assert storage.stat(f"{bucket}/{name}").path == f"{bucket}/{name}"
        assert storage.glob(f"{bucket}/{name}") == [f"{bucket}/{name}"]
        assert storage.canonical(f"{bucket}/{name}") == f"{bucket}/{name}"
    assert sorted(file.path for file in storage.walk(bucket)) == sorted(f"{bucket}/{name}" for name in NAMES)


@needs_emulator
def test_copies_of_objects_are_apart_and_those_of_a_folder_together(bucket, tmp_path):
    copies = {name: storage.fetch(f"{bucket}/{name}", str(tmp_path)) for name in NAMES}
    assert {name: storage.read_text(copy) for name, copy in copies.items()} == {name: name for name in NAMES}
    assert all(os.path.realpath(copy).startswith(f"{tmp_path}/") for copy in copies.values())
    assert os.path.dirname(copies["a/b1"]) == os.path.dirname(copies["a/x"]) != os.path.dirname(copies["a//b"])
    assert os.path.basename(copies["a/b[1]"]) == "b[1]"


def test_each_slash_at_the_end_of_a_folder_counts(bucket):
    assert [file.path for file in storage.walk(f"{bucket}/a//")] == [f"{bucket}/a//b"]
    assert [file.path for file in storage.walk(f"{bucket}///")] == [f"{bucket}///a/b"]
    assert storage.join(f"{bucket}/a//", "b") == f"{bucket}/a//b"
    assert storage.join(f"{bucket}/a/", "b") == storage.join(f"{bucket}/a", "b") == f"{bucket}/a/b"
    assert not storage.is_dir(f"{bucket}/x//")


@needs_emulator
def test_a_glob_in_a_bucket_means_what_it_means_in_a_folder(bucket, more, tmp_path):
    for name in ("b", "b1", "b2", "b[2]", "{x,y}", "x", "c\\d", ".hidden", "deep/b"):
        storage.write_text(f"{more}/glob/{name}", "")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for pattern in (
        "b*",
        "b?",
        "b[12]",
        "b[!1]",
        "b[[]2]",
        "{x,y}*",
        "{x,*",
        "c\\*",
        "**/b",
        "*/b",
        "b[",
        "b**",
        ".h*",
    ):
        local = [path.removeprefix(f"{tmp_path}/") for path in storage.glob(f"{tmp_path}/{pattern}")]
        assert [path.removeprefix(f"{more}/glob/") for path in storage.glob(f"{more}/glob/{pattern}")] == local


@pytest.mark.parametrize("is_local", [True, False])
def test_a_folder_that_exists_is_no_glob_whatever_its_name(bucket, more, tmp_path, is_local):
    root = str(tmp_path) if is_local else f"{more}/literal"
    for name in ("photos[1]/a.x", "photos1/b.x", "what?/c.x"):
        os.makedirs(os.path.dirname(f"{tmp_path}/{name}"), exist_ok=True)
        storage.write_text(f"{root}/{name}", "")
    assert storage.glob(f"{root}/photos[1]/*.x") == [f"{root}/photos[1]/a.x"]
    assert storage.glob(f"{root}/what?/*") == [f"{root}/what?/c.x"]
    assert storage.glob(f"{root}/photos[12]/*.x") == [f"{root}/photos1/b.x"]


@needs_emulator
def test_placeholders_of_folders_are_no_files(bucket, more):
    for name in ("empty/", "full/", "full/deep/", "full/deep/a"):
        storage.write_bytes(f"{more}/{name}", b"a" if name.endswith("a") else b"")
    assert not storage.exists(f"{more}/empty")
    assert not storage.exists(f"{more}/empty/")
    assert storage.glob(f"{more}/empty/") == []
    assert [file.path for file in storage.walk(f"{more}/full")] == [f"{more}/full/deep/a"]
    assert storage.glob(f"{more}/full/**") == [f"{more}/full/deep/a"]
    assert storage.names_in(f"{more}/full") == storage.folders_in(f"{more}/full/") == ["deep"]
    storage.check_replaceable(f"{more}/empty", "marker")


def test_names_that_no_object_can_have_are_not_found(bucket):
    for name in ("a\nb", "a\r", ".", "..", "x" * 1025):
        assert not storage.exists(f"{bucket}/{name}")
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(f"{bucket}/{name}")
    with pytest.raises(FlagError, match="no UTF-8"):
        storage.glob(f"{bucket}/caf\udce9")


def test_a_mount_is_asked_only_for_objects_that_it_can_show(tmp_path, monkeypatch):
    (tmp_path / "gcs" / "names").mkdir(parents=True)
    (tmp_path / "table").write_text(f"gcsfuse {tmp_path}/gcs fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{tmp_path}/gcs/")
    monkeypatch.setattr(mounts, "TABLE", str(tmp_path / "table"))
    read_through = [name for name in NAMES if not storage.is_gcs(storage.mounted(f"gs://names/{name}"))]
    assert set(NAMES).difference(read_through) == {"a//b", "a/./b", "a/../b", "//a/b", "a/b/"}
    assert storage.mounted("gs://names") == f"{tmp_path}/gcs/names/"


def test_a_folder_is_written_and_replaced_where_its_slashes_say(bucket, more):
    for content in ("old", "new"):
        with storage.replacing_dir(f"{more}/out//", "marker") as staging:
            storage.write_text(os.path.join(staging, "marker"), content)
    assert [file.path for file in storage.walk(f"{more}/out//")] == [f"{more}/out//marker"]
    assert storage.read_text(f"{more}/out//marker") == "new"


def test_hidden_files_and_folders_are_listed_on_request(bucket, more, tmp_path):
    for name in ("a/.git/1", "a/.git/2", "a/.x", "a/y", "a/..z/1"):
        storage.write_text(f"{more}/hidden/{name}", "")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    expected = ["a/..z/", "a/.git/", "a/.x", "a/y"]
    for root in (f"{more}/hidden", str(tmp_path)):
        assert sorted(file.path.removeprefix(f"{root}/") for file in storage.walk(root, hidden=True)) == expected
        assert [file.path.removeprefix(f"{root}/") for file in storage.walk(root)] == ["a/y"]


def test_the_other_unicode_form_is_found_also_where_parts_of_a_path_differ(tmp_path):
    (tmp_path / "cafe\u0301").mkdir()
    (tmp_path / "cafe\u0301" / "ä.x").write_text("")
    assert storage.other_form(f"{tmp_path}/café/ä.x") == f"{tmp_path}/cafe\u0301/ä.x"
    assert storage.other_form(f"{tmp_path}/café/a\u0308.x") == f"{tmp_path}/cafe\u0301/ä.x"
    assert storage.other_form(f"{tmp_path}/café/ö.x") is None
