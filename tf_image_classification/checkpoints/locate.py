"""What a --checkpoint_path names: which file or files, of which kind, fetched when they are on gs://."""

from __future__ import annotations

import glob
import os
import re
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.checkpoints import state
from tf_image_classification.errors import CheckpointError, MissingCheckpointError
from tf_image_classification.model_folder import KERAS_MODEL

TENSORFLOW, KERAS, H5 = "TensorFlow checkpoint", ".keras file", ".h5 weights"
EXPECTED = (
    "a slim .ckpt (V1 file or V2 prefix), a TF2 checkpoint prefix, a .keras or .weights.h5 file, or "
    "a folder that holds checkpoints or a "
    "model of this project"
)
_V2_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


class Found(NamedTuple):
    """A checkpoint.

    Attributes:
        kind: TENSORFLOW, KERAS or H5.
        path: prefix or file, local or on gs://.
    """

    kind: str
    path: str


def locate(path: str) -> Found:
    """Finds the checkpoint that `path` means. In a folder: its newest checkpoint, else its model file, else its only
    checkpoint.

    Raises:
        CheckpointError: there is none, or the newest one of a folder is not complete.
    """
    path = path.rstrip("/") if len(path) > 1 else path
    prefix = _V2_SUFFIX.sub("", path)
    if storage.exists(prefix + ".index"):
        _check_complete(prefix)
        return Found(TENSORFLOW, prefix)
    if storage.is_dir(path):
        return _in_folder(path)
    if storage.exists(path):
        if path.endswith(".keras"):
            return Found(KERAS, path)
        return Found(H5 if path.endswith((".h5", ".hdf5")) else TENSORFLOW, path)
    if storage.glob(glob.escape(prefix) + ".data-*"):
        raise CheckpointError(f"The checkpoint {prefix} is not complete: its .index file is missing", received=path)
    folder = os.path.dirname(path)
    beside = _checkpoints_in(folder) if folder else []
    raise MissingCheckpointError(
        "There is no such checkpoint",
        received=path,
        expected=EXPECTED,
        hint=f"Beside it there is {', '.join(beside[:5])}." if beside else "",
    )


def fetch(found: Found, folder: str) -> str:
    """The checkpoint's local path: its own, or that of a copy in `folder` when it is on gs://."""
    if not storage.is_gcs(found.path):
        return found.path
    if found.kind != TENSORFLOW or not storage.exists(index := f"{found.path}.index"):
        return storage.fetch(found.path, folder)
    for file in _data_files(found.path):
        storage.fetch(file, folder)
    return storage.fetch(index, folder).removesuffix(".index")


def _in_folder(folder: str) -> Found:
    if (prefix := state.latest(folder)) is not None:
        if storage.exists(prefix + ".index"):
            _check_complete(prefix)
            return Found(TENSORFLOW, prefix)
        if storage.exists(prefix):
            return Found(TENSORFLOW, prefix)
        raise CheckpointError(
            f"The newest checkpoint of {folder} is not complete: {os.path.basename(prefix)} is "
            "listed, but its files are missing",
            hint="Copy the folder again, or name an older checkpoint in it.",
        )
    for name in (KERAS_MODEL, storage.join("export", KERAS_MODEL)):
        if storage.exists(storage.join(folder, name)):
            return Found(KERAS, storage.join(folder, name))
    candidates = _checkpoints_in(folder)
    if len(candidates) == 1:
        return locate(candidates[0])
    raise CheckpointError(
        f"The folder {folder} "
        + ("has several checkpoints and no file that says which is newest" if candidates else "has no checkpoint"),
        received=", ".join(os.path.basename(name) for name in candidates[:5]) or None,
        expected="one of them" if candidates else EXPECTED,
    )


def _check_complete(prefix: str) -> None:
    shards = [match for file in _data_files(prefix) if (match := re.search(r"-(\d{5})-of-(\d{5})$", file))]
    expected = int(shards[0][2]) if shards else 1
    if len(shards) < expected:
        raise CheckpointError(
            f"The checkpoint {prefix} is not complete",
            received=f"{len(shards)} of its {expected} data files",
            hint="Copy it again, or name an older one.",
        )


def _data_files(prefix: str) -> list[str]:
    only = f"{prefix}.data-00000-of-00001"  # as nearly all have it; known without a listing
    return [only] if storage.exists(only) else storage.glob(glob.escape(prefix) + ".data-*")


def _checkpoints_in(folder: str) -> list[str]:
    """The prefixes and files in a folder that look like checkpoints, sorted."""
    names = [name for name in storage.names_in(folder) if name.endswith((".index", ".ckpt", ".keras", ".h5"))]
    return sorted({storage.join(folder, _V2_SUFFIX.sub("", name)) for name in names})
