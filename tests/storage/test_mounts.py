from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.standin import bucket as standin
from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import sources
from tf_image_classification.errors import FlagError
from tf_image_classification.storage import mounts, paths

VERTEX = """overlay / overlay rw,relatime 0 0
proc /proc proc rw 0 0
gcsfuse /gcs fuse.gcsfuse rw,nosuid,nodev,relatime,user_id=0,group_id=0 0 0
"""
KUBEFLOW = """overlay / overlay rw,relatime 0 0
/dev/sda1 /gcs ext4 rw,relatime 0 0
"""


@pytest.mark.parametrize(
    ("table", "mounted"),
    [
        (VERTEX, True),
        (KUBEFLOW, False),
        (KUBEFLOW + "tmpfs /gcs tmpfs rw 0 0\n", False),
        (KUBEFLOW + "photos /gcs/photos fuse rw 0 0\n", True),
        (VERTEX + "/dev/sda1 /gcs/photos xfs rw 0 0\n", False),
        (VERTEX + "/dev/sda1 /gcs/photo ext4 rw 0 0\n", True),
        ("overlay / overlay rw 0 0\n", False),
        ("rclone / fuse.rclone rw 0 0\n", True),
        ("", False),
    ],
)
def test_a_folder_is_a_mounted_bucket_if_its_file_system_is_one_of_fuse(table, mounted):
    assert mounts.is_fuse("/gcs/photos", table) == mounted


def test_mount_points_with_spaces_are_understood():
    assert mounts.is_fuse("/my gcs/photos", "overlay / overlay rw 0 0\ngcsfuse /my\\040gcs fuse.gcsfuse rw 0 0\n")


@pytest.fixture
def volume(tmp_path, monkeypatch):
    """The folder under which buckets are mounted, and a table of mounts to fill."""
    (tmp_path / "gcs" / "photos").mkdir(parents=True)
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{tmp_path}/gcs/")
    monkeypatch.setattr(mounts, "TABLE", str(tmp_path / "mounts"))
    return tmp_path


def test_a_path_on_gs_is_read_through_a_mount_of_its_bucket(volume):
    (volume / "mounts").write_text(f"gcsfuse {volume}/gcs fuse.gcsfuse rw 0 0\n")
    assert storage.mounted("gs://photos/cat/1.png") == f"{volume}/gcs/photos/cat/1.png"
    assert storage.mounted("gs://other/cat/1.png") == "gs://other/cat/1.png"


def test_the_empty_volume_that_takes_a_steps_outputs_is_no_mount(volume):
    (volume / "mounts").write_text(f"/dev/sda1 {volume}/gcs ext4 rw 0 0\n")
    assert storage.mounted("gs://photos/cat/1.png") == "gs://photos/cat/1.png"
    assert storage.mounted(f"{volume}/gcs/photos/model") == f"{volume}/gcs/photos/model"


def test_where_mounts_are_not_listed_there_are_none(volume):
    assert storage.mounted("gs://photos/cat/1.png") == "gs://photos/cat/1.png"


@pytest.fixture
def mounted(volume, monkeypatch):
    """The bucket `photos` and its mount, with a data set in each."""
    (volume / "mounts").write_text(f"gcsfuse {volume}/gcs fuse.gcsfuse rw 0 0\n")
    with standin.serving("photos") as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        storage.write_text("gs://photos/data/manifest.json", "{}")
        (volume / "gcs" / "photos" / "data").mkdir()
        (volume / "gcs" / "photos" / "data" / "manifest.json").write_text("{}")
        yield volume


def test_a_bucket_and_its_mount_have_one_canonical_path(mounted):
    path = f"{mounted}/gcs/photos/cat/../cat/1.png"
    assert storage.canonical(path) == storage.canonical("gs://photos/cat/1.png") == "gs://photos/cat/1.png"
    assert storage.canonical(other := f"{mounted}/gcs/other/1.png") == other
    assert storage.canonical("relative") == os.path.abspath("relative")


@pytest.mark.parametrize("output", ["gs://photos/data", "{gcs}/photos/data"])
@pytest.mark.parametrize("read", ["gs://photos/data/train-0.tfrecord", "{gcs}/photos/data/train-0.tfrecord"])
def test_what_is_read_is_not_replaced_by_whichever_of_its_names(mounted, output, read):
    output, read = (path.format(gcs=f"{mounted}/gcs") for path in (output, read))
    with pytest.raises(FlagError, match="would replace"):
        storage.check_replaceable(output, "manifest.json", [read])


def test_an_image_may_be_named_by_either_of_its_names_whatever_the_root_is_named_by(mounted):
    csv = mounted / "images.csv"
    csv.write_text(f"gs://photos/cat/1.png,cat\n{mounted}/gcs/photos/cat/2.png,cat\n")
    for root in ("gs://photos", f"{mounted}/gcs/photos"):
        found = list(sources.read_entries(sources.expand(str(csv)), sources.ReadOptions(root)))
        assert [(entry.path, entry.filename) for entry in found] == [
            ("gs://photos/cat/1.png", "cat/1.png"),
            ("gs://photos/cat/2.png", "cat/2.png"),
        ]


def test_a_folder_in_a_mounted_bucket_is_no_image(mounted):
    with pytest.raises(images.RejectedImage, match="not a file"):
        images.read("gs://photos/data")


def test_a_folder_in_a_mounted_bucket_is_written_where_no_object_may_be_deleted(mounted, monkeypatch, caplog):
    def refusing(function):  # as gcsfuse, which renames by copying and deleting
        def call(path, *more, **options):
            if str(path).startswith(f"{mounted}/gcs"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return function(path, *more, **options)

        return call

    for name in ("unlink", "remove", "replace", "rename"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    folder = f"{mounted}/gcs/photos/model"
    with storage.replacing_dir(folder, "model.json") as staging:
        Path(staging, "model.json").write_text("{}")
    assert sorted(os.listdir(folder)) == [".model.json.unfinished", "model.json"]
    assert f"stay in {folder}" in caplog.text
