"""The statistics that batch normalisation is evaluated and exported with: moving averages, or re-estimated ones.

A moving average forgets slowly: with slim's decay of 0.9997, 55 % of it are still the old data's after 2,000 steps.
So it is replaced by the statistics of the finished weights over many training images ("precise batch norm", Wu and
Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_image_classification.errors import EstimatorError, TrainingError
from tf_image_classification.training import layer_modes

_log = logging.getLogger(__name__)

MAX_EXAMPLES = 1024  # of a re-estimation
MIN_BATCH = 32  # statistics of smaller batches are far from those of all images
FORGOTTEN = 0.01  # share of the initial statistics in moving averages that are kept as they are
_WARNED_SHARE = 0.2
_WARNED_BATCH = 4  # below, the error grows steeply: Wu and He, "Group Normalization", arXiv:1803.08494, figure 1


class Reestimation:
    """Re-estimates the statistics of batch normalisation from images.

    Every batch is normalised by its own statistics, and a layer's mean and variance over all of them follow from those
    of the batches: mean = avg(m_i), variance = avg(v_i + m_i^2) - mean^2. All other layers compute in inference mode,
    so that no random number of the training is used up.

    Args:
        model: float32 [B, H, W, 3] -> logits.
        layers: those to re-estimate.
        input_fn: returns the data set of (images, labels), always the same batches of the same size.
        strategy: the training's; the statistics are averaged over its replicas.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[keras.layers.BatchNormalization],
        input_fn: Callable[[], tf.data.Dataset],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._model, self._layers, self._input_fn, self._strategy = model, layers, input_fn, strategy
        self._moments = self._compile()

    def __call__(self) -> int:
        """Assigns the re-estimated statistics to the layers; returns the number of images that they are from.

        Raises:
            EstimatorError: there are no batches.
            TrainingError: a statistic is not finite.
        """
        sums: list[Any] = []
        batches = images_seen = 0
        for images, _ in self._strategy.experimental_distribute_dataset(self._input_fn()):
            moments = [np.asarray(value, np.float64) for value in self._moments(images)]
            sums = [total + value for total, value in zip(sums, moments, strict=True)] if sums else moments
            batches += 1
            images_seen += sum(part.shape[0] for part in self._strategy.experimental_local_results(images))
        if not batches:
            raise EstimatorError(
                "input_fn has no batch of the training split", expected="batches to re-estimate batch normalisation on"
            )
        averages = [total / batches for total in sums]
        for layer, mean, square in zip(self._layers, averages[::2], averages[1::2], strict=True):
            variance = np.maximum(square - mean**2, 0.0)
            if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
                raise TrainingError(
                    f"The statistics of {layer.name} are not finite numbers",
                    hint="The training has diverged: lower --learning_rate.",
                )
            layer.moving_mean.assign(mean.astype(np.float32))
            layer.moving_variance.assign(variance.astype(np.float32))
        return images_seen

    def _compile(self) -> Callable[[Any], list[tf.Tensor]]:
        def replica_moments(images: tf.Tensor) -> list[tf.Tensor]:
            self._model(images, training=False)
            moments = []
            for layer in self._layers:  # without momentum, their statistics are the batch's
                mean = tf.cast(layer.moving_mean.value, tf.float32)
                moments += [mean, tf.cast(layer.moving_variance.value, tf.float32) + mean**2]
            return moments

        @tf.function(autograph=False, reduce_retracing=True)
        def moments(images: Any) -> list[tf.Tensor]:
            # Not within a replica: of layers that are synchronized, TensorFlow traces several by turns.
            with layer_modes.calling(self._layers, training=True), _without_momentum(self._layers):
                values = self._strategy.run(replica_moments, args=(images,))
            return [self._strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for value in values]

        return moments


def warn_of_small_batches(layers: Sequence[keras.layers.BatchNormalization], batch_size: int) -> None:
    """Warns of statistics of too few images, which no averaging makes those that the weights were trained with.

    Args:
        layers: that compute in training mode.
        batch_size: images that are normalised together.
    """
    if layers and batch_size < _WARNED_BATCH:
        _log.warning(
            "Batch normalisation: %d layers normalise by the statistics of %d images at a time. Evaluations and the "
            "exported model use those of many images, and may be far worse than the training: give a --batch_size of "
            "16 or more (per replica without --sync_batch_norm), or --batch_norm frozen with --checkpoint_path",
            len(layers),
            batch_size,
        )


class BatchNormPolicy:
    """Decides what statistics a model is evaluated and exported with, and provides them.

    Args:
        batch_norm: value of --batch_norm.
        layers: of batch normalisation that compute in training mode: those whose statistics change.
        start: the global step from which they do.
        updates: of the moving averages per global step.
        averaged: whether other weights are evaluated than those that the moving averages belong to.
        reestimate: created when it is first needed.
    """

    def __init__(
        self,
        batch_norm: str,
        layers: Sequence[keras.layers.BatchNormalization],
        start: int,
        updates: int,
        averaged: bool,
        reestimate: Callable[[], Reestimation],
    ) -> None:
        self._batch_norm, self._layers, self._start, self._averaged = batch_norm, layers, start, averaged
        self._updates_per_step = updates
        self._create = reestimate
        self._reestimation: Reestimation | None = None

    def share_of_initial(self, step: int) -> float:
        """The largest share that the statistics at the start of training have in a moving average at global step
        `step`: decay^updates."""
        updates = max(0, step - self._start) * self._updates_per_step
        return max((float(layer.momentum) ** updates for layer in self._layers), default=0.0)

    @contextlib.contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """The model has the statistics to evaluate and export in the block, and those of the training after it."""
        share = self.share_of_initial(step)
        if not self._layers or step <= self._start:
            yield
        elif self._batch_norm == layer_modes.ORIGINAL or (share < FORGOTTEN and not self._averaged):
            if self._batch_norm == layer_modes.ORIGINAL and share > _WARNED_SHARE:
                self._warn(step, share)
            yield
        else:
            with _restoring(self._layers):
                self._reestimate()
                yield

    def _warn(self, step: int, share: float) -> None:
        decay = max(float(layer.momentum) for layer in self._layers)
        updates = (step - self._start) * self._updates_per_step
        needed = math.log(FORGOTTEN) / math.log(decay) / self._updates_per_step if decay < 1 else None
        enough = f"train for {math.ceil(needed):,} steps, or " if needed else ""
        _log.warning(
            "Batch normalisation: %.0f %% of the moving statistics at step %d are still those that training started "
            "with (mean 0 and variance 1, or those of --checkpoint_path): %d updates with a decay (momentum) of %g "
            "leave %g^%d of them. Evaluations and the exported model use them and are worse than the training: "
            "--batch_norm auto re-estimates them on training images. Else %sgive the layers a momentum of at most %.3g",
            100 * share,
            step,
            updates,
            decay,
            decay,
            updates,
            enough,
            FORGOTTEN ** (1 / updates),
        )

    def _reestimate(self) -> None:
        started = time.monotonic()
        if self._reestimation is None:
            self._reestimation = self._create()
        images = self._reestimation()
        _log.info(
            "Batch normalisation: re-estimated the statistics of %d layers on %d training images in %.1f s",
            len(self._layers),
            images,
            time.monotonic() - started,
        )


@contextlib.contextmanager
def _without_momentum(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@contextlib.contextmanager
def _restoring(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    variables = [variable for layer in layers for variable in layer._non_trainable_variables]
    values = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
