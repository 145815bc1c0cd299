from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tf_image_classification import evaluation_folder
from tf_image_classification.evaluate import confusion, report
from tf_image_classification.evaluate.metrics import ClassificationMetrics, RegressionMetrics, rank_predictions

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


def random_batches(examples: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, examples)
    logits = rng.normal(0, 2, (examples, classes)) + 2 * np.eye(classes)[ids]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return ids, scores.astype(np.float32)


def measured(ids: np.ndarray, scores: np.ndarray, labels=LABELS, num_known: int | None = None, batch: int = 32) -> dict:
    metrics = ClassificationMetrics(labels, len(labels) if num_known is None else num_known)
    for start in range(0, len(ids), batch):
        part = slice(start, start + batch)
        metrics.update(ids[part], scores[part], rank_predictions(ids[part], scores[part]))
    return metrics.result()


def test_the_metrics_are_those_of_scikit_learn():
    ids, scores = random_batches(500, 7)
    found = measured(ids, scores)
    exact = scores / scores.sum(axis=1, keepdims=True, dtype=np.float64)
    predicted = scores.argmax(axis=1)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(ids, predicted)
    assert found["num_examples"] == 500
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(ids, predicted))
    assert found["loss"] == pytest.approx(sklearn_metrics.log_loss(ids, exact), rel=1e-5)
    assert found["top_5_accuracy"] == pytest.approx(sklearn_metrics.top_k_accuracy_score(ids, scores, k=5))
    assert found["confusion_matrix"] == sklearn_metrics.confusion_matrix(ids, predicted).tolist()
    assert [row["precision"] for row in found["per_class"]] == pytest.approx(precision)
    assert [row["recall"] for row in found["per_class"]] == pytest.approx(recall)
    assert [row["f1"] for row in found["per_class"]] == pytest.approx(f1)
    assert [row["support"] for row in found["per_class"]] == support.tolist()
    assert (found["macro_precision"], found["macro_recall"], found["macro_f1"]) == pytest.approx(
        (precision.mean(), recall.mean(), f1.mean())
    )


def test_curves_from_histograms_are_within_a_thousandth_of_exact_ones():
    ids, scores = random_batches(2000, 3)
    for curve, index in zip(measured(ids, scores, "abc")["curves"], range(3), strict=True):
        assert curve["roc_auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(ids == index, scores[:, index]), abs=1e-3
        )
        assert curve["average_precision"] == pytest.approx(
            sklearn_metrics.average_precision_score(ids == index, scores[:, index]), abs=2e-3
        )
        assert curve["true_positive_rate"][-1] == curve["false_positive_rate"][-1] == 1


def test_how_examples_are_batched_does_not_change_the_counts():
    ids, scores = random_batches(100, 7)
    one, many = measured(ids, scores, batch=100), measured(ids, scores, batch=7)
    assert one["confusion_matrix"] == many["confusion_matrix"]
    assert one["loss"] == pytest.approx(many["loss"], rel=1e-12)


def test_a_class_without_examples_counts_as_zero_and_stays_out_of_the_macro_averages():
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    found = measured(np.array([0, 1, 0]), scores, ("ant", "bee", "cat"))
    assert found["per_class"][2] == {"name": "cat", "precision": 0, "recall": 0, "f1": 0, "support": 0, "predicted": 0}
    assert found["macro_recall"] == pytest.approx((0.5 + 1) / 2)
    json.dumps(found, allow_nan=False)


def test_a_true_class_with_score_zero_costs_much_but_not_infinity():
    found = measured(np.array([1]), np.array([[1, 0]], np.float32), ("ant", "bee"))
    assert found["loss"] == pytest.approx(87.336, abs=1e-3)


def test_a_constant_model_does_not_get_the_top_5_for_free():
    found = measured(np.arange(7), np.full((7, 7), 1 / 7, np.float32))
    assert (found["accuracy"], found["top_5_accuracy"]) == (pytest.approx(1 / 7), pytest.approx(5 / 7))


def test_a_class_that_the_model_does_not_know_can_only_be_a_mistake():
    ids, scores = np.array([0, 2]), np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    found = measured(ids, scores, ("ant", "bee", "new"), num_known=2)
    assert (found["accuracy"], found["top_5_accuracy"], found["unknown_labels"]) == (0.5, 0.5, ["new"])
    assert found["confusion_matrix"] == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_examples_without_a_label_are_counted_and_left_out():
    found = measured(np.array([0, -1, 1]), np.array([[0.9, 0.1]] * 3, np.float32), ("ant", "bee"))
    assert (found["num_examples"], found["unlabelled"], found["accuracy"]) == (2, 1, 0.5)


def test_calibration_error_is_the_distance_of_score_and_accuracy_weighted_by_bin():
    scores = np.array([[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 6, np.float32)
    ids = np.array([0, 0, 0, 1, 0, 0, 0, 1, 1, 1])  # 3 of 4 right at 0.95, 3 of 6 at 0.65
    calibration = measured(ids, scores, ("ant", "bee"))["calibration"]
    assert calibration["expected_calibration_error"] == pytest.approx(0.4 * 0.20 + 0.6 * 0.15, abs=1e-6)
    assert [(row["examples"], row["accuracy"]) for row in calibration["bins"] if row["examples"]] == [
        (6, 0.5),
        (4, 0.75),
    ]


def test_a_regression_is_measured_by_its_errors():
    metrics = RegressionMetrics()
    metrics.update(np.array([1, 2], np.float32), np.array([2, 2], np.float32))
    metrics.update(np.array([5], np.float32), np.array([2], np.float32))
    assert metrics.result() == pytest.approx(
        {"num_examples": 3, "loss": 10 / 3, "root_mean_squared_error": (10 / 3) ** 0.5, "mean_absolute_error": 4 / 3}
    )


def test_memory_does_not_grow_with_the_number_of_images():
    ids, scores = random_batches(32, 7)
    metrics = ClassificationMetrics(LABELS, 7)

    def count(batches: int) -> int:
        for _ in range(batches):
            metrics.update(ids, scores, rank_predictions(ids, scores))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        count(5)
        assert count(500) - count(5) < 2000
    finally:
        tracemalloc.stop()


def test_of_many_classes_the_pairs_that_occur_say_what_the_matrix_does(monkeypatch):
    ids, scores = random_batches(300, 7)
    ids[:20] = 8  # a class that the model does not know
    labels = (*LABELS, "hen", "ibis")
    matrix = measured(ids, scores, labels, num_known=7)
    monkeypatch.setattr(confusion, "MAX_MATRIX_CLASSES", 5)
    pairs = measured(ids, scores, labels, num_known=7)
    assert pairs.pop("confusions") == [
        [true, predicted, count]
        for true, row in enumerate(matrix.pop("confusion_matrix"))
        for predicted, count in enumerate(row)
        if count
    ]
    assert pairs == matrix


def test_a_hundred_thousand_classes_take_megabytes_not_the_gigabytes_of_their_matrix():
    labels = [f"class {number}" for number in range(100_000)]
    ids = np.array([5, 99_999, 7])
    scores = np.full((3, 100_000), 1e-6, np.float32)
    scores[[0, 1, 2], [5, 3, 7]] = 0.9
    tracemalloc.start()
    metrics = ClassificationMetrics(labels, len(labels))
    metrics.update(ids, scores, rank_predictions(ids, scores))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = metrics.result()
    assert found["confusions"] == [[5, 5, 1], [7, 7, 1], [99_999, 3, 1]]
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert evaluation_folder.most_confused(found, 3) == [("class 99999", "class 3", 1, 1.0)]
    names, matrix = evaluation_folder.confusion_matrix(found)
    assert (len(names), sum(map(sum, matrix))) == (evaluation_folder.MAX_MATRIX_CLASSES, 3)
    assert used < 20e6


def test_the_report_of_a_hundred_thousand_classes_has_the_size_of_a_page():
    labels = [f"class {number}" for number in range(100_000)]
    scores = np.full((1, 100_000), 1e-6, np.float32)
    scores[0, 3] = 0.9
    metrics = {
        **measured(np.array([5]), scores, labels),
        "user_metrics": {},
        "model": {"folder": "/model", "image_size": 8, "data_fingerprint": ""},
        "data": {"source": "/data", "rejected": 0},
        "data_fingerprint": "",
        "versions": {},
    }
    page = report.render(metrics, {"label": []}, {})
    assert "There are too many classes for a matrix" in page
    assert "99,000 classes with a higher F1, or without images, are in metrics.json only" in page
    assert "1 wrong of 1" in page
    assert len(page) < 2e6
