"""What a --checkpoint_path names: which file or files, of which kind, fetched when they are on gs://."""

from __future__ import annotations

import glob
import os
import re
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.errors import CheckpointError, MissingCheckpointError

TENSORFLOW, KERAS, H5 = "TensorFlow checkpoint", ".keras file", ".h5 weights"
EXPECTED = (
    "a slim .ckpt (V1 file or V2 prefix), a TF2 checkpoint prefix, a .keras or .weights.h5 file, or a folder that holds checkpoints or a "
    "model of this project"
)
MODEL_FILE = "model.keras"
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
    """Finds the checkpoint that `path` means. In a folder: its newest checkpoint, else its model file, else its only checkpoint.

    Raises:
        CheckpointError: there is none, or the newest one of a folder is not complete.
    """
    path = storage.mounted(path.rstrip("/") if len(path) > 1 else path)
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
    beside = sorted({_V2_SUFFIX.sub("", name) for name in _checkpoints_of(folder)}) if folder and storage.is_dir(folder) else []
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
    for file in storage.glob(glob.escape(found.path) + ".*") if found.kind == TENSORFLOW else []:
        if file.endswith(".index") or ".data-" in file:
            local = storage.fetch(file, folder)
    if found.kind != TENSORFLOW or storage.exists(found.path):
        local = storage.fetch(found.path, folder)
    return _V2_SUFFIX.sub("", local)


def _in_folder(folder: str) -> Found:
    state = storage.join(folder, "checkpoint")
    if storage.exists(state):
        newest = _newest(storage.read_text(state))
        if newest is None:
            raise CheckpointError(f"{state} names no checkpoint", expected="a file as TensorFlow writes it")
        # A folder may have been moved since: its checkpoints are beside the file, wherever that says they are.
        prefix = storage.join(folder, os.path.basename(newest))
        if storage.exists(prefix + ".index"):
            _check_complete(prefix)
            return Found(TENSORFLOW, prefix)
        if storage.exists(prefix):
            return Found(TENSORFLOW, prefix)
        raise CheckpointError(
            f"The newest checkpoint of {folder} is not complete: {os.path.basename(prefix)} is listed, but its files are missing",
            hint="Copy the folder again, or name an older checkpoint in it.",
        )
    for name in (MODEL_FILE, storage.join("export", MODEL_FILE)):
        if storage.exists(storage.join(folder, name)):
            return Found(KERAS, storage.join(folder, name))
    candidates = sorted({_V2_SUFFIX.sub("", name) for name in _checkpoints_of(folder)})
    if len(candidates) == 1:
        return locate(candidates[0])
    raise CheckpointError(
        f"The folder {folder} " + ("has several checkpoints and no file that says which is newest" if candidates else "has no checkpoint"),
        received=", ".join(os.path.basename(name) for name in candidates[:5]) or None,
        expected="one of them" if candidates else EXPECTED,
    )


def _newest(state: str) -> str | None:
    import google.protobuf.text_format as text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    parsed = CheckpointState()
    try:
        text_format.Parse(state, parsed)
    except text_format.ParseError:
        return None
    return parsed.model_checkpoint_path or None


def _check_complete(prefix: str) -> None:
    shards = [match for file in storage.glob(glob.escape(prefix) + ".data-*") if (match := re.search(r"-(\d{5})-of-(\d{5})$", file))]
    expected = int(shards[0][2]) if shards else 1
    if len(shards) < expected:
        raise CheckpointError(
            f"The checkpoint {prefix} is not complete",
            received=f"{len(shards)} of its {expected} data files",
            hint="Copy it again, or name an older one.",
        )


def _checkpoints_of(folder: str) -> list[str]:
    patterns = ("*.index", "*.ckpt", "*.keras", "*.h5")
    return [name for pattern in patterns for name in storage.glob(storage.join(glob.escape(folder), pattern)) if not storage.is_dir(name)]
