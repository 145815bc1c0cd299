"""Step 3: judges the SavedModel that would ship on the evaluation images, in one streaming pass.

    evaluate(model_dir, data_dir, output_dir, batch_size=32)

writes into output_dir: `metrics.json`, `report.html`, and `predictions.csv` with a line per image.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tf_image_classification import flags, storage, versions
from tf_image_classification.data import manifest
from tf_image_classification.errors import UserError
from tf_image_classification.evaluation_folder import (
    CHAMPION,
    METRICS,
    PREDICTIONS,
    REPORT,
    by_task,
    confusion,
    kfp_metrics,
)

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.evaluate.model import ServedModel
    from tf_image_classification.evaluate.scoring import Scored

__all__ = ["CHAMPION", "METRICS", "PREDICTIONS", "REPORT", "by_task", "confusion", "evaluate", "kfp_metrics"]

_PACKAGES = ("tf-image-classification", "tensorflow", "tensorflow-cpu", "numpy")
_MODEL_FACTS = ("model_name", "image_size", "data_fingerprint", "digest")


def evaluate(
    model_dir: str,
    eval_data: manifest.Manifest | str,
    output_dir: str,
    *,
    batch_size: int,
    spec: EstimatorSpec | None = None,
) -> dict[str, Any]:
    """Scores the evaluation side of a data set with a model and writes what came of it.

    Args:
        model_dir: model folder, as training exports it.
        eval_data: a data set, or the folder of one that build_tfrecords built.
        output_dir: replaced as a whole, once everything is there.
        batch_size: images per call of the serving signature.
        spec: its `metric_ops` are reported as `user_metrics`. It gets the flags and, if it has none, the tasks of the
            model.

    Returns:
        The content of metrics.json: JSON values, all numbers finite. Of one task its metrics stand at the top; of
        several they stand under `tasks`, by name.

    Raises:
        FlagError: the model folder does not exist, or output_dir cannot be written.
        DataError: model or data cannot be used; see `scoring.score`.
        UserError: the disk is full, or a batch does not fit into memory.
    """
    from tf_image_classification.evaluate import model, report, scoring

    data = manifest.read(eval_data) if isinstance(eval_data, str) else eval_data
    storage.check_replaceable(output_dir, METRICS, [model_dir, data.folder])
    try:
        with storage.replacing_dir(output_dir, METRICS) as folder, model.load(model_dir) as served:
            if spec:
                _prepare(spec, served)
            scored = scoring.score(served, data, os.path.join(folder, PREDICTIONS), batch_size=batch_size, spec=spec)
            metrics = _assemble(scored, data, served)
            storage.write_text(os.path.join(folder, METRICS), to_json(metrics))
            storage.write_text(os.path.join(folder, REPORT), report.render(metrics, scored.mistakes, served.facts))
    except OSError as error:
        raise UserError(
            "The evaluation cannot be written",
            received=f"{output_dir}: {error.strerror or error}",
            hint="Free some space.",
        ) from error
    return metrics


def _assemble(scored: Scored, data: manifest.Manifest, served: ServedModel) -> dict[str, Any]:
    side = data.splits[manifest.EVAL]
    only_task = next(iter(scored.tasks.values())) if len(scored.tasks) == 1 else None
    return {
        **(only_task or {"num_examples": side.examples, "tasks": scored.tasks}),
        "user_metrics": scored.user_metrics,
        "model": {"folder": served.folder, **{name: served.facts.get(name) for name in _MODEL_FACTS}},
        "data": {
            "source": data.sources.get(manifest.EVAL, data.sources.get(manifest.TRAIN)),
            "images": side.images,
            "rejected": side.rejected,
        },
        "data_fingerprint": data.fingerprint,
        "versions": versions.installed(*_PACKAGES),
    }


def _prepare(spec: EstimatorSpec, served: ServedModel) -> None:
    recorded = served.facts.get("flags")
    spec.flags = flags.Flags(**(recorded if isinstance(recorded, dict) else {}))
    spec.set_default_class_dict(served.tasks)


def to_json(metrics: dict[str, Any]) -> str:
    """The text of metrics.json: one line for each entry of the top level, so that a large confusion matrix stays
    readable by eye."""
    entries = (
        f"{json.dumps(name)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
        for name, value in metrics.items()
    )
    return "{\n  " + ",\n  ".join(entries) + "\n}\n"
