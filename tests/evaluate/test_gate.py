from __future__ import annotations

import subprocess
import sys

import pytest

from tf_image_classification import flags
from tf_image_classification.evaluate.gate import judge

GOOD = {
    "accuracy": 0.95,
    "macro_f1": 0.9,
    "loss": 0.2,
    "per_class": [
        {"name": "cat", "recall": 0.99, "support": 90},
        {"name": "dog", "recall": 0.6, "support": 10},
        {"name": "fox", "recall": 0.0, "support": 0},
    ],
}


def thresholds(**values: object) -> flags.Flags:
    return flags.validate(values, [flag.name for flag in flags.of_step(flags.GATE_STEP)])


def test_without_thresholds_every_model_passes():
    verdict = judge(GOOD, thresholds())
    assert verdict.passed
    assert verdict.reasons == ["no threshold is set"]


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ({"min_accuracy": 0.95}, True),
        ({"min_accuracy": 0.951}, False),
        ({"min_macro_f1": 0.9}, True),
        ({"min_macro_f1": 0.91}, False),
        ({"min_class_recall": 0.6}, True),
        ({"min_class_recall": 0.61}, False),
        ({"max_loss": 0.2}, True),
        ({"max_loss": 0.19}, False),
        ({"max_loss": -1}, True),
    ],
)
def test_each_threshold_is_inclusive_and_enough_to_fail(values: dict, passed: bool):
    assert judge(GOOD, thresholds(**values)).passed is passed


def test_every_check_tells_what_was_received_and_what_is_required():
    reasons = judge(GOOD, thresholds(min_accuracy=0.97, max_loss=0.5)).reasons
    assert reasons == [
        "accuracy is 0.95, required is at least 0.97: FAILED",
        "loss is 0.2, required is at most 0.5",
    ]


def test_of_several_tasks_each_must_pass():
    metrics = {"tasks": {"animal": GOOD, "mood": {**GOOD, "accuracy": 0.5}, "weight": {"loss": 0.1}}}
    verdict = judge(metrics, thresholds(min_accuracy=0.9, max_loss=0.3))
    assert not verdict.passed
    assert [reason for reason in verdict.reasons if reason.endswith("FAILED")] == [
        "mood: accuracy is 0.5, required is at least 0.9: FAILED"
    ]


def test_the_gate_needs_neither_numpy_nor_tensorflow():
    code = "import sys, tf_image_classification.evaluate.gate; print({'numpy', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
