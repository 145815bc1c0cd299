"""A training as a pipeline step: where its checkpoints live, and what it hands on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from tf_image_classification import storage
from tf_image_classification.data import manifest as manifests
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    from tf_image_classification.train_estimator import TrainingResult

_log = logging.getLogger(__name__)

_PLACEHOLDER = "{{$"  # begins what Vertex AI and kfp.local fill in, and Kubeflow leaves as it is


class Outputs(NamedTuple):
    """Where a training step's results go: the model folder, the folder of TensorBoard event files, the page of
    curves."""

    model: str
    logs: str
    curves: str


def train(data_dir: str, flags: Flags, outputs: Outputs, *, pipeline_root: str, checkpoint_version: str) -> TrainingResult:
    """Trains on a built data set, with checkpoints that outlive the step.

    Checkpoints live in a folder named by a hash of everything that decides the training except --train_steps: equal
    inputs resume, also with more steps; new data or new flags start afresh.

    Args:
        data_dir: what build_tfrecords wrote.
        flags: of the train step; `model_dir` names the parent of the checkpoint folders, default
            `<pipeline_root>/checkpoints`.
        checkpoint_version: identifies the content at `checkpoint_path`.
    """
    from tf_image_classification import estimator_specs, train_estimator
    from tf_image_classification.training import curves

    if not flags.model_dir and _PLACEHOLDER in pipeline_root:
        raise FlagError(
            "--model_dir is required here: this service does not tell its steps the pipeline root",
            expected="gs://BUCKET/FOLDER, where checkpoints live",
        )
    data = manifests.read(data_dir)
    parent = flags.model_dir or storage.join(pipeline_root, "checkpoints")
    flags.model_dir = _checkpoint_dir(parent, _key(flags, data.fingerprint, checkpoint_version), flags.train_steps)
    _log.info("Checkpoints: %s", flags.model_dir)
    spec = estimator_specs.load(flags.estimator, flags.packages)
    outcome = train_estimator.train_and_evaluate(
        spec, data, flags, export_dir=outputs.model, checkpoint_version=checkpoint_version
    )
    with storage.replacing_dir(outputs.logs, "eval") as aside:
        _copy_events(flags.model_dir, aside)
    storage.write_text(outputs.curves, curves.page(flags.model_dir))
    return outcome


def _key(flags: Flags, fingerprint: str, checkpoint_version: str) -> str:
    deciding = {name: value for name, value in sorted(vars(flags).items()) if name not in ("train_steps", "model_dir")}
    text = json.dumps([fingerprint, checkpoint_version, deciding])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _checkpoint_dir(parent: str, key: str, train_steps: int) -> str:
    """The folder of this training. One that is past `train_steps` already would hand on a model of more steps than
    asked for."""
    from tf_image_classification.checkpoints import state

    folder = storage.join(parent, key)
    latest = state.latest(folder)
    past = latest is not None and int(latest.rpartition("-")[2]) > train_steps
    return f"{folder}-{train_steps}" if past else folder


def _copy_events(model_dir: str, target: str) -> None:
    from tf_image_classification.training import folder as training_folder

    with storage.temporary_dir() as aside:
        for file in storage.walk(model_dir):
            if training_folder.is_summary(os.path.basename(file.path)):
                copy = os.path.join(target, os.path.relpath(file.path, model_dir))
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                shutil.copyfile(storage.fetch(file.path, aside), copy)
