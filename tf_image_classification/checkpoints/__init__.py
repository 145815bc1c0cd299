"""Checkpoints: reading any kind by variable name, warm starts, a training's own; and the scopes that select variables.

own_checkpoint   a training's own checkpoint: saved and resumed
warm_start       initial values from a pretrained checkpoint
class_names      the class names that a model or a checkpoint is bound to
class_axes       which axis of a head's variables runs over the classes
class_columns    which columns of a head are of which class, by name
matching         which of the checkpoint's variables belongs to which of the model
published        the files of --checkpoint_path imagenet
pretrained       loads --checkpoint_path
networks         which built-in networks a checkpoint is of
reader           any checkpoint as name -> array
locate           which files a --checkpoint_path names
hdf5             HDF5 files, read by a process of its own
hdf5_worker      what that process does
archives         .keras and .npz files, checked before they are unpacked
table            TensorFlow's files, checked before TensorFlow reads them
refusal          why a checkpoint is not read, and what is too much
checkpoint_file  TensorFlow's `checkpoint` file, which lists the checkpoints of a folder
head             the variables of a network's last layers
scopes           --trainable_scopes, and scopes in reports
"""

from __future__ import annotations

from tf_image_classification.checkpoints.head import head_variables
from tf_image_classification.checkpoints.own_checkpoint import restore, training_checkpoint
from tf_image_classification.checkpoints.pretrained import load_pretrained
from tf_image_classification.checkpoints.reader import Weights, read
from tf_image_classification.checkpoints.scopes import trainable_variables
from tf_image_classification.checkpoints.warm_start import WarmStartReport, warm_start

__all__ = [
    "WarmStartReport",
    "Weights",
    "head_variables",
    "load_pretrained",
    "read",
    "restore",
    "trainable_variables",
    "training_checkpoint",
    "warm_start",
]
