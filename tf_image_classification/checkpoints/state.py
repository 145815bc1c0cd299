"""TensorFlow's `checkpoint` file, which says what checkpoints a folder has: read and written wherever the folder
lies."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tf_image_classification import storage
from tf_image_classification.errors import CheckpointError

FILE = "checkpoint"


def latest(folder: str) -> str | None:
    """The path of the newest checkpoint that a local or gs:// folder lists; None when it lists none."""
    content, _ = storage.read_version(storage.join(folder, FILE))  # as it is now: a mount may show an older one
    return None if content is None else storage.join(folder, list(parse(content.decode(), folder))[-1])


def parse(text: str, folder: str) -> dict[str, float]:
    """Name -> time in seconds of the checkpoints in the text of a `checkpoint` file, oldest first.

    A folder may have been moved since: its checkpoints are beside the file, wherever that says they are.

    Raises:
        CheckpointError: the text is not of this kind or names none.
    """
    import google.protobuf.text_format as text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    parsed = CheckpointState()
    try:
        text_format.Parse(text, parsed)
    except text_format.ParseError:
        parsed.Clear()
    if not parsed.model_checkpoint_path:
        raise CheckpointError(
            f"{storage.join(folder, FILE)} names no checkpoint", expected="a file as TensorFlow writes it"
        )
    # TensorFlow 1 writes no times.
    times = list(parsed.all_model_checkpoint_timestamps) or [0.0] * len(parsed.all_model_checkpoint_paths)
    listed = {os.path.basename(path): time for path, time in zip(parsed.all_model_checkpoint_paths, times, strict=True)}
    newest = os.path.basename(parsed.model_checkpoint_path)
    return {name: time for name, time in listed.items() if name != newest} | {newest: listed.get(newest, 0.0)}


def render(listed: Mapping[str, float]) -> str:
    """The text of a `checkpoint` file, of which `parse` gives `listed` back."""
    import google.protobuf.text_format as text_format
    from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

    names = list(listed)
    return text_format.MessageToString(
        CheckpointState(
            model_checkpoint_path=names[-1],
            all_model_checkpoint_paths=names,
            all_model_checkpoint_timestamps=list(listed.values()),
        )
    )
