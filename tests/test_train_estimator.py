"""Trainings of built-in networks: how they start, resume and end, and the command."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.support import equal, evaluations, train, weights_at
from tf_image_classification import nets, storage
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.errors import CheckpointError, FlagError, TrainingError
from tf_image_classification.training import history

HEAD = "Small/Logits"


@pytest.fixture(scope="module")
def trained(built_data, tmp_path_factory):
    """A finished training of 60 steps that has learnt to classify bright and dark."""
    from tf_image_classification import flags as flag_table

    values = {
        "model_dir": str(tmp_path_factory.mktemp("trained")),
        "model_name": "small",
        "image_size": 16,
        "batch_size": 8,
        "train_steps": 60,
        "learning_rate": 0.1,
        "eval_freq": 50,
        "seed": 3,
    }
    flags = flag_table.validate(values, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])
    return train(built_data, flags)


def test_a_training_ends_at_train_steps_with_a_checkpoint_an_evaluation_and_a_model(trained):
    assert trained.steps_made == 60
    assert tf.train.latest_checkpoint(trained.model_dir).endswith("model.ckpt-60")
    assert trained.metrics["accuracy"] == 1.0
    assert trained.metrics["global_step"] == 60
    assert evaluations(trained.model_dir) == [60]
    assert {path.name for path in Path(trained.export_dir).iterdir()} == {
        "saved_model",
        "model.keras",
        "labels.txt",
        "model.json",
    }
    facts = json.loads(Path(trained.export_dir, "model.json").read_text())
    assert facts["flags"]["train_steps"] == 60
    assert facts["metrics"]["accuracy"] == 1.0
    assert facts["warm_start"] is None


def test_tensorboard_can_read_the_summaries(built_data, training_flags):
    flags = training_flags(train_steps=100)
    train(built_data, flags)
    tags = {}
    for folder in (flags.model_dir, os.path.join(flags.model_dir, "eval")):
        for file in Path(folder).glob("events*"):
            for event in tf.compat.v1.train.summary_iterator(str(file)):
                for value in event.summary.value:
                    tags.setdefault(value.tag, []).append(event.step)
    assert tags["global_step/sec"] == [100]
    assert sorted(tags["loss"]) == [100, 100]  # training's and evaluation's
    assert sorted(tags["accuracy"]) == sorted(tags["loss_without_regularization"]) == [100, 100]
    assert tags["learning_rate"] == [100]


def test_with_a_seed_two_trainings_are_bit_identical_and_without_one_they_differ(built_data, training_flags, tmp_path):
    def result(name: str, seed):
        flags = training_flags(model_dir=str(tmp_path / name), seed=seed)
        outcome = train(built_data, flags)
        return weights_at(flags.model_dir), json.loads(Path(outcome.export_dir, "model.json").read_text())["digest"]

    (a, digest_a), (b, digest_b) = result("a", 5), result("b", 5)
    assert equal(a, b)
    assert digest_a == digest_b
    (c, digest_c), (d, digest_d) = result("c", None), result("d", None)
    assert not equal(c, d)
    assert digest_c != digest_d


@pytest.mark.slow
def test_a_training_in_two_parts_equals_one_in_one_go(built_data, training_flags, tmp_path):
    whole = training_flags(model_dir=str(tmp_path / "whole"), train_steps=8)
    train(built_data, whole)
    for steps in (3, 8):
        parts = training_flags(model_dir=str(tmp_path / "parts"), train_steps=steps)
        train(built_data, parts)
    assert equal(weights_at(whole.model_dir), weights_at(parts.model_dir))


def test_a_loss_that_is_not_a_number_stops_training_before_bad_weights_are_saved(built_data, training_flags):
    flags = training_flags(optimizer="sgd", learning_rate=1e30, train_steps=50)
    with pytest.raises(TrainingError, match=r"not a finite number at step \d+"):
        train(built_data, flags)
    saved = weights_at(flags.model_dir)
    assert all(np.isfinite(value).all() for value in saved.values())
    assert not os.path.exists(os.path.join(flags.model_dir, "export"))


def test_fine_tuning_the_head_starts_far_above_chance_and_logs_what_was_loaded(
    built_data, training_flags, trained, caplog
):
    flags = training_flags(
        checkpoint_path=trained.export_dir,
        checkpoint_exclude_scopes=HEAD,
        trainable_scopes=HEAD,
        train_steps=10,
        eval_freq=50,
    )
    with caplog.at_level(logging.INFO):
        outcome = train(built_data, flags)
    assert outcome.metrics["accuracy"] >= 0.9
    assert "Starting from" in caplog.text
    assert HEAD in caplog.text
    facts = json.loads(Path(outcome.export_dir, "model.json").read_text())
    assert facts["warm_start"]["checkpoint"] == trained.export_dir
    assert sorted(facts["warm_start"]["not_loaded"]) == sorted(
        name for name in weights_at(flags.model_dir) if name.startswith(HEAD)
    )


@pytest.mark.slow
def test_a_resumed_training_still_records_what_it_was_warm_started_from(built_data, training_flags, trained):
    for steps in (2, 4):
        outcome = train(
            built_data,
            training_flags(train_steps=steps, checkpoint_path=trained.export_dir),
            checkpoint_version="of the first",
        )
    facts = json.loads(Path(outcome.export_dir, "model.json").read_text())
    assert facts["warm_start"]["checkpoint"] == trained.export_dir
    assert facts["warm_start"]["version"] == "of the first"


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(built_data, training_flags, caplog):
    flags = training_flags(eval_throttle_secs=0, train_steps=3)
    train(built_data, flags)
    newest = Path(flags.model_dir, "model.ckpt-3.data-00000-of-00001")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    outcome = train(built_data, flags)
    assert "damaged checkpoint" in caplog.text
    assert outcome.steps_made == 1
    assert history.read_history(flags.model_dir)[-1]["step"] == 3


def test_checkpoints_that_are_all_damaged_are_an_error_not_a_new_start(built_data, training_flags):
    flags = training_flags(train_steps=2)
    train(built_data, flags)
    for file in Path(flags.model_dir).glob("model.ckpt-*.data-*"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="can be read"):
        train(built_data, flags)


def test_another_optimizer_than_the_checkpoints_is_an_error(built_data, training_flags):
    train(built_data, training_flags(train_steps=2))
    with pytest.raises(CheckpointError, match="optimizer"):
        train(built_data, training_flags(train_steps=3, optimizer="adam"))


def test_a_second_training_in_the_same_folder_is_refused(built_data, training_flags):
    flags = training_flags()
    with storage.exclusive(flags.model_dir), pytest.raises(FlagError, match="Another process"):
        train(built_data, flags)


@pytest.mark.parametrize("optimizer", ["adadelta", "adagrad", "adam", "ftrl", "momentum", "sgd"])
def test_every_optimizer_trains(built_data, training_flags, optimizer):
    outcome = train(built_data, training_flags(optimizer=optimizer, train_steps=3, learning_rate=0.01))
    assert np.isfinite(outcome.metrics["loss"])


@pytest.mark.parametrize(
    ("precision", "dtype"), [({"mixed_precision": True}, "float16"), ({"precision": "mixed_bfloat16"}, "bfloat16")]
)
def test_mixed_precision_trains_in_16_bits_and_exports_float32(built_data, training_flags, precision, dtype):
    class Spec(BuiltInEstimator):
        def get_model_fn(self, checkpoint_path):
            def model_fn(params):
                models.append(super(Spec, self).get_model_fn(checkpoint_path)(params))
                return models[-1]

            return model_fn

    models = []
    outcome = train(built_data, training_flags(train_steps=2, **precision), Spec())
    assert keras.mixed_precision.dtype_policy().name == "float32"
    assert models[0].get_layer("Small.Conv2d_2_3x3").compute_dtype == dtype
    model = keras.saving.load_model(os.path.join(outcome.export_dir, "model.keras"))
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_flags_that_ask_for_two_precisions_are_refused(training_flags):
    flags = training_flags(mixed_precision=True, precision="float32")
    with pytest.raises(FlagError, match="older name of --precision mixed_float16"):
        train(None, flags)


def test_the_total_loss_of_an_evaluation_has_the_regularisation_in_it(built_data, training_flags, tmp_path):
    losses = {}
    for decay in (0.0, 0.1):
        flags = training_flags(
            model_dir=str(tmp_path / str(decay)), weight_decay=decay, train_steps=1, learning_rate=1e-6, eval_freq=50
        )
        losses[decay] = train(built_data, flags).metrics["loss"]
    kernels = [value for name, value in weights_at(flags.model_dir).items() if name.endswith("/weights")]
    assert losses[0.1] - losses[0.0] == pytest.approx(0.1 * sum((kernel**2).sum() for kernel in kernels) / 2, rel=0.02)


def test_scopes_that_select_nothing_are_refused_before_training(built_data, training_flags):
    with pytest.raises(FlagError, match="No variables to optimize"):
        train(built_data, training_flags(trainable_scopes="Logits"))


def test_head_scopes_of_the_small_network_are_those_of_the_readme():
    assert nets.NETS["small"].head_scopes[0] == HEAD


# The commands


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_a_checkpoint_and_the_next_call_continues(image_folder, tmp_path, number):
    def command(steps: int) -> list[str]:
        return [
            *(sys.executable, "-m", "tf_image_classification.train_estimator", "--train_metadata", str(image_folder)),
            *(
                "--model_dir",
                str(tmp_path / "model"),
                "--image_size",
                "16",
                "--batch_size",
                "4",
                "--train_steps",
                str(steps),
            ),
        ]

    process = subprocess.Popen(command(1_000_000), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Step 100 " in line:
            break
    process.send_signal(number)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 128 + number, errors
    step = int(tf.train.latest_checkpoint(str(tmp_path / "model")).rpartition("-")[2])
    assert step >= 100
    answer = subprocess.run(command(step + 1), capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"Continuing from {tmp_path / 'model' / f'model.ckpt-{step}'}" in answer.stderr
    assert answer.stdout.strip() == str(tmp_path / "model" / "export")


@pytest.mark.slow
def test_csv_files_train_with_an_image_root_and_are_built_once(mini_mnist, tmp_path):
    command = [
        *(sys.executable, "-m", "tf_image_classification.train_estimator"),
        *("--train_metadata", str(mini_mnist / "dataset" / "trainset_local.csv")),
        *("--eval_metadata", str(mini_mnist / "dataset" / "evalset_local.csv")),
        *("--image_root", str(mini_mnist), "--labels_file", str(mini_mnist / "labels.txt")),
        *("--model_dir", str(tmp_path / "model"), "--image_size", "28", "--batch_size", "16"),
    ]
    first = subprocess.run([*command, "--train_steps", "3"], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "418 training and 182 evaluation examples" in first.stderr
    built = (tmp_path / "model" / "data" / "manifest.json").stat().st_mtime_ns
    time.sleep(0.01)
    second = subprocess.run([*command, "--train_steps", "4"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "model" / "data" / "manifest.json").stat().st_mtime_ns == built
