from __future__ import annotations

import numpy as np

from tf_image_classification.evaluation_folder import OTHERS, confusion_matrix, most_confused, scalar_metrics


def test_scalar_metrics_are_flat_finite_numbers():
    metrics = {
        "num_examples": 3,
        "loss": 0.5,
        "per_class": [],
        "calibration": {"expected_calibration_error": 0.1, "bins": []},
        "user_metrics": {"mine": 2.5, "vector": [1.0], "undefined": None},
        "data_fingerprint": "f1",
    }
    assert scalar_metrics(metrics) == {"num_examples": 3.0, "loss": 0.5, "expected_calibration_error": 0.1, "mine": 2.5}


def test_scalar_metrics_of_several_tasks_carry_the_tasks_name():
    found = scalar_metrics(
        {"num_examples": 3, "tasks": {"age": {"loss": 1.0}, "mood": {"loss": 2.0}}, "user_metrics": {"mine": 3.0}}
    )
    assert found == {"num_examples": 3.0, "age_loss": 1.0, "mood_loss": 2.0, "mine": 3.0}


def test_a_small_confusion_matrix_is_returned_as_it_is():
    assert confusion_matrix({"labels": ["a", "b"], "confusion_matrix": [[1, 2], [3, 4]]}) == (
        ["a", "b"],
        [[1, 2], [3, 4]],
    )


def test_a_large_confusion_matrix_keeps_the_confused_classes_and_every_example():
    matrix = np.diag(np.full(100, 7))
    matrix[50, 60] = matrix[60, 50] = 5
    labels, small = confusion_matrix(
        {"labels": [f"class {i}" for i in range(100)], "confusion_matrix": matrix.tolist()}, max_classes=3
    )
    assert labels == ["class 50", "class 60", OTHERS]
    assert small == [[7, 5, 0], [5, 7, 0], [0, 0, 98 * 7]]


def test_there_is_no_single_confusion_matrix_of_several_tasks():
    assert confusion_matrix({"num_examples": 1, "tasks": {}}) == ([], [])


def test_the_most_confused_classes_come_first():
    metrics = {
        "labels": ["a", "b", "c"],
        "confusion_matrix": [[5, 1, 0], [4, 4, 0], [0, 2, 0]],
        "per_class": [{"support": 6}, {"support": 8}, {"support": 2}],
    }
    assert most_confused(metrics, 2) == [("b", "a", 4, 0.5), ("c", "b", 2, 1.0)]
