"""Checkpoints: reading any kind by variable name, starting from one, saving training's own; and the scopes that select
variables."""

from __future__ import annotations

from tf_image_classification.checkpoints.reader import Weights, read
from tf_image_classification.checkpoints.scopes import trainable_variables
from tf_image_classification.checkpoints.training import restore, training_checkpoint
from tf_image_classification.checkpoints.warm_start import WarmStart, warm_start

__all__ = ["WarmStart", "Weights", "read", "restore", "trainable_variables", "training_checkpoint", "warm_start"]
