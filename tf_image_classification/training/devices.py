"""How the GPUs of this machine are used; without one, nothing changes."""

from __future__ import annotations

import functools
import logging
import os

import tensorflow as tf

_log = logging.getLogger(__name__)


def prepare() -> None:
    """Gives GPUs threads of their own for launching kernels, and memory as they need it; call it before the first
    operation.

    Threads: https://www.tensorflow.org/guide/gpu_performance_analysis. A TF_GPU_THREAD_MODE that is set stays.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    os.environ.setdefault("TF_GPU_THREAD_MODE", "gpu_private")
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:  # an estimator has initialised or divided them itself
        _log.info("GPUs keep the memory settings that they have: %s", error)


@functools.cache  # two strategies in a process would use the same numbers for their collective operations
def gpu_strategy(count: int) -> tf.distribute.Strategy:
    """The strategy for so many GPUs: of one, too, one that copies the next batch to it while a step computes, which
    the default strategy does not."""
    return tf.distribute.MirroredStrategy() if count > 1 else tf.distribute.OneDeviceStrategy("GPU:0")
