"""Buckets that gcsfuse mounted: which folders they are.

A folder at /gcs/BUCKET proves nothing: Kubeflow's launcher puts an empty volume there for a step's outputs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

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
