"""The model folder that training exports: its files, and the content of model.json. Imports no TensorFlow.

saved_model/   TensorFlow SavedModel that is evaluated and served: encoded images -> scores (see `export.Serving`)
model.keras    the Keras model, to continue from: images -> logits
labels.txt     one class name per line, by class id; of several tasks labels.<task>.txt
model.json     JSON object: `format` (1), `tasks`, `image_size`, `digest` of the weights, and as training adds them
               flags, data fingerprint, warm start, metrics, versions of packages, and of an --estimator SHA-256
               hashes: `packages` (file name -> hash of each of --packages), `estimator_source` ('' where not known)
"""

from __future__ import annotations

import json
from typing import Any

from tf_image_classification import storage
from tf_image_classification.errors import DataError

EXPORT_DIR = "export"  # the model folder in a --model_dir
SAVED_MODEL, KERAS_MODEL, FACTS = "saved_model", "model.keras", "model.json"
# The SavedModel's signature and its names, as servers and `evaluate` call it, see `export.Serving`.
SIGNATURE, INPUT = "serving_default", "image_bytes"
SCORES, CLASSES = "scores", "classes"  # outputs, each after `output_prefix`
_TYPES = {
    "digest": str,
    "data_fingerprint": str,
    "flags": dict,
    "tasks": list,
    "warm_start": dict | None,
    "packages": dict,
    "estimator_source": str,
}
EXPECTED = f"a folder with {SAVED_MODEL}/, {FACTS} and labels, as training exports it"


def output_prefix(task: str, num_tasks: int) -> str:
    """The prefix of a task's output names, in a model of so many tasks: `<task>_`, or nothing for the only one."""
    return f"{task}_" if num_tasks > 1 else ""


def read_facts(folder: str) -> dict[str, Any]:
    """The content of a model folder's model.json.

    Args:
        folder: local, mounted or gs:// path.

    Raises:
        DataError: model.json is not found, is not a JSON object, or an entry has another type than training writes.
    """
    storage.restore_dir(folder)
    path = storage.join(folder, FACTS)
    try:
        facts = json.loads(storage.read_text(path))
    except FileNotFoundError:
        raise DataError(f"Not a model folder: {FACTS} not found", received=folder, expected=EXPECTED) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read",
            received=repr(error),
            expected="JSON as training writes it",
            hint="Export the model again.",
        ) from error
    if not isinstance(facts, dict):
        raise DataError(
            f"{path} cannot be read", received=type(facts).__name__, expected="a JSON object as training writes it"
        )
    for name, kind in _TYPES.items():
        if name in facts and not isinstance(facts[name], kind):
            raise DataError(
                f"{path} cannot be read",
                received=f"`{name}` of type {type(facts[name]).__name__}",
                expected=f"{getattr(kind, '__name__', kind)}, as training writes it",
                hint="Export the model again.",
            )
    return facts
