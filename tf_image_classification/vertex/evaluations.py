"""metrics.json as the Model Registry holds and shows it: a ModelEvaluation of a version for each task."""

from __future__ import annotations

from typing import Any

from google.cloud import aiplatform_v1 as vertex

from tf_image_classification.evaluation_folder import Metrics, by_task, confusion_matrix
from tf_image_classification.promotion.google_errors import RETRY

_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/{}_metrics_1.0.0.yaml"


def attach(client: vertex.ModelServiceClient, version: str, metrics: Metrics, run: str) -> None:
    """Gives a version the evaluations that it lacks.

    Args:
        version: .../models/ID@VERSION.
        metrics: what `evaluate` wrote as metrics.json.
        run: of which pipeline run it is, or ''.
    """
    for wanted in _messages(metrics, run):

        def attach_one(evaluation: vertex.ModelEvaluation = wanted) -> None:
            there = client.list_model_evaluations(parent=version, retry=RETRY)
            if evaluation.display_name not in (one.display_name for one in there):
                client.import_model_evaluation(parent=version, model_evaluation=evaluation, timeout=60)

        RETRY(attach_one)()


def _messages(metrics: Metrics, run: str) -> list[vertex.ModelEvaluation]:
    return [
        vertex.ModelEvaluation(
            display_name=task or "evaluation",
            metrics_schema_uri=_SCHEMA.format("classification" if "accuracy" in values else "regression"),
            metrics=_classification(values) if "accuracy" in values else _regression(values),
            metadata={"pipeline_job_id": run.rpartition("/")[2]} if run else {},
        )
        for task, values in by_task(metrics).items()
    ]


def _classification(metrics: Metrics) -> dict[str, Any]:
    """Fields of classification_metrics_1.0.0.yaml; of very many classes, the matrix holds those that are mistaken most.

    With one label and one prediction for each image, micro-averaged precision, recall and F1 are all the accuracy.
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
    return {
        "rootMeanSquaredError": metrics["root_mean_squared_error"],
        "meanAbsoluteError": metrics["mean_absolute_error"],
    }
