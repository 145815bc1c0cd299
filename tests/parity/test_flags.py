"""Defaults, and values that are refused before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.parity.support import make_flags
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.optimizers import make_optimizer, make_schedule

DEFAULTS = {
    "model_dir": None,
    "checkpoint_path": None,
    "train_metadata": None,
    "eval_metadata": None,
    "batch_size": 1,
    "train_steps": 20,
    "image_size": 299,
    "eval_freq": 5,
    "eval_throttle_secs": 120,
    "debug": False,
    "weight_decay": 0.00004,
    "optimizer": "rmsprop",
    "adadelta_rho": 0.95,
    "adagrad_initial_accumulator_value": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "opt_epsilon": 1.0,
    "ftrl_learning_rate_power": -0.5,
    "ftrl_initial_accumulator_value": 0.1,
    "ftrl_l1": 0.0,
    "ftrl_l2": 0.0,
    "momentum": 0.9,
    "rmsprop_momentum": 0.9,
    "rmsprop_decay": 0.9,
    "learning_rate_decay_type": "exponential",
    "learning_rate": 0.01,
    "end_learning_rate": 0.0001,
    "learning_rate_decay_factor": 0.94,
    "label_smoothing": 0.0,
    "num_epochs_per_decay": 2.0,
    "sync_replicas": False,
    "replicas_to_aggregate": 1,
    "trainable_scopes": None,
    "checkpoint_exclude_scopes": None,
}


def test_01_defaults_of_an_empty_command_line_are_the_originals() -> None:
    parsed = vars(make_flags())
    assert {name: parsed[name] for name in DEFAULTS} == DEFAULTS
    assert {name: type(parsed[name]) for name in DEFAULTS} == {name: type(value) for name, value in DEFAULTS.items()}
    assert {flag.name for flag in flag_table.FLAGS if not flag.ours} == set(DEFAULTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "lion"),
        ("optimizer", "Adam"),
        ("learning_rate_decay_type", "sine"),
        ("learning_rate_decay_type", "Fixed"),
    ],
)
def test_12_unknown_an_optimizer_or_decay_type_is_matched_exactly_and_is_a_value_error(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid value for --{name}.*{value}"):
        make_flags(**{name: value})
    flags = Flags(**{**vars(make_flags()), name: value})  # as a caller who did not validate would give them
    with pytest.raises(FlagError, match=f"Invalid value for --{name}.*{value}"):
        make_optimizer(flags, make_schedule(flags, 1000))


@pytest.mark.parametrize("arguments", [["--optimizer", "Adam"], ["--learning_rate_decay_type", "sine"]])
def test_12_unknown_ends_the_command_before_any_step(arguments: list[str], image_folder, tmp_path) -> None:
    command = [sys.executable, "-m", "tf_image_classification.train_estimator", "--train_metadata", str(image_folder)]
    answer = subprocess.run(
        [*command, "--model_dir", str(tmp_path / "model"), *arguments], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert arguments[1] in answer.stderr
    assert not (tmp_path / "model").exists()
