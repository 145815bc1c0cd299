"""The model folder: names of what is in it, and what model.json says. It imports no TensorFlow.

saved_model/  what is served and evaluated       labels.txt  class names by id (labels.<task>.txt of several tasks)
model.keras   to train on                        model.json  flags, data, warm start, versions, metrics
"""

from __future__ import annotations

import json
from typing import Any

from tf_image_classification import storage
from tf_image_classification.errors import DataError

SAVED_MODEL, KERAS_MODEL, FACTS = "saved_model", "model.keras", "model.json"
EXPECTED = f"a folder with {SAVED_MODEL}/, {FACTS} and labels, as training exports it"


def read_facts(folder: str) -> dict[str, Any]:
    """The content of model.json.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    path = storage.join(folder, FACTS)
    try:
        facts = json.loads(storage.read_text(path))
    except FileNotFoundError:
        raise DataError(f"This is no model folder: it has no {FACTS}", received=folder, expected=EXPECTED) from None
    except ValueError as error:
        raise DataError(
            f"{path} cannot be read",
            received=repr(error),
            expected="what training wrote",
            hint="Export the model again.",
        ) from error
    if not isinstance(facts, dict):
        raise DataError(f"{path} cannot be read", received=type(facts).__name__, expected="what training wrote")
    return facts
