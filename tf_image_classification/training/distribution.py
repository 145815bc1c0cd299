"""The tf.distribute strategy, chosen from the machine and TF_CONFIG."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from tf_image_classification.errors import FlagError


def tf_config() -> dict[str, Any]:
    """What TF_CONFIG says about the cluster; empty when it is not set.

    Raises:
        FlagError: TF_CONFIG is not JSON.
    """
    text = os.environ.get("TF_CONFIG", "").strip() or "{}"
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise FlagError("The environment variable TF_CONFIG is not a JSON object", received=text) from None


def strategy() -> tf.distribute.Strategy:
    """One device: the default strategy. Several GPUs: MirroredStrategy. A cluster of workers:
    MultiWorkerMirroredStrategy.

    Raises:
        FlagError: TF_CONFIG describes a cluster with parameter servers, which this version does not train on.
    """
    cluster = tf_config().get("cluster", {})
    if cluster.get("ps"):
        raise FlagError(
            "TF_CONFIG describes a cluster with parameter servers",
            received=", ".join(sorted(cluster)),
            expected="workers only: they train synchronously",
        )
    if sum(len(cluster.get(role, ())) for role in ("chief", "master", "worker")) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def trial_dir(model_dir: str) -> str:
    """`model_dir`, or the folder of this trial in it when TF_CONFIG says that hyperparameters are being tuned."""
    trial = str(tf_config().get("task", {}).get("trial", ""))
    return os.path.join(model_dir, trial) if trial else model_dir
