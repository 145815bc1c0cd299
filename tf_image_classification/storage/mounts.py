"""Buckets that gcsfuse mounted: which folders they are, and how a folder in one is replaced.

A folder at /gcs/BUCKET proves nothing: Kubeflow's launcher puts an empty volume there for a step's outputs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tf_image_classification.storage import local_files

TABLE = "/proc/mounts"


def is_mounted(folder: str) -> bool:
    """Whether a folder exists and is in a mounted bucket."""
    return os.path.isdir(folder) and os.path.exists(TABLE) and is_fuse(folder, Path(TABLE).read_text())


def is_fuse(folder: str, table: str) -> bool:
    """Whether a folder is in a FUSE file system, as gcsfuse's is.

    Args:
        folder: absolute, without links.
        table: text of /proc/mounts, see proc(5): device, mount point, type and more on each line. The longest mount
            point that contains the folder counts; of several lines with the same one, the last.
    """
    nearest, nearest_type = "", ""
    for line in table.splitlines():
        _, mount_point, file_system, *_ = line.split(" ")
        mount_point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount_point)
        if len(mount_point) >= len(nearest) and f"{folder}/".startswith(mount_point.rstrip("/") + "/"):
            nearest, nearest_type = mount_point, file_system
    return nearest_type == "fuse" or nearest_type.startswith("fuse.")


def replace_dir(folder: str, names: Sequence[str], destination: str, marker: str, unfinished_marker: str) -> None:
    """Replaces a folder in a mounted bucket by a local one. Nothing can be renamed there: the marker is written last.

    Killed at any moment, it leaves no marker without all other files; see gcs_folders.

    Args:
        folder: the local folder.
        names: of its files, relative to it.
        destination: the folder to replace, below /gcs/.
        marker: the file, or folder of files, that is removed first and copied last.
        unfinished_marker: name of the file that exists in `destination` while this runs.
    """
    os.makedirs(destination, exist_ok=True)
    local_files.write(os.path.join(destination, unfinished_marker), b"")
    for name in sorted(os.listdir(destination), key=lambda name: name != marker):
        if name != unfinished_marker:
            local_files.remove(os.path.join(destination, name))
    for name in sorted(names, key=lambda name: name.split("/")[0] == marker):
        target = os.path.join(destination, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(folder, name), target)
    os.unlink(os.path.join(destination, unfinished_marker))
