from __future__ import annotations

import pytest

from tf_image_classification import mounts, storage

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
def test_a_folder_is_a_mounted_bucket_if_the_file_system_it_lies_in_is_one_of_fuse(table, mounted):
    assert mounts.is_fuse("/gcs/photos", table) == mounted


def test_mount_points_with_spaces_are_understood():
    assert mounts.is_fuse("/my gcs/photos", "overlay / overlay rw 0 0\ngcsfuse /my\\040gcs fuse.gcsfuse rw 0 0\n")


@pytest.fixture
def volume(tmp_path, monkeypatch):
    """A folder at the place where buckets are mounted, and a table of mounts to fill."""
    (tmp_path / "gcs" / "photos").mkdir(parents=True)
    monkeypatch.setattr(storage, "GCS_MOUNT", f"{tmp_path}/gcs/")
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
