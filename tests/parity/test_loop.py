"""The training loop: when it ends, when it evaluates, and what an evaluation reports."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.parity.support import NumberSpec, make_flags, numbered_data
from tf_image_classification import checkpoints, train_estimator
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.errors import FlagError
from tf_image_classification.training import distribution, history

STANDS_STILL = 1e-30  # a learning rate that changes nothing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return numbered_data(tmp_path_factory.mktemp("numbers"), train=23, evaluation=10)


@pytest.fixture
def train(data: Manifest, tmp_path: Path) -> Any:
    """Trains; keyword arguments are flags."""

    def run(spec: NumberSpec | None = None, **changes: object) -> train_estimator.TrainingResult:
        common = {
            "model_dir": str(tmp_path / "model"),
            "image_size": 4,
            "optimizer": "sgd",
            "learning_rate_decay_type": "fixed",
        }
        return train_estimator.train_and_evaluate(spec or NumberSpec(), data, make_flags(**{**common, **changes}))

    return run


def evaluated_steps(outcome: train_estimator.TrainingResult) -> list[int]:
    return [entry["step"] for entry in history.read_history(outcome.model_dir) if entry["kind"] == "eval"]


def test_21_train_steps_are_absolute(train: Any) -> None:
    first = train(train_steps=6)
    assert (first.steps_made, evaluated_steps(first)) == (6, [6])
    newest = tf.train.latest_checkpoint(first.model_dir)
    assert newest.endswith("model.ckpt-6")
    with checkpoints.read(newest) as weights:
        before = float(weights["counter/bias"])
    again = train(train_steps=6)
    assert (again.steps_made, evaluated_steps(again)) == (0, [6, 6])
    with checkpoints.read(tf.train.latest_checkpoint(first.model_dir)) as weights:
        assert float(weights["counter/bias"]) == before != 0.0


@pytest.mark.parametrize(
    ("eval_freq", "loss", "number"),
    [
        (5, (1.5 + 5.5 + 8.5) / 3, 4.5),  # three batches: 0 to 3, 4 to 7, 8 and 9
        (2, (1.5 + 5.5) / 2, 3.5),
    ],
)
def test_22_eval_freq_counts_batches_the_loss_is_their_mean_and_a_metric_the_mean_of_examples(
    train: Any, eval_freq: int, loss: float, number: float
) -> None:
    outcome = train(train_steps=1, batch_size=4, eval_freq=eval_freq, debug=True, learning_rate=STANDS_STILL)
    assert outcome.metrics == pytest.approx(
        {"loss": loss, "loss_without_regularization": loss, "number": number, "global_step": 1}
    )


@pytest.mark.parametrize("flag", ["eval_freq", "train_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_22_eval_freq_and_train_steps_of_nothing_are_value_errors(flag: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"--{flag}"):
        make_flags(**{flag: value})


@pytest.mark.parametrize("name", ["loss", "loss_without_regularization", "global_step"])
def test_22_eval_metrics_cannot_take_the_names_of_loss_and_global_step(train: Any, name: str) -> None:
    class Reserved(NumberSpec):
        def metric_ops(self, labels: Any, predictions: Any) -> dict[str, Any]:
            return {name: predictions["label"]["logits"][:, 0]}

    with pytest.raises(ValueError, match=f"metric named {name}"):
        train(Reserved(), train_steps=1)


class SlowSpec(NumberSpec):
    """A step takes at least 50 ms."""

    def loss_fn(self, labels: Any, logits: Any) -> tf.Tensor:
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(0.05), [], [])]):
            return tf.identity(super().loss_fn(labels, logits))


@pytest.mark.slow
@pytest.mark.parametrize("throttle", [1, 10_000])
def test_23_eval_throttle_secs_pass_between_evaluations_and_one_is_at_the_end(train: Any, throttle: int) -> None:
    started = time.monotonic()
    spec = SlowSpec() if throttle == 1 else NumberSpec()
    outcome = train(spec, train_steps=100, eval_throttle_secs=throttle, learning_rate=STANDS_STILL, eval_freq=1)
    steps = evaluated_steps(outcome)
    assert steps[-1] == 100
    if throttle == 1:
        assert 3 <= len(steps) <= 2 + time.monotonic() - started
    else:
        assert steps == [100]


def test_23_eval_throttle_secs_of_nothing_evaluate_after_every_step_on_a_checkpoint_each(train: Any) -> None:
    outcome = train(train_steps=6, eval_throttle_secs=0)
    assert evaluated_steps(outcome) == [1, 2, 3, 4, 5, 6]
    # The five newest are kept.
    assert sorted(int(path.suffixes[-2].split("-")[1]) for path in Path(outcome.model_dir).glob("*.ckpt-*.index")) == [
        2,
        3,
        4,
        5,
        6,
    ]
    with pytest.raises(ValueError, match="--eval_throttle_secs"):
        make_flags(eval_throttle_secs=-1)


def test_the_trials_of_hyperparameter_tuning_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"task": {"type": "master", "index": 0, "trial": "7"}}))
    assert distribution.trial_dir("models") == str(Path("models", "7"))
    monkeypatch.setenv("TF_CONFIG", "not json")
    with pytest.raises(FlagError, match="TF_CONFIG"):
        distribution.trial_dir("models")
