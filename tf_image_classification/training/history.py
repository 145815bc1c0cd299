"""The course of a training, recorded beside its checkpoints."""

from __future__ import annotations

import json
import os
from typing import Any

from tf_image_classification import storage

HISTORY_FILE = "history.jsonl"


class History:
    """The course of a training, one JSON object a line; what a resumed training will do again is cut off first."""

    def __init__(self, model_dir: str, start_step: int) -> None:
        self._path = os.path.join(model_dir, HISTORY_FILE)
        kept = [entry for entry in read_history(model_dir) if entry["step"] <= start_step]
        storage.write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def add(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Adds the values of one moment. `kind` is train or eval."""
        with open(self._path, "a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """What `History` wrote into a local or gs:// folder, in order. A line that was cut short by a kill ends it."""
    entries: list[dict[str, Any]] = []
    content, _ = storage.read_version(
        storage.join(model_dir, HISTORY_FILE)
    )  # as it is now: a mount may show an older one
    for line in (content or b"").decode().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
