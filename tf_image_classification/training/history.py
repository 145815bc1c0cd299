"""The history of a training: loss, learning rate and metrics, recorded beside its checkpoints."""

from __future__ import annotations

import json
import os
from typing import Any

from tf_image_classification import storage

HISTORY_FILE = "history.jsonl"  # an object a line: {"kind": "train" or "eval", "step": int, name: float, ..}


class History:
    """Appends to the history of a training.

    Args:
        model_dir: local folder.
        start_step: entries after it are removed first: a resumed training makes these steps again.

    Attributes:
        entries: those of before, up to `start_step`.
    """

    def __init__(self, model_dir: str, start_step: int) -> None:
        self._path = os.path.join(model_dir, HISTORY_FILE)
        self.entries = [entry for entry in read_history(model_dir) if entry["step"] <= start_step]
        storage.write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in self.entries))

    def has_evaluation(self, step: int) -> bool:
        """Whether the entries of before have an evaluation at a global step."""
        return any(entry["kind"] == "eval" and entry["step"] == step for entry in self.entries)

    def add(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Appends the values at a global step. `kind` is train or eval."""
        with open(self._path, "a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """The entries of a local or gs:// folder, in order, up to a line that is none, as one that a kill has truncated."""
    entries: list[dict[str, Any]] = []
    # Not storage.read_bytes: a mount may show an older version.
    content, _ = storage.read_version(storage.join(model_dir, HISTORY_FILE))
    for line in (content or b"").decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_entry(entry):
            break
        entries.append(entry)
    return entries


def _is_entry(entry: object) -> bool:
    """Whether a line of a history is one that `History.add` writes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int) or not isinstance(entry.get("kind"), str):
        return False
    return all(isinstance(value, (int, float)) for name, value in entry.items() if name != "kind")
