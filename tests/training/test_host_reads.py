"""When the loop reads numbers from the device, and what it makes of them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests.training.support import train
from tf_image_classification import hooks
from tf_image_classification.errors import TrainingError
from tf_image_classification.training import history, progress_hook, steps
from tf_image_classification.training.readings import Readings
from tf_image_classification.training.workers import Wishes


@pytest.fixture
def reads(monkeypatch) -> list[tuple[int, int]]:
    """Of each read of a tensor's numbers: how many steps had been made, and the number of numbers."""
    made: list[tuple[int, int]] = []
    taken = [0]
    # What .numpy(), float(), int() and bool() of a tensor come down to.
    read, exchange = ops._EagerTensorBase._numpy, Wishes.exchange

    def counted_read(tensor: Any) -> Any:
        made.append((taken[0], tensor.shape.num_elements()))
        return read(tensor)

    def counted_step(*args: Any) -> Any:
        taken[0] += 1
        return exchange(*args)

    monkeypatch.setattr(ops._EagerTensorBase, "_numpy", counted_read)
    monkeypatch.setattr(Wishes, "exchange", counted_step)
    monkeypatch.setattr(progress_hook, "_LOG_EVERY_SECS", math.inf)
    return made


def test_a_training_reads_numbers_once_in_a_hundred_steps(reads, built_data, training_flags, caplog):
    caplog.set_level(logging.INFO)
    flags = training_flags(train_steps=150, eval_throttle_secs=10**6)
    train(built_data, flags)
    in_loop = [(step, numbers) for step, numbers in reads if 0 < step < 150]
    assert {step for step, _ in in_loop} == {100}  # a summary reads single constants of the host then
    # The losses for the check for NaN; losses, losses without regularisation and accuracies for the curve and the log.
    assert [numbers for _, numbers in in_loop if numbers > 1] == [100, 300]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Step ")]
    assert [line.split(":")[0] for line in lines] == ["Step 100 of 150"]
    entries = [entry for entry in history.read_history(flags.model_dir) if entry["kind"] == "train"]
    assert [entry["step"] for entry in entries] == list(range(1, 151))
    assert f"loss {entries[99]['loss']:.4f}, " in lines[0]


@pytest.mark.slow
def test_the_history_has_every_step_up_to_a_checkpoint_when_it_is_saved(built_data, training_flags, monkeypatch):
    saved = []
    save = tf.train.CheckpointManager.save

    def look(manager: tf.train.CheckpointManager, checkpoint_number: int) -> str:
        saved.append((checkpoint_number, [entry["step"] for entry in history.read_history(manager.directory)]))
        return save(manager, checkpoint_number=checkpoint_number)

    monkeypatch.setattr(tf.train.CheckpointManager, "save", look)
    train(built_data, training_flags(train_steps=5, num_evals=2))
    train(built_data, training_flags(train_steps=8, eval_throttle_secs=10**6))
    assert saved == [(0, []), (2, [1, 2]), (5, [1, 2, 2, 3, 4, 5]), (8, [1, 2, 2, 3, 4, 5, 5, 6, 7, 8])]


def test_readings_are_the_very_numbers_in_their_order():
    readings = Readings()
    assert readings.take() == []
    values = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    for row in values:
        readings.add({"loss": tf.constant(row[0]), "accuracy": tf.constant(row[1])})
    assert len(readings) == 7
    assert readings.take() == [{"loss": float(loss), "accuracy": float(accuracy)} for loss, accuracy in values]
    readings.add({"loss": values[0, 0]})  # of a worker, which sends NumPy's
    assert readings.take() == [{"loss": float(values[0, 0])}]


@pytest.mark.parametrize("at", [1, 2, 100, 101])
def test_the_step_of_the_first_loss_that_is_no_number_is_named(at):
    nan_stop = hooks.NanStop()
    nan_stop.begin(1000)
    with pytest.raises(TrainingError, match=rf"at step {1000 + at}\b.*loss nan"):
        for number in range(1, 201):
            loss = tf.constant(math.nan if number >= at else 1.0)
            nan_stop.after_step(1000 + number, {steps.LOSS: loss, "accuracy": tf.constant(0.5)})


def test_the_curve_of_a_training_that_fails_goes_up_to_its_last_step(built_data, training_flags, monkeypatch):
    flags = training_flags(train_steps=50, learning_rate=1e30)
    with pytest.raises(TrainingError, match="not a finite number") as caught:
        train(built_data, flags)
    lines = Path(flags.model_dir, history.HISTORY_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 51))
    assert "at step" in str(caught.value)
