"""Loads the weights that --checkpoint_path names, a path or the word `imagenet`, into a model."""

from __future__ import annotations

import logging
import textwrap
from typing import Any

import keras

from tf_image_classification import imagenet_weights, storage
from tf_image_classification.checkpoints.class_names import ClassNames
from tf_image_classification.checkpoints.head import head_variables
from tf_image_classification.checkpoints.published import open_file
from tf_image_classification.checkpoints.warm_start import warm_start
from tf_image_classification.flags import Flags
from tf_image_classification.model_folder import EXPORT_DIR, KERAS_MODEL

_log = logging.getLogger(__name__)


def load_pretrained(
    model: keras.Model,
    flags: Flags,
    checkpoint_version: str = "",
    model_name: str | None = None,
    class_names: ClassNames | None = None,
) -> dict[str, Any]:
    """Assigns the values of --checkpoint_path to the model's variables, and logs a table of them.

    With the word `imagenet` the head is left out if its shape differs, as with --checkpoint_exclude_scopes auto.

    Args:
        flags: --checkpoint_path, which is set, --checkpoint_exclude_scopes and --weights_dir.
        checkpoint_version: identifies the content at --checkpoint_path; that of `imagenet` is known here.
        model_name: of the built-in network; None for an --estimator's.
        class_names: of the data, by which the head is matched; None: not known.

    Returns:
        For model.json: `checkpoint`, `version`, `loaded` (a count), `not_loaded` (names) and `classes`: of each task
        that was matched by the names of its classes `kept` (a count), `new` and `dropped` (names).

    Raises:
        CheckpointError: see `published.open_file` and `warm_start`.
        FlagError: nothing is published for this network.
    """
    if model_name:
        _zero_head(model)
    exclude = flags.checkpoint_exclude_scopes
    if flags.checkpoint_path == imagenet_weights.IMAGENET:
        file = imagenet_weights.file_of(model_name)
        checkpoint_version = file.version
        with open_file(file, flags.weights_dir) as path:
            report = warm_start(model, path, exclude, auto_exclude_head=True, class_names=class_names)
    else:
        report = warm_start(model, flags.checkpoint_path, exclude, class_names=class_names)
        export = storage.join(flags.checkpoint_path, EXPORT_DIR)
        if storage.is_dir(flags.checkpoint_path) and storage.exists(storage.join(export, KERAS_MODEL)):
            _log.warning(
                "%s has the weights of a training as they were, not what it has exported: with --ema_decay or "
                "--batch_norm auto these differ. To start from the model, give --checkpoint_path %s",
                report.path,
                export,
            )
    _log.info("Starting from %s\n%s", flags.checkpoint_path, textwrap.indent(report.table(), "  "))
    return {
        "checkpoint": flags.checkpoint_path,
        "version": checkpoint_version,
        "loaded": len(report.loaded),
        "not_loaded": sorted([*report.excluded, *report.missing]),
        "classes": {
            match.task: {"kept": len(match.kept), "new": match.new, "dropped": match.dropped}
            for match in report.classes
        },
    }


def _zero_head(model: keras.Model) -> None:
    """Sets the head's kernels to zero, where what the checkpoint has no value for starts.

    Random weights disturb the pretrained layers with their gradients, and what a short training does not correct of
    them stays in the logits. Big Transfer (arXiv:1912.11370) and vision transformers fine-tune from a head of zeros.
    """
    for variable in head_variables(model).values():
        if len(variable.shape) > 1:
            variable.assign(keras.ops.zeros_like(variable))
