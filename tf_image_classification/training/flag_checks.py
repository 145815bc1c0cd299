"""Combinations of flags that are allowed, and rarely meant."""

from __future__ import annotations

import logging
import math

from tf_image_classification.data.manifest import Manifest
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

_log = logging.getLogger(__name__)


def check_replicas(flags: Flags, replicas: int) -> None:
    """Checks that flags go together in a training on so many replicas.

    Raises:
        FlagError: they do not.
    """
    if flags.jit_compile and flags.sync_batch_norm and replicas > 1:
        raise FlagError(
            "--jit_compile and --sync_batch_norm do not go together",
            received=f"{replicas} replicas, which would have to communicate within what XLA compiles",
            expected="one of the two, or one device",
        )


def check_profile(flags: Flags) -> None:
    """Checks that the steps to profile are steps of the training.

    Raises:
        FlagError: --profile is after --train_steps.
    """
    if flags.profile and flags.profile > flags.train_steps:
        raise FlagError(
            "--profile is a step that the training does not make",
            received=f"--profile {flags.profile}, --train_steps {flags.train_steps}",
            expected=f"at most {flags.train_steps}",
            hint="A step that comes after some tens of others shows the usual time; the first ones compile the graph.",
        )


def warn_of_small_images(data: Manifest, flags: Flags) -> None:
    """Logs a warning if a data set was built with images that the network enlarges again."""
    if data.downscaled and data.downscaled.images and data.downscaled.max_side < flags.image_size:
        _log.warning(
            "The data set was built with --max_side %d: images are enlarged to --image_size %d, and lack detail",
            data.downscaled.max_side,
            flags.image_size,
        )


def warn(flags: Flags) -> None:
    """Logs a warning for each such combination of a training's flags."""
    if flags.optimizer in ("adam", "adamw") and flags.opt_epsilon == 1.0:
        # rmsprop's epsilon is inside the square root, beside a mean square that starts at 1.
        _log.warning(
            "--opt_epsilon 1.0 makes %s nearly SGD with momentum: beside it, the square root of a gradient's second "
            "moment hardly counts; 1e-7 is Keras's default",
            flags.optimizer,
        )
    if flags.replicas_to_aggregate > 1 and not flags.sync_replicas:
        _log.warning("--replicas_to_aggregate %d has no effect without --sync_replicas", flags.replicas_to_aggregate)
    if flags.batch_norm == "frozen" and not flags.checkpoint_path:
        _log.warning("--batch_norm frozen without --checkpoint_path keeps initial statistics, mean 0 and variance 1")
    if flags.sync_batch_norm and flags.batch_norm == "frozen":
        _log.warning("--sync_batch_norm has no effect with --batch_norm frozen: no layer normalises by the batch")
    if flags.learning_rate_decay_type in ("cosine", "polynomial") and flags.end_learning_rate >= flags.learning_rate:
        _log.warning(
            "--learning_rate_decay_type %s does not lower the rate from --learning_rate %g to --end_learning_rate %g",
            flags.learning_rate_decay_type,
            flags.learning_rate,
            flags.end_learning_rate,
        )
    if flags.export_metric is not None and flags.export != "best" and flags.early_stopping_evals is None:
        _log.warning("--export_metric has no effect without --export best or --early_stopping_evals")
    if flags.early_stopping_evals is not None and flags.early_stopping_evals >= (flags.num_evals or math.inf):
        _log.warning(
            "--early_stopping_evals %d cannot end a training of --num_evals %d",
            flags.early_stopping_evals,
            flags.num_evals,
        )
    if flags.head_learning_rate is not None and not flags.head_fraction:
        _log.warning("--head_learning_rate has no effect without --head_fraction")
