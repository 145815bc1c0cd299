"""Finds the checkpoint that a --checkpoint_path names: which file or files, and of which kind."""

from __future__ import annotations

import glob
import os
import re
from typing import NamedTuple

from tf_image_classification import storage
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.errors import MAX_NAMES, CheckpointError, MissingCheckpointError
from tf_image_classification.model_folder import EXPORT_DIR, KERAS_MODEL

TENSORFLOW, KERAS, H5 = "TensorFlow checkpoint", ".keras file", ".h5 weights"
EXPECTED = (
    "a slim .ckpt (V1 file or V2 prefix), a TF2 checkpoint prefix, a .keras or .weights.h5 file, "
    "or a folder of checkpoints or of a model that this project exported"
)
_V2_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_SUFFIXES = (".index", ".ckpt", ".keras", ".h5")


class CheckpointLocation(NamedTuple):
    """Where a checkpoint is.

    Attributes:
        kind: `TENSORFLOW`, `KERAS` or `H5`.
        path: local or gs:// path: of the file, or of a TensorFlow V2 checkpoint the prefix of its files
            (`model.ckpt-7` of `model.ckpt-7.index` and `model.ckpt-7.data-00000-of-00001`).
    """

    kind: str
    path: str


def locate(path: str) -> CheckpointLocation:
    """Finds the checkpoint that `path` names.

    Args:
        path: local or gs:// path of a file, of any file of a V2 checkpoint, of a prefix or of a folder. In a folder:
            the newest checkpoint of its `checkpoint` file, else its model file (`model.keras` or
            `export/model.keras`), else its only checkpoint.

    Raises:
        MissingCheckpointError: nothing is found at `path`.
        CheckpointError: the folder has no checkpoint or several of which none is the newest, or the checkpoint is not
            complete.
    """
    path = path.rstrip("/") if len(path) > 1 else path
    prefix = _V2_SUFFIX.sub("", path)
    if storage.exists(prefix + ".index"):
        _check_complete(prefix)
        return CheckpointLocation(TENSORFLOW, prefix)
    if storage.is_dir(path):
        return _locate_in_folder(path)
    if storage.exists(path):
        if path.endswith(".keras"):
            return CheckpointLocation(KERAS, path)
        return CheckpointLocation(H5 if path.endswith((".h5", ".hdf5")) else TENSORFLOW, path)
    if storage.glob(glob.escape(prefix) + ".data-*"):
        raise CheckpointError(f"The checkpoint {prefix} is not complete: its .index file is missing", received=path)
    folder = os.path.dirname(path)
    neighbours = _checkpoints_in(folder) if folder else []
    raise MissingCheckpointError(
        "Checkpoint not found",
        received=path,
        expected=EXPECTED,
        hint=f"The same folder has {', '.join(neighbours[:MAX_NAMES])}." if neighbours else "",
    )


def fetch(location: CheckpointLocation, folder: str) -> str:
    """The local path of a checkpoint: its own, or of a copy that is downloaded to `folder` when it is on gs://.

    Returns:
        Path of the file, or prefix of the files, as in `CheckpointLocation.path`.
    """
    if not storage.is_remote(location.path):
        return location.path
    if location.kind != TENSORFLOW or not storage.exists(index := f"{location.path}.index"):
        return storage.fetch(location.path, folder)
    for file in _data_files(location.path):
        storage.fetch(file, folder)
    return storage.fetch(index, folder).removesuffix(".index")


def _locate_in_folder(folder: str) -> CheckpointLocation:
    if (prefix := checkpoint_file.latest(folder)) is not None:
        if storage.exists(prefix + ".index"):
            _check_complete(prefix)
            return CheckpointLocation(TENSORFLOW, prefix)
        if storage.exists(prefix):
            return CheckpointLocation(TENSORFLOW, prefix)
        raise CheckpointError(
            f"The newest checkpoint of {folder} is not complete: {os.path.basename(prefix)} is "
            "listed, but its files are missing",
            hint="Copy the folder again, or name an older checkpoint in it.",
        )
    for name in (KERAS_MODEL, storage.join(EXPORT_DIR, KERAS_MODEL)):
        if storage.exists(storage.join(folder, name)):
            return CheckpointLocation(KERAS, storage.join(folder, name))
    candidates = _checkpoints_in(folder)
    if not candidates:
        raise CheckpointError(f"The folder {folder} has no checkpoint", expected=EXPECTED)
    if len(candidates) > 1:
        raise CheckpointError(
            f"The folder {folder} has several checkpoints and no `{checkpoint_file.FILE}` file that names the newest",
            received=", ".join(os.path.basename(name) for name in candidates[:MAX_NAMES]),
            expected="the path of one of them",
        )
    return locate(candidates[0])


def _check_complete(prefix: str) -> None:
    """Checks that a V2 checkpoint has as many data files as the name of one of them declares."""
    shards = [match for file in _data_files(prefix) if (match := re.search(r"-(\d{5})-of-(\d{5})$", file))]
    num_shards = int(shards[0][2]) if shards else 1
    if len(shards) < num_shards:
        raise CheckpointError(
            f"The checkpoint {prefix} is not complete",
            received=f"{len(shards)} of its {num_shards} data files",
            hint="Copy it again, or name an older one.",
        )


def _data_files(prefix: str) -> list[str]:
    single = f"{prefix}.data-00000-of-00001"  # nearly every checkpoint has this one alone: found without a listing
    return [single] if storage.exists(single) else storage.glob(glob.escape(prefix) + ".data-*")


def _checkpoints_in(folder: str) -> list[str]:
    """Sorted prefixes and files of a folder that have the names of checkpoints."""
    names = [name for name in storage.names_in(folder) if name.endswith(_SUFFIXES)]
    return sorted({storage.join(folder, _V2_SUFFIX.sub("", name)) for name in names})
