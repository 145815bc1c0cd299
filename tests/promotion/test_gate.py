from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tf_image_classification import flags
from tf_image_classification.errors import DataError
from tf_image_classification.flag_types import GATE_STEP
from tf_image_classification.promotion.gate import decide, read_metrics

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
    return flags.validate(values, [flag.name for flag in flags.of_step(GATE_STEP)])


def test_without_thresholds_every_model_passes():
    decision = decide(GOOD, thresholds())
    assert decision.passed
    assert decision.reasons == ["no thresholds are set"]


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
    assert decide(GOOD, thresholds(**values)).passed is passed


def test_every_reason_has_the_value_and_what_is_required():
    reasons = decide(GOOD, thresholds(min_accuracy=0.97, max_loss=0.5)).reasons
    assert reasons == [
        "accuracy is 0.95 (required: at least 0.97): FAILED",
        "loss is 0.2 (required: at most 0.5)",
    ]


def test_of_several_tasks_each_must_pass():
    metrics = {"tasks": {"animal": GOOD, "mood": {**GOOD, "accuracy": 0.5}, "weight": {"loss": 0.1}}}
    decision = decide(metrics, thresholds(min_accuracy=0.9, max_loss=0.3))
    assert not decision.passed
    assert [reason for reason in decision.reasons if reason.endswith("FAILED")] == [
        "mood: accuracy is 0.5 (required: at least 0.9): FAILED"
    ]


def of_model(digest: str, **values: object) -> dict:
    return {**GOOD, "model": {"digest": digest}, **values}


@pytest.mark.parametrize(
    ("values", "new", "passed"),
    [
        ({}, {"accuracy": 0.951}, True),
        ({}, {"accuracy": 0.95}, False),
        ({}, {"accuracy": 0.949}, False),
        ({"min_improvement": 0.01}, {"accuracy": 0.955}, False),
        ({"min_improvement": 0.01}, {"accuracy": 0.97}, True),
        ({"min_improvement": -0.01}, {"accuracy": 0.945}, True),
        ({"min_improvement": -0.01}, {"accuracy": 0.93}, False),
        ({"champion_metric": "macro_f1"}, {"accuracy": 0.99}, False),
        ({"champion_metric": "macro_f1"}, {"accuracy": 0.5, "macro_f1": 0.91}, True),
        ({"champion_metric": "loss"}, {"loss": 0.19}, True),
        ({"champion_metric": "loss"}, {"loss": 0.21}, False),
        ({"champion_metric": "loss", "min_improvement": 0.05}, {"loss": 0.16}, False),
    ],
)
def test_the_model_in_service_has_to_be_beaten_in_the_metric_and_by_the_margin_of_the_flags(values, new, passed):
    decision = decide(of_model("new", **new), thresholds(**values), of_model("old"))
    assert decision.passed is passed
    assert decision.reasons[-1].endswith("FAILED") is not passed


def test_the_reason_of_the_comparison_has_both_values():
    decision = decide(of_model("new", accuracy=0.9), thresholds(min_accuracy=0.5), of_model("old"))
    assert decision.reasons == [
        "accuracy is 0.9 (required: at least 0.5)",
        "accuracy is 0.9, that of the model in service is 0.95 (required: higher): FAILED",
    ]


def test_the_model_in_service_need_not_beat_itself_but_needs_the_thresholds():
    assert decide(of_model("old"), thresholds(), of_model("old")).passed
    assert not decide(of_model("old"), thresholds(min_accuracy=0.99), of_model("old")).passed


def test_several_tasks_are_compared_by_their_mean_and_regressions_by_their_loss():
    def of_tasks(digest: str, *accuracies: float) -> dict:
        tasks = {str(index): {**GOOD, "accuracy": accuracy} for index, accuracy in enumerate(accuracies)}
        return {"tasks": {**tasks, "weight": {"loss": 0.1}}, "model": {"digest": digest}}

    assert decide(of_tasks("new", 0.9, 0.8), thresholds(), of_tasks("old", 0.95, 0.7)).passed
    assert not decide(of_tasks("new", 0.9, 0.7), thresholds(), of_tasks("old", 0.95, 0.7)).passed
    regression = {"loss": 0.3, "model": {"digest": "new"}}
    assert decide(regression, thresholds(), {"loss": 0.4, "model": {"digest": "old"}}).passed
    assert not decide(regression, thresholds(), {"loss": 0.2, "model": {"digest": "old"}}).passed


def test_the_gate_needs_neither_numpy_nor_tensorflow():
    code = "import sys, tf_image_classification.promotion.gate; print({'numpy', 'tensorflow'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


def test_a_reason_holds_nothing_that_a_terminal_acts_on():
    metrics = {**GOOD, "per_class": [{"name": "cat\x1b[2J", "recall": 0.5, "support": 9}]}
    (reason,) = decide(metrics, thresholds(min_class_recall=0.9)).reasons
    assert reason.startswith("lowest class recall (cat\\x1b[2J) is 0.5")


def test_two_models_without_a_digest_are_not_taken_for_one():
    one, other = of_model("", accuracy=0.9), of_model("", accuracy=0.95)
    assert not decide(one, thresholds(), other).passed
    assert not decide({**one, "model": {}}, thresholds(), {**other, "model": {}}).passed


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"digest": 7}},
        {"tasks": []},
        {"tasks": {}},
        {"tasks": {"color": None}},
        {"loss": None},
        {"loss": float("nan")},
        {"loss": 10**400},
        {"accuracy": "high"},
        {"macro_f1": [1]},
        {"per_class": {}},
        {"per_class": [None]},
        {"per_class": [{"name": 7, "recall": 1.0, "support": 1}]},
        {"per_class": [{"name": "cat", "recall": 1.0}]},
        {"per_class": [{"name": "cat", "recall": 0.0, "support": 0}]},
    ],
)
def test_metrics_of_wrong_types_are_one_paragraph(tmp_path, change):
    for folder in (tmp_path, tmp_path / "champion"):
        folder.mkdir(exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({"model": {"digest": "1"}, **GOOD}))
        read_metrics(str(tmp_path))
        (folder / "metrics.json").write_text(json.dumps({"model": {"digest": "1"}, **GOOD, **change}))
        with pytest.raises(DataError, match=r"metrics\.json cannot be read.*Expected: JSON as evaluate writes it"):
            read_metrics(str(tmp_path))
        (folder / "metrics.json").write_text(json.dumps({"model": {"digest": "1"}, **GOOD}))
