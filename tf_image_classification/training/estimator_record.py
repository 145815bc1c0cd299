"""The training folder's record of the estimator's code: a training that is continued with other code is warned of."""

from __future__ import annotations

import json
import logging
import os

from tf_image_classification import storage
from tf_image_classification.errors import DataError
from tf_image_classification.estimator_code import EstimatorCode
from tf_image_classification.training.training_folder import ESTIMATOR_FILE, TrainingFolder

_log = logging.getLogger(__name__)


def update(folder: TrainingFolder, code: EstimatorCode, start: int, train_steps: int) -> None:
    """Records the code that trains from here on, and warns if the steps before were made with other code.

    Args:
        folder: the training's.
        code: of the estimator; nothing is recorded of one whose code is not known.
        start: the global step at which the training starts.
        train_steps: where it ends.
    """
    record = os.path.join(folder.local, ESTIMATOR_FILE)
    if start and os.path.exists(record):
        for difference in code.differences(_read(record)):
            _log.warning(
                "The code of --estimator is not the one that %s was trained with up to step %d: %s. %s; to train from "
                "the beginning with the new code, give another --model_dir",
                folder.path,
                start,
                difference,
                "The training continues with the new code"
                if start < train_steps
                else "Nothing is trained with the new code, as --train_steps is reached",
            )
    if code.version and (start < train_steps or not os.path.exists(record)):
        storage.write_text(record, json.dumps(code.facts(), indent=2) + "\n")


def _read(record: str) -> dict[str, object]:
    try:
        return storage.read_json(record, expected="the hashes of the estimator's code")
    except DataError:
        return {}
