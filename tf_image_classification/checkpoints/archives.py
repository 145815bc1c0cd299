"""Zip files of weights, .keras and .npz: checked before anything is unpacked."""

from __future__ import annotations

import io
import math
import os
import zipfile

import numpy as np

from tf_image_classification.checkpoints import refusal

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that Keras and NumPy write
_MAX_MEMBERS = 100_000


def check(archive: zipfile.ZipFile, size: int, path: str) -> None:
    """Checks what a zip file says of its members.

    Args:
        size: of the zip file in bytes.
        path: what errors call it.

    Raises:
        CheckpointError: a name is outside the archive or occurs twice, a member is compressed in another way than Keras
            and NumPy do, or all together unpack to more than `refusal.max_unpacked`.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    outside = [name for name in names if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")]
    if outside:
        raise refusal.unsafe(path, f"a zip member named {outside[0]}", "names inside the archive")
    if len(set(names)) < len(names):
        raise refusal.unsafe(path, "two zip members of one name", "each name once")
    if len(names) > _MAX_MEMBERS:
        raise refusal.unsafe(path, f"{len(names)} zip members", f"at most {_MAX_MEMBERS}")
    other = [member for member in members if member.compress_type not in _METHODS]
    if other:
        raise refusal.unsafe(
            path, f"a zip member compressed by method {other[0].compress_type}", "members stored or deflated"
        )
    unpacked, limit = sum(member.file_size for member in members), refusal.max_unpacked(size)
    if unpacked > limit:
        raise refusal.unsafe(
            path, f"a zip file of {size} bytes that unpacks to {unpacked} bytes", f"at most {limit} bytes"
        )


def extract(path: str, member: str, folder: str, shown_path: str) -> str:
    """Extracts one member of a zip file into a local folder; returns its path.

    Raises:
        CheckpointError: see `check`.
        zipfile.BadZipFile, zlib.error, OSError, LookupError, ...: it is damaged or has no such member.
    """
    with zipfile.ZipFile(path) as archive:
        check(archive, os.path.getsize(path), shown_path)
        return archive.extract(member, folder)


def open_npz(content: bytes, path: str) -> np.lib.npyio.NpzFile:
    """Opens an .npz file of plain arrays, which are read on access.

    Args:
        content: of the file.
        path: what errors call it.

    Raises:
        CheckpointError: see `check`; or an array states another shape or dtype than it has values for.
        zipfile.BadZipFile, ValueError, OSError: it is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check(archive, len(content), path)
        for member in archive.infolist():
            with archive.open(member) as array:
                if np.lib.format.read_magic(array) != (1, 0):
                    raise ValueError(f"{member.filename} is no array")
                shape, _, dtype = np.lib.format.read_array_header_1_0(array)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - array.tell():
                    raise refusal.unsafe(path, f"an array of {dtype} {shape}, {member.filename}", "numbers in the file")
    weights: np.lib.npyio.NpzFile = np.load(io.BytesIO(content), allow_pickle=False)
    return weights
