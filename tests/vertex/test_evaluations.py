"""What the Model Registry shows of an evaluation."""

from __future__ import annotations

import numpy as np
from google.protobuf import json_format

from tf_image_classification.vertex.registry import register


def _metrics(evaluation):
    return json_format.MessageToDict(type(evaluation).pb(evaluation))["metrics"]


def test_a_version_has_the_metrics_of_its_evaluation(vertex, arguments):
    register(**arguments("one"))
    (evaluation,) = vertex.models.evaluations["pets", "1"]
    assert _metrics(evaluation) == {
        "logLoss": 0.25,
        "confidenceMetrics": [
            {
                "confidenceThreshold": 0,
                "maxPredictions": 1,
                "precision": 0.9,
                "recall": 0.9,
                "f1Score": 0.9,
                "f1ScoreMicro": 0.9,
                "f1ScoreMacro": 0.88,
            }
        ],
        "confusionMatrix": {
            "annotationSpecs": [{"id": "0", "displayName": "cat"}, {"id": "1", "displayName": "dog"}],
            "rows": [[5, 0], [1, 4]],
        },
    }
    assert dict(evaluation.metadata) == {"pipeline_job_id": "weekly-20261125"}


def test_each_task_is_an_evaluation_of_its_own(vertex, arguments):
    breed = arguments("one")["metrics"]
    age = {"num_examples": 10, "loss": 4.0, "root_mean_squared_error": 2.0, "mean_absolute_error": 1.5}
    metrics = {"model": breed["model"], "loss": 4.25, "tasks": {"breed": breed, "age": age}}
    register(**arguments("one", metrics=metrics))
    evaluations = {one.display_name: one for one in vertex.models.evaluations["pets", "1"]}
    assert evaluations["breed"].metrics_schema_uri.endswith("/classification_metrics_1.0.0.yaml")
    assert evaluations["age"].metrics_schema_uri.endswith("/regression_metrics_1.0.0.yaml")
    assert _metrics(evaluations["age"]) == {"rootMeanSquaredError": 2.0, "meanAbsoluteError": 1.5}


def test_the_matrix_of_many_classes_is_cut_to_the_most_confused_ones(vertex, arguments):
    classes = 300
    matrix = np.eye(classes, dtype=int)
    matrix[7, 9] = 5
    many = arguments("one")["metrics"] | {
        "labels": [f"class {number}" for number in range(classes)],
        "confusion_matrix": matrix.tolist(),
    }
    register(**arguments("one", metrics=many))
    shown = _metrics(vertex.models.evaluations["pets", "1"][0])["confusionMatrix"]
    names = [one["displayName"] for one in shown["annotationSpecs"]]
    assert len(names) == 40 and {"class 7", "class 9", "(other classes)"} <= set(names)
    assert sum(map(sum, shown["rows"])) == classes + 5
