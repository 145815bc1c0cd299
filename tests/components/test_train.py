"""The train step hands on what KFP can serialise."""

from __future__ import annotations

import json
import types

from components.train.component import train
from tf_image_classification import flags as flag_table
from tf_image_classification import training_run
from tf_image_classification.train_estimator import TrainingResult


def test_metrics_that_are_not_finite_are_left_out_of_the_models_metadata(tmp_path, monkeypatch):
    metrics = {"loss": float("nan"), "error": float("inf"), "accuracy": 0.1, "global_step": 4.0}
    monkeypatch.setattr(training_run, "train", lambda *_, **__: TrainingResult("checkpoints", "model", metrics, 4))
    names = ("data", "model", "logs", "curves", "augmentation_samples")
    artifacts = {name: types.SimpleNamespace(path=str(tmp_path / name), uri=name, metadata={}) for name in names}
    flags = {flag.name: flag.pipeline_default for flag in flag_table.of_step("train")}
    train.python_func(**artifacts, **flags, pipeline_root=str(tmp_path), checkpoint_version="", estimator_version="")
    assert artifacts["model"].metadata == {"framework": "TensorFlow", "accuracy": 0.1, "global_step": 4.0}
    json.dumps(artifacts["model"].metadata, allow_nan=False)
