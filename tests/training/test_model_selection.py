"""Which model is exported, and when training stops: --export, --export_metric, --early_stopping_evals, --num_evals."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.parity.support import NumberSpec
from tests.training.support import evaluations, train
from tf_image_classification import built_in_estimator
from tf_image_classification.errors import FlagError
from tf_image_classification.training import history

# Each update of NumberSpec lowers its metric `number`.
WORSENING = {"optimizer": "sgd", "learning_rate": 1.0, "num_evals": 6, "train_steps": 12, "eval_freq": 9}


def numbers(outcome) -> dict[int, float]:
    entries = [entry for entry in history.read_history(outcome.model_dir) if entry["kind"] == "eval"]
    return {entry["step"]: entry["number"] for entry in entries}


def test_the_best_evaluation_is_exported_with_its_metrics(built_data, training_flags, caplog):
    caplog.set_level(logging.INFO)
    outcome = train(built_data, training_flags(**WORSENING, export="best", export_metric="number"), NumberSpec())
    by_step = numbers(outcome)
    assert list(by_step.values()) == sorted(by_step.values(), reverse=True)
    assert outcome.metrics["number"] == by_step[2]
    assert outcome.metrics["global_step"] == 2
    assert "Exporting the model of step 2, the best of 6 evaluations by number" in caplog.text


def test_without_it_the_last_model_is_exported_and_no_other_is_kept(built_data, training_flags):
    outcome = train(built_data, training_flags(**WORSENING), NumberSpec())
    assert outcome.metrics["number"] == numbers(outcome)[12]
    assert not list(Path(outcome.model_dir).glob("best_model*"))


@pytest.mark.parametrize(
    ("num_evals", "expected"),
    [
        (3, [3, 7, 10]),
        pytest.param(1, [10], marks=pytest.mark.slow),
        pytest.param(5, [2, 4, 6, 8, 10], marks=pytest.mark.slow),
        pytest.param(50, [*range(1, 11)], marks=pytest.mark.slow),
    ],
)
def test_evaluations_are_evenly_spaced_with_the_last_at_the_end(num_evals, expected, built_data, training_flags):
    assert evaluations(train(built_data, training_flags(train_steps=10, num_evals=num_evals)).model_dir) == expected


def test_training_stops_after_evaluations_without_an_improvement(built_data, training_flags, caplog):
    caplog.set_level(logging.INFO)
    flags = training_flags(num_evals=10, train_steps=40, early_stopping_evals=2)
    outcome = train(built_data, flags)
    steps = evaluations(outcome.model_dir)
    assert steps[-1] < 40
    assert steps == [*range(4, steps[-1] + 1, 4)]
    assert re.search(rf"Training ends at step {steps[-1]}: 2 evaluations without an improvement", caplog.text)
    again = train(built_data, flags)
    assert again.steps_made == 0
    assert "Nothing to train: --early_stopping_evals has ended the training" in caplog.text


def test_a_metric_that_the_evaluation_does_not_have_is_refused_before_training(built_data, training_flags):
    with pytest.raises(FlagError, match=r"--export_metric.*Received: acuracy.*Did you mean accuracy\?"):
        train(built_data, training_flags(export="best", export_metric="acuracy"))


@pytest.mark.slow
def test_a_best_model_that_was_removed_is_said_and_the_last_one_exported(built_data, training_flags, caplog):
    options = {**WORSENING, "export": "best", "export_metric": "number"}
    outcome = train(built_data, training_flags(**options), NumberSpec())
    Path(outcome.model_dir, "best_model-2.npz").unlink()
    again = train(built_data, training_flags(**options), NumberSpec())
    assert again.metrics["global_step"] == 12
    assert "are not in" in caplog.text


@pytest.mark.slow
def test_an_error_is_better_when_it_is_lower(built_data, training_flags):
    class WithError(built_in_estimator.BuiltInEstimator):
        def metric_ops(self, labels, predictions):
            return {"top_error": 1.0 - super().metric_ops(labels, predictions)["accuracy"]}

    options = {"train_steps": 20, "num_evals": 5, "eval_freq": 9, "export": "best", "export_metric": "top_error"}
    outcome = train(built_data, training_flags(**options), WithError())
    entries = [entry for entry in history.read_history(outcome.model_dir) if entry["kind"] == "eval"]
    assert outcome.metrics["top_error"] == min(entry["top_error"] for entry in entries)


def test_the_best_model_and_the_one_before_it_are_kept(built_data, training_flags):
    improving = {"optimizer": "sgd", "learning_rate": 1.0, "num_evals": 6, "train_steps": 12, "export": "best"}
    outcome = train(built_data, training_flags(**improving, export_metric="loss"), NumberSpec())
    assert {path.name for path in Path(outcome.model_dir).glob("best_model*")} == {
        "best_model-10.npz",
        "best_model-12.npz",
    }


def test_early_stopping_waits_for_the_end_of_the_heads_stage(built_data, training_flags):
    options = {"head_fraction": 0.5, "num_evals": 10, "train_steps": 20, "early_stopping_evals": 1}
    outcome = train(built_data, training_flags(**options))
    assert evaluations(outcome.model_dir)[-1] > 10
