"""The tf.distribute strategy, chosen from the machine and TF_CONFIG."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from tf_image_classification.errors import FlagError


def tf_config() -> dict[str, Any]:
    """The content of the environment variable TF_CONFIG; empty when it is not set.

    Vertex AI and Kubeflow set it: https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable

    Raises:
        FlagError: TF_CONFIG is not JSON.
    """
    text = os.environ.get("TF_CONFIG", "").strip() or "{}"
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise FlagError("The environment variable TF_CONFIG is not a JSON object", received=text) from None


def strategy() -> tf.distribute.Strategy:
    """The strategy for this machine and TF_CONFIG.

    Several workers: MultiWorkerMirroredStrategy. Several GPUs: MirroredStrategy. One device: the default strategy.

    Parameter servers: the default strategy for what the chief keeps of the state, see `parameter_servers`.
    """
    cluster = tf_config().get("cluster", {})
    if cluster.get("ps"):
        return tf.distribute.get_strategy()
    if sum(len(cluster.get(role, ())) for role in ("chief", "master", "worker")) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def trial_dir(model_dir: str) -> str:
    """`model_dir`, or a trial's own folder in it when TF_CONFIG names a trial of hyperparameter tuning."""
    trial = str(tf_config().get("task", {}).get("trial", ""))
    return os.path.join(model_dir, trial) if trial else model_dir
