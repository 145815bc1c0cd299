"""A training that is killed and resumed, under each option, is bit-identical with one that ran through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.support import equal, train, weights_at
from tf_image_classification import hooks
from tf_image_classification.errors import FlagError
from tf_image_classification.training import evaluator, history

RECIPE = {  # as --recipe finetune, on 16 pixels
    "head_fraction": 0.4,
    "head_learning_rate": 0.05,
    "learning_rate_decay_type": "cosine",
    "warmup_fraction": 0.3,
    "optimizer": "adamw",
    "opt_epsilon": 1e-7,
    "learning_rate": 0.01,
    "augmentation": "light",
    "num_evals": 5,
    "export": "best",
    "checkpoint_exclude_scopes": "auto",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "recipe": RECIPE,
    "average": {"ema_decay": 0.9, "num_evals": 2},
    "average and best": {"ema_decay": 0.9, "num_evals": 5, "export": "best", "early_stopping_evals": 4},
    "best by loss": {"num_evals": 5, "export": "best", "export_metric": "loss"},
    "re-estimation": {"batch_norm": "auto", "num_evals": 5},
    "original": {"batch_norm": "original", "num_evals": 2},
    "mixup and cutmix": {"mixup": 0.4, "cutmix": 1.0, "optimizer": "sgd", "clip_norm": 0.5},
    "randaugment": {"augmentation": "randaugment", "learning_rate_scales": "Small/Conv2d=0.1"},
    "trivialaugment": {"augmentation": "trivialaugment", "class_weights": "balanced", "crop_area": "0.5,1"},
    "cosine": {"learning_rate_decay_type": "cosine", "warmup_fraction": 0.2, "optimizer": "momentum"},
}


class Killed(BaseException):
    """Ends a training as SIGKILL does: nothing of the training's own catches it."""


def result(outcome: Any) -> tuple[str, list[tuple[int, float]]]:
    """The digest of the exported model, and the evaluations: step and loss."""
    digest = json.loads(Path(outcome.export_dir, "model.json").read_text())["digest"]
    entries = [entry for entry in history.read_history(outcome.model_dir) if entry["kind"] == "eval"]
    return digest, [(entry["step"], entry["loss"]) for entry in entries]


def kill_after_step(monkeypatch: pytest.MonkeyPatch, step: int, checkpoint: int) -> None:
    """The next training saves a checkpoint at one step and is killed after another."""
    after_step = hooks.CheckpointSaver.after_step

    def killing(self: hooks.CheckpointSaver, at: int, values: Any) -> None:
        after_step(self, at, values)
        if at == checkpoint:
            self.save(at)
        if at == step:
            raise Killed

    monkeypatch.setattr(hooks.CheckpointSaver, "after_step", killing)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[] if name == "original" else pytest.mark.slow)
        for name, options in OPTIONS.items()
    ],
)
def test_it_is_bit_identical(options, built_data, training_flags, tmp_path, monkeypatch):
    start = train(built_data, training_flags(model_dir=str(tmp_path / "start"), train_steps=2)).export_dir
    options = {"train_steps": 10, "checkpoint_path": start, **options}
    whole = train(built_data, training_flags(model_dir=str(tmp_path / "whole"), **options))
    flags = training_flags(model_dir=str(tmp_path / "parts"), **options)
    for step, checkpoint in ((3, 2), (8, 7)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after_step(patch, step, checkpoint)
            train(built_data, flags)
    parts = train(built_data, flags)
    assert equal(weights_at(whole.model_dir), weights_at(parts.model_dir))
    assert result(parts) == result(whole)


@pytest.mark.slow
def test_killed_between_a_checkpoint_and_its_evaluation_it_evaluates_when_it_is_resumed(
    built_data, training_flags, tmp_path, monkeypatch
):
    options = {"train_steps": 10, "num_evals": 5, "export": "best"}
    whole = train(built_data, training_flags(model_dir=str(tmp_path / "whole"), **options))
    flags = training_flags(model_dir=str(tmp_path / "parts"), **options)
    evaluate = evaluator.Evaluator.evaluate

    def killing(self: evaluator.Evaluator, step: int) -> dict[str, float]:
        if step == 6:
            raise Killed
        return evaluate(self, step)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(evaluator.Evaluator, "evaluate", killing)
        train(built_data, flags)
    assert result(train(built_data, flags)) == result(whole)


@pytest.mark.slow
def test_a_finished_training_exports_the_same_model_again(built_data, training_flags, tmp_path):
    options = {"train_steps": 8, "num_evals": 4, "export": "best", "ema_decay": 0.9}
    first = train(built_data, training_flags(**options))
    digest = result(first)[0]
    again = train(built_data, training_flags(**options), export_dir=str(tmp_path / "again"))
    assert result(again)[0] == digest
    assert again.steps_made == 0
    assert again.metrics == first.metrics
    assert np.isfinite(list(again.metrics.values())).all()


@pytest.mark.slow
def test_killed_between_the_best_model_and_the_history_it_is_still_exported(
    built_data, training_flags, tmp_path, monkeypatch
):
    """Evaluations by time: the resumed training does not come to the same steps again."""
    options = {"train_steps": 6, "eval_throttle_secs": 0, "export": "best", "export_metric": "loss"}
    flags = training_flags(model_dir=str(tmp_path / "parts"), **options)
    add = history.History.add

    def killing(self: history.History, kind: str, step: int, values: dict[str, float]) -> None:
        if kind == "eval" and step == 4:
            raise Killed
        add(self, kind, step, values)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(history.History, "add", killing)
        train(built_data, flags)
    outcome = train(built_data, flags)
    losses = dict(result(outcome)[1])
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert outcome.metrics["loss"] == min(losses.values())


def test_a_lower_learning_rate_takes_effect_when_a_training_is_continued(built_data, training_flags):
    train(built_data, training_flags(train_steps=3, optimizer="sgd"))
    before = weights_at(training_flags().model_dir)
    train(built_data, training_flags(train_steps=5, optimizer="sgd", learning_rate=1e-30))
    after = weights_at(training_flags().model_dir)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert all("/moving_" in name for name in changed)


@pytest.mark.slow
def test_more_train_steps_do_not_go_back_to_the_head_after_all_has_been_trained(built_data, training_flags):
    options = {"head_fraction": 0.5, "learning_rate_decay_type": "cosine"}
    train(built_data, training_flags(train_steps=6, **options))
    with pytest.raises(FlagError, match=r"trains the head up to step 20, and the checkpoint of step 6"):
        train(built_data, training_flags(train_steps=40, **options))
    outcome = train(built_data, training_flags(train_steps=10, **options))
    assert outcome.metrics["global_step"] == 10
