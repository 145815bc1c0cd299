"""Which folders are buckets that gcsfuse mounted.

A folder at /gcs/BUCKET proves nothing: Kubeflow's launcher puts an empty volume there for a step's outputs.
"""

from __future__ import annotations

import re

TABLE = "/proc/mounts"


def is_fuse(folder: str, table: str) -> bool:
    """Whether a folder lies in a file system of FUSE, as gcsfuse's is.

    Args:
        folder: absolute, without links.
        table: text of /proc/mounts: device, mount point, type and more in each line; of several at one point the last
            counts.
    """
    nearest, kind = "", ""
    for line in table.splitlines():
        _, point, its_kind, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)
        if len(point) >= len(nearest) and f"{folder}/".startswith(point.rstrip("/") + "/"):
            nearest, kind = point, its_kind
    return kind == "fuse" or kind.startswith("fuse.")
