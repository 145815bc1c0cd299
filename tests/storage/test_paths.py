from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.standin import bucket as standin
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import paths


def test_a_replaced_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"
    with storage.replacing_dir(str(target), "a") as staging:
        open(os.path.join(staging, "a"), "w").close()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    with pytest.raises(RuntimeError), storage.replacing_dir(str(target), "a") as staging:
        open(os.path.join(staging, "b"), "w").close()
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path):
    program = (
        "import os, signal\nfrom tf_image_classification import storage\n"
        f"with storage.replacing_dir({str(tmp_path / 'out')!r}, 'whole') as staging:\n"
        "    open(os.path.join(staging, 'half'), 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [".out.lock", ".out.partial"]
    with storage.replacing_dir(str(tmp_path / "out"), "whole") as staging:
        open(os.path.join(staging, "whole"), "w").close()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_on_a_mounted_bucket_is_written_without_a_rename_and_its_marker_last(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{tmp_path}/gcs/")
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("a bucket's folders cannot be renamed"))
    target = tmp_path / "gcs" / "bucket" / "out"
    for content in ("old", "new"):
        with storage.replacing_dir(str(target), "marker") as staging:
            os.mkdir(os.path.join(staging, "deep"))
            for name in ("marker", "zebra", f"deep/{content}"):
                storage.write_text(os.path.join(staging, name), content)
            assert not str(staging).startswith(str(tmp_path / "gcs"))
    found = {os.path.relpath(file.path, target): storage.read_text(file.path) for file in storage.walk(str(target))}
    assert found == {"marker": "new", "zebra": "new", "deep/new": "new"}
    written = sorted((file for file in storage.walk(str(target))), key=lambda file: file.version)
    assert os.path.basename(written[-1].path) == "marker"


def test_a_folder_of_another_kind_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    with (
        pytest.raises(FlagError, match="has other content"),
        storage.replacing_dir(str(tmp_path / "precious"), "metrics.json"),
    ):
        pass
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize("kept", ["out", "out/model", "out/deep/er"])
def test_an_input_is_never_replaced(tmp_path, kept):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "marker").write_text("")
    with pytest.raises(FlagError, match="would replace"):
        storage.check_replaceable(str(tmp_path / "out"), "marker", [str(tmp_path / kept)])
    storage.check_replaceable(str(tmp_path / "out"), "marker", [str(tmp_path / "output"), str(tmp_path)])


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    storage.write_text(str(path), "first")
    storage.write_text(str(path), "second é")
    assert storage.read_text(str(path)) == "second é"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlagError, match="Cannot write to"), storage.replacing_dir(str(tmp_path / "file" / "out"), "a"):
        pass
    with pytest.raises(FlagError, match="Cannot write to"), storage.exclusive(str(tmp_path / "file" / "out")):
        pass


def test_a_glob_matches_names_with_special_characters_literally_when_they_exist(tmp_path):
    for name in ("train-1", "train-2", "odd[1]*"):
        (tmp_path / name).write_text("")
    assert storage.glob(str(tmp_path / "train-*")) == [str(tmp_path / "train-1"), str(tmp_path / "train-2")]
    assert storage.glob(str(tmp_path / "odd[1]*")) == [str(tmp_path / "odd[1]*")]
    assert storage.glob(str(tmp_path / "none*")) == []


def test_a_walk_is_sorted_and_passes_over_hidden_files(tmp_path):
    for name in ("b/2", "b/1", "a/.hidden", ".git/config", "a/3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("xy")
    found = list(storage.walk(str(tmp_path)))
    assert [os.path.relpath(file.path, tmp_path) for file in found] == ["a/3", "b/1", "b/2"]
    assert {file.size for file in found} == {2}


def test_a_walk_skips_links_to_their_own_ancestors(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("")
    for link, target in (("here", "."), ("too", "."), ("a/up", ".."), ("a/self", "../a")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "again").symlink_to("a")
    found = [os.path.relpath(file.path, tmp_path) for file in storage.walk(str(tmp_path))]
    assert found == ["a/file", "again/file"]


@pytest.fixture(scope="module")
def bucket():
    """A bucket on loopback, reached with the real client."""
    with standin.serving("bucket") as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://bucket"


def test_objects_are_written_read_listed_and_found(bucket):
    storage.write_text(f"{bucket}/texts/a.txt", "one")
    storage.write_text(f"{bucket}/texts/deep/b.txt", "two")
    assert storage.read_text(f"{bucket}/texts/a.txt") == "one"
    assert storage.exists(f"{bucket}/texts/a.txt")
    assert storage.exists(f"{bucket}/texts")
    assert not storage.exists(f"{bucket}/text")
    assert storage.is_dir(f"{bucket}/texts")
    assert not storage.is_dir(f"{bucket}/texts/a.txt")
    assert [file.path for file in storage.walk(f"{bucket}/texts")] == [
        f"{bucket}/texts/a.txt",
        f"{bucket}/texts/deep/b.txt",
    ]
    assert storage.glob(f"{bucket}/texts/*.txt") == [f"{bucket}/texts/a.txt"]
    assert storage.stat(f"{bucket}/texts/a.txt").size == 3
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{bucket}/texts/none")
    with pytest.raises(FileNotFoundError):
        storage.stat(f"{bucket}/texts/none")


def test_a_changed_object_has_another_version(bucket):
    storage.write_text(f"{bucket}/changing", "one")
    before = storage.stat(f"{bucket}/changing").version
    storage.write_text(f"{bucket}/changing", "two")
    assert storage.stat(f"{bucket}/changing").version != before


def test_a_folder_is_uploaded_and_an_object_fetched(bucket, tmp_path):
    with storage.replacing_dir(f"{bucket}/folder", "deep") as staging:
        os.mkdir(os.path.join(staging, "deep"))
        storage.write_text(os.path.join(staging, "deep", "file"), "content")
    with storage.replacing_dir(f"{bucket}/folder", "deep") as staging:
        os.mkdir(os.path.join(staging, "deep"))
        storage.write_text(os.path.join(staging, "deep", "file"), "content")
        storage.write_text(os.path.join(staging, "other"), "more")
    assert [file.path for file in storage.walk(f"{bucket}/folder")] == [
        f"{bucket}/folder/deep/file",
        f"{bucket}/folder/other",
    ]
    local = storage.fetch(f"{bucket}/folder/deep/file", str(tmp_path))
    assert local.startswith(str(tmp_path))
    assert storage.read_text(local) == "content"
    assert storage.fetch(local, str(tmp_path)) == local


def test_a_gcs_path_without_a_bucket_is_an_error():
    with pytest.raises(FlagError, match="Invalid bucket name"):
        storage.exists("gs:///object")
