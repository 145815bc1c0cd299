"""A training that is killed and resumed, under each option, is bit-identical with one that ran through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.support import equal, train, weights_at
from tf_image_classification import hooks
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
        pytest.param(options, id=name, marks=[] if name in ("recipe", "mixup and cutmix") else pytest.mark.slow)
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


def test_a_finished_training_exports_the_same_model_again(built_data, training_flags, tmp_path):
    options = {"train_steps": 8, "num_evals": 4, "export": "best", "ema_decay": 0.9}
    first = train(built_data, training_flags(**options))
    digest = result(first)[0]
    again = train(built_data, training_flags(**options), export_dir=str(tmp_path / "again"))
    assert result(again)[0] == digest
    assert again.steps_made == 0
    assert again.metrics == first.metrics
    assert np.isfinite(list(again.metrics.values())).all()
