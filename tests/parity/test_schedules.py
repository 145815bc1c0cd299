"""The learning rate of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.support import NumberSpec, make_flags, numbered_data
from tf_image_classification import train_estimator
from tf_image_classification.errors import FlagError
from tf_image_classification.optimizers import make_schedule


def rates(steps: list[int], **flags: object) -> list[float]:
    schedule: Any = make_schedule(make_flags(batch_size=32, **flags), 418)
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    ("num_examples", "values", "decay_steps"),
    [
        (418, {"batch_size": 32}, 26),
        (418, {"batch_size": 1}, 836),
        (790, {"batch_size": 3, "num_epochs_per_decay": 0.3}, 78),
        (600, {"batch_size": 32}, 37),
        (600, {"batch_size": 32, "replicas_to_aggregate": 3}, 37),
        (
            600,
            {"batch_size": 32, "sync_replicas": True, "replicas_to_aggregate": 3},
            37 / 3,
        ),  # a fraction, as in slim of 2018
    ],
)
@pytest.mark.parametrize("decay_type", ["exponential", "polynomial"])
def test_09_decay_steps_follow_from_examples_batch_size_epochs_and_replicas(
    decay_type: str, num_examples: int, values: dict[str, object], decay_steps: float
) -> None:
    schedule: Any = make_schedule(make_flags(learning_rate_decay_type=decay_type, **values), num_examples)
    assert schedule.get_config()["decay_steps"] == decay_steps


def test_10_staircase_of_exponential_decay() -> None:
    np.testing.assert_allclose(rates([0, 25, 26, 51, 52]), [0.01, 0.01, 0.0094, 0.0094, 0.008836], rtol=1e-6)


def test_10_staircase_continues_at_the_global_step_of_a_resumed_training(tmp_path: Path) -> None:
    data = numbered_data(tmp_path, train=10, evaluation=2)

    def bias_after(train_steps: int) -> float:
        flags = make_flags(
            model_dir=str(tmp_path / "model"),
            train_steps=train_steps,
            optimizer="sgd",
            learning_rate=0.5,
            learning_rate_decay_factor=0.1,
            num_epochs_per_decay=0.4,  # 4 steps
            image_size=4,
            debug=True,
        )
        # A batch is one image, and the loss is its number plus the bias.
        outcome = train_estimator.train_and_evaluate(NumberSpec(), data, flags)
        return 0.5 - outcome.metrics["number"]

    assert bias_after(4) == pytest.approx(4 * 0.5)
    assert bias_after(6) == pytest.approx(4 * 0.5 + 2 * 0.05)


def test_11_polynomial_decay_is_a_line_that_ends_at_the_end_learning_rate() -> None:
    line = rates([0, 13, 26, 1000], learning_rate_decay_type="polynomial")
    np.testing.assert_allclose(line, [0.01, 0.00505, 1e-4, 1e-4], rtol=1e-6)
    rising = rates([0, 13, 1000], learning_rate_decay_type="polynomial", learning_rate=0.1, end_learning_rate=0.3)
    np.testing.assert_allclose(rising, [0.1, 0.2, 0.3], rtol=1e-6)


def test_11_polynomial_or_not_a_fixed_rate_is_a_number_whatever_the_data_set() -> None:
    assert make_schedule(make_flags(batch_size=32, learning_rate_decay_type="fixed"), 10) == 0.01


@pytest.mark.parametrize("decay_type", ["exponential", "polynomial"])
def test_13_decay_of_less_than_one_step_is_refused_with_what_to_change(decay_type: str, tmp_path: Path) -> None:
    flags = make_flags(
        model_dir=str(tmp_path / "model"), batch_size=32, learning_rate_decay_type=decay_type, image_size=4
    )
    with pytest.raises(FlagError, match=r"10 training examples / --batch_size 32 .*smaller --batch_size"):
        train_estimator.train_and_evaluate(NumberSpec(), numbered_data(tmp_path, train=10, evaluation=2), flags)
    assert not list((tmp_path / "model").glob("*.index"))
