"""Local folders and their locks: two writers, links, file systems without locks, full disks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_image_classification import storage
from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.storage import local_files, local_folders


def write(target, content: str = "") -> None:
    with storage.replacing_dir(str(target), "marker") as staging:
        Path(staging, "marker").write_text(content)


def test_a_second_writer_is_told_of_the_first_and_removes_nothing_of_it(tmp_path):
    with storage.replacing_dir(str(tmp_path / "out"), "marker") as staging:
        Path(staging, "marker").write_text("first")
        with pytest.raises(FlagError, match=r"Another process is writing this folder\. Received: .*/out\. Wait for it"):
            write(tmp_path / "out")
        storage.remove_leftovers(str(tmp_path))
        write(tmp_path / "other")
    assert (tmp_path / "out" / "marker").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_a_folder_that_appears_while_it_is_checked_is_no_other_content(tmp_path, monkeypatch):
    listdir = os.listdir

    def overtaken(path):
        try:
            return listdir(path)
        finally:
            monkeypatch.undo()
            write(tmp_path / "out")

    monkeypatch.setattr(os, "listdir", overtaken)
    storage.check_replaceable(str(tmp_path / "out"), "marker")
    assert (tmp_path / "out" / "marker").exists()


def test_both_names_of_a_folder_have_one_lock_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/data")
    with (
        storage.replacing_dir(str(tmp_path / "link"), "marker") as staging,
        pytest.raises(FlagError, match="Another process"),
    ):
        Path(staging, "marker").write_text("new")
        write(tmp_path / "disk" / "data")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "data" / "marker").read_text() == "new"


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", [".out.lock", ".pointer.lock", "folder/.lock"])
def test_a_lock_file_that_is_a_link_leaves_what_it_leads_to_as_it_is(tmp_path, name, link):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "folder").mkdir()
    link(tmp_path / "precious", tmp_path / name)

    def lock() -> None:
        if name == ".out.lock":
            write(tmp_path / "out")
        elif name == ".pointer.lock":
            storage.write_text(str(tmp_path / "pointer"), "y", if_version=0)
        else:
            with storage.exclusive(str(tmp_path / "folder")):
                pass

    if link is os.symlink:
        with pytest.raises(FlagError, match=rf"the lock file .*{name} is a symbolic link\. .*Remove the link"):
            lock()
    else:
        lock()
    assert (tmp_path / "precious").read_text() == "x"


def test_without_locks_a_warning_says_so_and_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    (tmp_path / ".out.partial-12345678").mkdir()
    monkeypatch.setattr(fcntl, "flock", unsupported)
    write(tmp_path / "out")
    assert "has no locks: only one process at a time may write there" in caplog.text
    assert sorted(os.listdir(tmp_path)) == [".out.partial-12345678", "out"]


def test_a_file_that_is_being_written_is_not_taken_for_a_leftover(tmp_path):
    path = str(tmp_path / "file")
    descriptor, _ = local_files.local_locks.acquire(local_files.staging_path(path), wait=False)
    (tmp_path / ".file.partial-12345678").write_text("of a killed writer")
    storage.write_text(path, "new")
    assert len(os.listdir(tmp_path)) == 2
    os.close(descriptor)
    storage.write_text(path, "newer")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_whose_writer_was_killed_between_two_renames_is_back_for_the_next_reader(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.previous")
    storage.restore_dir(str(tmp_path / "out"))
    assert (tmp_path / "out" / "marker").read_text() == "old"
    storage.restore_dir(str(tmp_path / "none"))
    assert os.listdir(tmp_path) == ["out"]


def test_a_rename_that_fails_leaves_the_older_folder(tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    rename = os.rename

    def fail(source, target):
        if ".partial-" in source and target.endswith("/out"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(local_folders, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UserError, match=r"Device or resource busy\. It may be a mount point"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "marker").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this account may not mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_named_and_nothing_is_left_on_it(small_disk, tmp_path):
    def fill(folder) -> None:
        Path(folder, "large").write_bytes(bytes(2**20))

    write(small_disk / "out", "old")
    with (
        pytest.raises(UserError, match=r"Cannot write .*/out\. Received: No space left on device\. Free some space"),
        storage.replacing_dir(str(small_disk / "out"), "marker") as staging,
    ):
        fill(staging)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "marker").write_text("")
    fill(tmp_path / "model")
    with pytest.raises(UserError, match=r"Cannot write .*/copy\. Received: No space left on device\. Free some space"):
        storage.copy_dir_once(str(tmp_path / "model"), str(small_disk / "copy"), "marker")
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(small_disk / "file"), bytes(2**20))
    assert os.listdir(small_disk) == ["out"]
    assert (small_disk / "out" / "marker").read_text() == "old"


def test_what_a_writer_killed_on_a_full_disk_left_makes_room_for_the_next(small_disk):
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom tf_image_classification import storage\n"
        f"with storage.replacing_dir({str(small_disk / 'out')!r}, 'marker') as staging:\n"
        "    try: Path(staging, 'large').write_bytes(bytes(2**20))\n"
        "    except OSError: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "any").write_text("x")
    (small_disk / "any").unlink()
    write(small_disk / "out", "x" * 100_000)
    assert os.listdir(small_disk) == ["out"]
