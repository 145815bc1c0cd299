"""Checkpoints: reading any kind by variable name, warm starts, training's own; and the scopes that select variables.

locate      which files a --checkpoint_path names        training    training's own checkpoints: saved and resumed
reader      any checkpoint as name -> array              warm_start  initial values out of a pretrained checkpoint
state       TensorFlow's `checkpoint` state file         scopes      --trainable_scopes and scopes in reports
"""

from __future__ import annotations

from tf_image_classification.checkpoints.reader import Weights, read
from tf_image_classification.checkpoints.scopes import trainable_variables
from tf_image_classification.checkpoints.training import restore, training_checkpoint
from tf_image_classification.checkpoints.warm_start import WarmStartReport, warm_start

__all__ = ["WarmStartReport", "Weights", "read", "restore", "trainable_variables", "training_checkpoint", "warm_start"]
