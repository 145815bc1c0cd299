"""Step 3: scores the SavedModel that would ship on the evaluation split, in one streaming pass.

    evaluate(model_dir, data_dir, output_dir, batch_size=32)

writes `metrics.json`, `report.html` and `predictions.csv` (one row per image) into output_dir; `evaluation_folder`
names these files and reads metrics.json.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from tf_image_classification import flags, storage, versions
from tf_image_classification.data import manifest
from tf_image_classification.errors import UserError
from tf_image_classification.evaluation_folder import METRICS, PREDICTIONS, REPORT

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.evaluate.evaluation_loop import EvaluationResult
    from tf_image_classification.evaluate.served_model import ServedModel

__all__ = ["evaluate"]

_log = logging.getLogger(__name__)

_PACKAGES = ("tf-image-classification", "tensorflow", "tensorflow-cpu", "numpy")
_MODEL_FACTS = ("model_name", "estimator", "image_size", "data_fingerprint", "digest")


def evaluate(
    model_dir: str,
    eval_data: manifest.Manifest | str,
    output_dir: str,
    *,
    batch_size: int,
    spec: EstimatorSpec | None = None,
) -> dict[str, Any]:
    """Scores the evaluation split of a data set with a model and writes metrics, predictions and a report.

    Args:
        model_dir: model folder, as training exports it.
        eval_data: a data set, or the folder of one that build_tfrecords built.
        output_dir: replaced as a whole, once all files are complete.
        batch_size: images per call of the serving signature.
        spec: its `metric_ops` are reported as `user_metrics`. Its `flags` are set to those that the model was trained
            with and, if it has no tasks, its tasks to the model's.

    Returns:
        The content of metrics.json: JSON values, all numbers finite. The metrics of a single task are at the top level;
        those of several tasks are under `tasks`, by name.

    Raises:
        FlagError: the model folder does not exist, or output_dir cannot be written.
        DataError: model or data cannot be used; see `evaluation_loop.run`.
        UserError: the disk is full, or a batch does not fit into memory.
    """
    from tf_image_classification.evaluate import evaluation_loop, report, served_model

    data = manifest.read(eval_data) if isinstance(eval_data, str) else eval_data
    storage.check_replaceable(output_dir, METRICS, [model_dir, data.folder])
    try:
        with storage.replacing_dir(output_dir, METRICS) as staging, served_model.load(model_dir) as served:
            if spec:
                _configure(spec, served)
            predictions_path = os.path.join(staging, PREDICTIONS)
            result = evaluation_loop.run(served, data, predictions_path, batch_size=batch_size, spec=spec)
            metrics = _assemble(result, data, served)
            storage.write_text(os.path.join(staging, METRICS), to_json(metrics))
            storage.write_text(os.path.join(staging, REPORT), report.render(metrics, result.mistakes, served.facts))
    except OSError as error:
        raise UserError(
            "The evaluation cannot be written",
            received=f"{output_dir}: {error.strerror or error}",
            hint="Free some disk space.",
        ) from error
    return metrics


def to_json(metrics: dict[str, Any]) -> str:
    """The text of metrics.json: one line per top-level entry, so that large confusion matrices stay readable."""
    entries = (
        f"{json.dumps(name)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
        for name, value in metrics.items()
    )
    return "{\n  " + ",\n  ".join(entries) + "\n}\n"


def _configure(spec: EstimatorSpec, served: ServedModel) -> None:
    """Sets the spec's flags to those of the model's training, and its tasks unless it defines them.

    Warns if the model was trained with other code.
    """
    for difference in spec.code.differences(served.facts):
        _log.warning("--estimator is not the code that %s was trained with: %s", served.folder, difference)
    recorded = served.facts.get("flags")
    spec.flags = flags.Flags(**(recorded if isinstance(recorded, dict) else {}))
    spec.set_default_class_dict(served.tasks)


def _assemble(result: EvaluationResult, data: manifest.Manifest, served: ServedModel) -> dict[str, Any]:
    """The content of metrics.json."""
    split = data.splits[manifest.EVAL]
    only_task = next(iter(result.tasks.values())) if len(result.tasks) == 1 else None
    return {
        **(only_task or {"num_examples": split.examples, "tasks": result.tasks}),
        "user_metrics": result.user_metrics,
        "model": {
            "folder": served.folder,
            "sha256": served.sha256,
            **{name: served.facts.get(name) for name in _MODEL_FACTS},
        },
        "data": {
            "source": data.sources.get(manifest.EVAL, data.sources.get(manifest.TRAIN)),
            "images": split.images,
            "rejected": split.rejected,
        },
        "data_fingerprint": data.fingerprint,
        "versions": versions.installed(*_PACKAGES),
    }
