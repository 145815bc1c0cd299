"""What follows the last step of a training: the evaluation and the export of its model."""

from __future__ import annotations

from typing import Any

from tf_image_classification import export
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.flags import Flags
from tf_image_classification.training import build, precision
from tf_image_classification.training.build import TrainingState
from tf_image_classification.training.evaluator import Evaluator
from tf_image_classification.training.training_folder import TrainingFolder


def evaluate_and_export(
    spec: EstimatorSpec,
    state: TrainingState,
    data: Manifest,
    flags: Flags,
    folder: TrainingFolder,
    evaluator: Evaluator,
    target: str,
    warm_start: dict[str, Any] | None,
) -> dict[str, float]:
    """Evaluates the model at the end of a training, and exports it or the best one.

    Args:
        target: the model folder.
        warm_start: of the training; goes into model.json.

    Returns:
        The metrics of the exported model.
    """
    step = int(state.global_step.numpy())
    with evaluator.exported_weights(step):
        evaluator.evaluate(step)
        folder.finish()  # raises if another training has taken over: only one of them exports
        step = evaluator.selection.load_best() or step
        results = evaluator.compare_splits(step)
        _export(spec, state, data, flags, target, {"warm_start": warm_start, **results})
    return results["metrics"]


def _export(
    spec: EstimatorSpec, state: TrainingState, data: Manifest, flags: Flags, folder: str, facts: dict[str, Any]
) -> None:
    """Writes the model folder; `facts` are added to its model.json."""

    model = state.model
    if precision.of(flags) != precision.FLOAT32:  # what is served computes in float32
        with precision.policy(precision.FLOAT32):
            model = spec.get_model_fn(None)(state.params)
        model.set_weights(state.model.get_weights())
    facts = {
        "model_name": build.model_name(spec, flags),
        "estimator": f"{type(spec).__module__}:{type(spec).__qualname__}",
        **spec.code.facts(),
        "flags": vars(flags),
        "data_fingerprint": data.fingerprint,
        **facts,
    }
    export.export(model, spec, data.tasks, folder, facts, flags.image_size)
