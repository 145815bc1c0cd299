"""metrics.json as the Model Registry stores and shows it: one ModelEvaluation of a version for each task."""

from __future__ import annotations

from typing import Any

from google.cloud import aiplatform_v1 as vertex

from tf_image_classification.evaluation_folder import Metrics, by_task, confusion_matrix
from tf_image_classification.promotion.google_errors import RETRY

_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/{}_metrics_1.0.0.yaml"


def attach(client: vertex.ModelServiceClient, version: str, metrics: Metrics, run: str) -> None:
    """Imports the evaluations of a version into the registry.

    Idempotent: an evaluation is found by its display name, and imported only if the version lacks it.

    Args:
        client: of the version's region.
        version: .../models/ID@VERSION.
        metrics: content of the metrics.json that `evaluate` wrote.
        run: the pipeline run that evaluated, a name or a resource name; or ''.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    for evaluation in _evaluations(metrics, run):

        def import_if_missing(evaluation: vertex.ModelEvaluation = evaluation) -> None:
            existing = client.list_model_evaluations(parent=version, retry=RETRY)
            if evaluation.display_name not in (one.display_name for one in existing):
                client.import_model_evaluation(parent=version, model_evaluation=evaluation, timeout=60)

        RETRY(import_if_missing)()


def _evaluations(metrics: Metrics, run: str) -> list[vertex.ModelEvaluation]:
    metadata = {"pipeline_job_id": run.rpartition("/")[2]} if run else {}
    evaluations = []
    for task, values in by_task(metrics).items():
        is_classification = "accuracy" in values
        evaluations.append(
            vertex.ModelEvaluation(
                display_name=task or "evaluation",
                metrics_schema_uri=_SCHEMA.format("classification" if is_classification else "regression"),
                metrics=_classification(values) if is_classification else _regression(values),
                metadata=metadata,
            )
        )
    return evaluations


def _classification(metrics: Metrics) -> dict[str, Any]:
    """Fields of classification_metrics_1.0.0.yaml. With many classes, the matrix has the most confused ones only.

    With one label and one prediction for each image, micro-averaged precision, recall and F1 all equal the accuracy.
    """
    labels, matrix = confusion_matrix(metrics)
    micro = dict.fromkeys(("precision", "recall", "f1Score", "f1ScoreMicro"), metrics["accuracy"])
    return {
        "logLoss": metrics["loss"],
        "confidenceMetrics": [
            {"confidenceThreshold": 0.0, "maxPredictions": 1, **micro, "f1ScoreMacro": metrics["macro_f1"]}
        ],
        "confusionMatrix": {
            "annotationSpecs": [{"id": str(number), "displayName": label} for number, label in enumerate(labels)],
            "rows": matrix,
        },
    }


def _regression(metrics: Metrics) -> dict[str, Any]:
    """Fields of regression_metrics_1.0.0.yaml."""
    return {
        "rootMeanSquaredError": metrics["root_mean_squared_error"],
        "meanAbsoluteError": metrics["mean_absolute_error"],
    }
