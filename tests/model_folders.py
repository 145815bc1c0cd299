"""Model folders with bytes in place of a model, for tests that load none."""

from __future__ import annotations

import json
from pathlib import Path

from tf_image_classification import model_folder

DIGEST = "0123456789abcdef" * 4
FILES = {
    "labels.txt": b"cat\ndog\n",
    "model.keras": b"weights",
    "saved_model/saved_model.pb": b"graph",
    "saved_model/variables/variables.data-00000-of-00001": b"values",
}


def write(folder: Path, **facts: object) -> Path:
    """Writes a model folder as `export` does; keyword arguments replace facts."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    tasks = [{"name": "label", "labels_file": "labels.txt", "num_classes": 2, "one_hot": True}]
    content = {"format": 1, "tasks": tasks, "digest": DIGEST, "files": model_folder.hashes(str(folder)), **facts}
    (folder / "model.json").write_text(json.dumps(content))
    return folder
