"""TensorFlow's `checkpoint` file, which lists the checkpoints of a folder: read and written locally and on gs://.

`tf.train.CheckpointManager` and TensorFlow 1's `Saver` keep this file beside their checkpoints: a CheckpointState
protocol buffer (tensorflow/python/training/checkpoint_state.proto) in text format. TensorFlow's own functions for
it need a file system that TensorFlow knows; this project never gives it gs:// paths.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tf_image_classification import storage
from tf_image_classification.errors import CheckpointError

FILE = "checkpoint"


def latest(folder: str) -> str | None:
    """The newest checkpoint of a folder, as `tf.train.latest_checkpoint`, for local and gs:// folders.

    Returns:
        Prefix of the checkpoint, in `folder`; None when the folder has no such file.

    Raises:
        CheckpointError: it cannot be parsed or names no checkpoint.
    """
    content, _ = storage.read_version(storage.join(folder, FILE))  # not through a mount, which may cache an older one
    return None if content is None else storage.join(folder, list(parse(content, folder))[-1])


def remove_unfinished(folder: str, name: str) -> None:
    """Removes the folders in which TensorFlow assembles a checkpoint, left by a kill or a full disk.

    Args:
        folder: local; nothing else may be writing to it.
        name: of the checkpoints, without the step.
    """
    for leftover in Path(folder).glob(f"{name}-*_temp"):
        shutil.rmtree(leftover, ignore_errors=True)


def parse(content: bytes, folder: str) -> dict[str, float]:
    """Parses the content of a `checkpoint` file.

    Only the names of its paths count: a folder that was moved or copied has its checkpoints beside this file.

    Args:
        folder: where the file is, for the error.

    Returns:
        Base name of each checkpoint's prefix -> time it was written, in seconds since 1970 (0.0 in files of
        TensorFlow 1, which have no times), oldest first.

    Raises:
        CheckpointError: the content is not a CheckpointState message, or names no checkpoint.
    """
    import google.protobuf.text_format as text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    parsed = CheckpointState()
    try:
        text_format.Parse(content.decode(), parsed)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(folder, error) from error
    times = list(parsed.all_model_checkpoint_timestamps) or [0.0] * len(parsed.all_model_checkpoint_paths)
    if len(times) != len(parsed.all_model_checkpoint_paths):
        raise _damaged(folder, f"{len(times)} times of {len(parsed.all_model_checkpoint_paths)} checkpoints")
    by_name = {
        os.path.basename(path): time for path, time in zip(parsed.all_model_checkpoint_paths, times, strict=True)
    }
    newest = os.path.basename(parsed.model_checkpoint_path)
    for name in (newest, *by_name):
        if name in ("", ".", "..") or not name.isprintable():
            raise _damaged(folder, f"{name!r} as the name of a checkpoint")
    return {name: time for name, time in by_name.items() if name != newest} | {newest: by_name.get(newest, 0.0)}


def _damaged(folder: str, reason: object) -> CheckpointError:
    return CheckpointError(
        f"{storage.join(folder, FILE)} names no checkpoint: it is damaged",
        received=reason,
        expected="a file as TensorFlow writes it",
        hint="Copy or download the folder again, or name one of its checkpoints.",
    )


def render(checkpoints: Mapping[str, float]) -> str:
    """The text of a `checkpoint` file: the inverse of `parse`.

    Args:
        checkpoints: base name of each checkpoint's prefix -> time in seconds since 1970, oldest first; at least one.
    """
    import google.protobuf.text_format as text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    names = list(checkpoints)
    return text_format.MessageToString(
        CheckpointState(
            model_checkpoint_path=names[-1],
            all_model_checkpoint_paths=names,
            all_model_checkpoint_timestamps=list(checkpoints.values()),
        )
    )
