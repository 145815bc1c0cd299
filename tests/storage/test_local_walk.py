"""Folders whose links fork, or that are nested a thousand deep: listed, matched, copied and deleted in linear time."""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.time_limit import ends_within
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import local_glob


@pytest.fixture(autouse=True)
def _time_limit(tmp_path) -> Iterator[None]:
    """Also removes what pytest could not: paths that are too long."""
    with ends_within(120):
        yield
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def forking_links(root: Path, count: int = 40) -> Path:
    """Folders that have two links to the next one each: 2^40 paths lead to the file in the last."""
    for number in range(count):
        (root / f"{number:02}").mkdir(parents=True)
    for number in range(count - 1):
        for link in ("a", "b"):
            (root / f"{number:02}" / link).symlink_to(f"../{number + 1:02}")
    (root / f"{count - 1:02}" / "file.tfrecord").write_text("")
    return root


def nested(root: Path, name: str, depth: int) -> None:
    """Makes so many folders, each in the one before, and a file in the last; longer paths than the system's too."""
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_walk_through_links_that_fork_ends_and_lists_a_file_once_by_name_and_once_by_link(tmp_path):
    root = forking_links(tmp_path / "fork")
    files = [file.path for file in storage.walk(str(root))]
    assert files == [str(root / "00" / "/".join("a" * 39) / "file.tfrecord"), str(root / "39" / "file.tfrecord")]


def test_folders_that_are_not_listed_again_are_shown_on_demand(tmp_path):
    root = forking_links(tmp_path / "fork", 3)
    (root / "02" / "up").symlink_to("..")
    shown = [os.path.relpath(file.path, root) for file in storage.walk(str(root), hidden=True) if not file.size]
    left_out = {path for path in shown if not path.endswith("file.tfrecord")}
    assert left_out == {"00/b", "00/a/b", "00/a/a/up", "01/a", "01/b", "02/up"}


def test_a_glob_of_any_folders_through_links_that_fork_ends(tmp_path):
    root = forking_links(tmp_path / "fork")
    found = storage.glob(f"{root}/**/**/**/*.tfrecord")
    assert f"{root}/39/file.tfrecord" in found
    assert len(found) == 2


_PATTERNS = (
    "x*/** **/x*/** x.t/** **/*.t **/**/*.t a/**/*.t **/train/* **/train */**/b **/.hid/* **/ a*/**/b/*.t **/[bc]/*"
)
_NAMES = "a/x.t a/b/y.t a/b/train/z.t .hid/x.t a/.hid/y.t a/b/.z.t c/b/b/x.t train/w x.t"


@pytest.mark.parametrize("pattern", _PATTERNS.split())
def test_globs_of_any_folders_match_what_those_of_python_do(tmp_path, monkeypatch, pattern):
    for name in _NAMES.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    for form in (pattern, f"{tmp_path}/{pattern}"):
        assert local_glob.glob(form) == sorted(set(glob.glob(form, recursive=True)) - {""})


def test_a_file_1500_folders_deep_is_listed(tmp_path):
    nested(tmp_path / "deep", "d", 1500)
    (file,) = storage.walk(str(tmp_path / "deep"))
    assert file.path.count("/d") == 1500 + 1


def test_a_path_that_is_longer_than_the_systems_is_said(tmp_path):
    nested(tmp_path / "deep", "f" * 200, 25)
    with pytest.raises(FlagError, match=r"nested too deeply: a path is longer .* Expected: paths of at most 4,095"):
        list(storage.walk(str(tmp_path / "deep")))


def test_a_folder_of_1010_nested_ones_is_replaced_and_not_copied(tmp_path):
    nested(tmp_path / "old", "d", 1010)
    (tmp_path / "old" / "marker").write_text("")
    with pytest.raises(FlagError, match=r"nested too deeply in .*old\. Received: 1,010 folders around a file"):
        storage.copy_dir_once(str(tmp_path / "old"), str(tmp_path / "copy"), "marker")
    with storage.replacing_dir(str(tmp_path / "old"), "marker") as staging:
        Path(staging, "marker").write_text("new")
    assert os.listdir(tmp_path) == ["old"]
    assert os.listdir(tmp_path / "old") == ["marker"]


def test_a_link_to_a_folder_that_it_is_in_lists_neither_this_nor_the_disk(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").write_text("x")
    (tmp_path / "photos" / "cat" / "all").symlink_to("/")
    (tmp_path / "photos" / "cat" / "up").symlink_to("../..")
    (tmp_path / "link").symlink_to("photos")
    for root in ("photos", "link"):
        shown = [
            os.path.relpath(file.path, tmp_path / root) for file in storage.walk(str(tmp_path / root), hidden=True)
        ]
        assert shown == ["cat/1.jpg", "cat/all", "cat/up"]


def test_sizes_need_not_be_looked_up(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    path = str(tmp_path / "file")
    assert [(file.path, file.size) for file in storage.walk(str(tmp_path))] == [(path, 7)]
    assert list(storage.walk(str(tmp_path), sizes=False)) == [(path, 0, 0, False)]
