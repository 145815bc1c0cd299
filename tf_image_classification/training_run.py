"""A training as a pipeline step: the folder of its checkpoints, which outlives the step, and the step's outputs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tf_image_classification import cluster, storage, training_key
from tf_image_classification.data import manifest as manifests
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    from tf_image_classification.train_estimator import TrainingResult

_log = logging.getLogger(__name__)

_PLACEHOLDER = "{{$"  # begins what Vertex AI and kfp.local fill in, and Kubeflow leaves as it is
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# <root>/<pipeline>/<run id>/<task>/<random id>/<output>; Kubeflow Pipelines before 2.5 has no random id. See
# `provisionOutputs` in backend/src/v2/driver/driver.go and `GetPipeline` in backend/src/v2/metadata/client.go.
_KUBEFLOW_OUTPUT = re.compile(rf"(\w+://.+)/[^/]+/{_UUID}/[^/]+(?:/{_UUID})?/[^/]+")

# Version 2.0.0 hashed all of these, at their defaults or not. Its folders are still continued; the list never changes.
# Its batch normalisation was what --batch_norm original is now.
_KEY_FLAGS_2_0_0 = frozenset(
    (
        *("adadelta_rho", "adagrad_initial_accumulator_value", "adam_beta1", "adam_beta2", "batch_size"),
        *("checkpoint_exclude_scopes", "checkpoint_path", "debug", "end_learning_rate", "estimator", "eval_freq"),
        *("eval_throttle_secs", "ftrl_initial_accumulator_value", "ftrl_l1", "ftrl_l2", "ftrl_learning_rate_power"),
        *("image_size", "label_smoothing", "learning_rate", "learning_rate_decay_factor", "learning_rate_decay_type"),
        *("mixed_precision", "model_name", "momentum", "num_epochs_per_decay", "opt_epsilon", "optimizer", "packages"),
        *("replicas_to_aggregate", "rmsprop_decay", "rmsprop_momentum", "save_checkpoints_secs", "seed"),
        *("sync_replicas", "trainable_scopes", "weight_decay"),
    )
)


class TrainOutputs(NamedTuple):
    """Where a training step writes its results.

    Attributes:
        model: the model folder.
        logs: the folder of TensorBoard event files.
        curves: the page of training curves.
        augmentation_samples: the page of augmented samples.
    """

    model: str
    logs: str
    curves: str
    augmentation_samples: str


def train(
    data_dir: str,
    flags: Flags,
    outputs: TrainOutputs,
    *,
    pipeline_root: str,
    checkpoint_version: str,
    estimator_version: str = "",
    output_uri: str = "",
) -> TrainingResult:
    """Trains on a built data set, with checkpoints that outlive the step.

    Checkpoints are kept in a folder named by a hash of everything that decides the training except --train_steps: equal
    inputs resume, also with more steps; new data, new flags or other code of --estimator start afresh.

    Args:
        data_dir: the folder that build_tfrecords wrote.
        flags: of the train step. `model_dir` names the parent of the checkpoint folders, default
            `<pipeline_root>/checkpoints`, and is replaced by the folder of this training.
        outputs: each is written whole or not at all; in a cluster by the chief.
        pipeline_root: as the service fills it in; where it leaves the placeholder, as Kubeflow does, the root is taken
            from `output_uri`.
        checkpoint_version: identifies the content at `checkpoint_path`.
        estimator_version: of the code that the resolve step found; '' for no check against it.
        output_uri: of any output artifact of the step.

    Raises:
        UserError: as `train_estimator.train_and_evaluate`; FlagError without a folder for checkpoints;
            ConflictError if --packages have been replaced since the resolve step.
    """
    from tf_image_classification import estimator_loading, train_estimator
    from tf_image_classification.training import curves, training_folder

    storage.bill_to(flags.billing_project)
    is_chief = cluster.current().is_chief
    if is_chief:  # where a bucket is mounted, the outputs are its objects; elsewhere this checks nothing
        folder = storage.canonical(os.path.dirname(outputs.model))
        storage.check_overwritable(folder, "The train step replaces its files")
    data = manifests.read(data_dir)
    parent = checkpoints_parent(flags.model_dir, pipeline_root, output_uri)
    spec = estimator_loading.load(flags.estimator, flags.packages)
    spec.code.check_resolved(estimator_version)
    flags.model_dir = _checkpoint_dir(parent, flags, data.fingerprint, checkpoint_version, spec.code.version)
    _log.info("Checkpoints: %s", flags.model_dir)
    result = train_estimator.train_and_evaluate(
        spec, data, flags, export_dir=outputs.model, checkpoint_version=checkpoint_version
    )
    if not is_chief:
        return result
    with storage.replacing_dir(outputs.logs, "eval") as staging:
        _copy_events(flags.model_dir, staging)
    storage.write_text(outputs.curves, curves.page(flags.model_dir))
    # Not storage.read_bytes: a mount may show an older version.
    samples, _ = storage.read_version(storage.join(flags.model_dir, training_folder.AUGMENTATION_FILE))
    storage.write_bytes(outputs.augmentation_samples, samples or b"")
    return result


def checkpoints_parent(model_dir: str | None, pipeline_root: str, output_uri: str) -> str:
    """The folder that has a folder of checkpoints for each training; for arguments and errors see `train`."""
    if model_dir:
        return model_dir
    root = pipeline_root_of(output_uri) if _PLACEHOLDER in pipeline_root else pipeline_root
    return storage.join(root, "checkpoints")


def pipeline_root_of(output_uri: str) -> str:
    """The pipeline root in the URI of an output artifact on Kubeflow; it is the same in all runs that have this root.

    Raises:
        FlagError: the URI has another form.
    """
    found = _KUBEFLOW_OUTPUT.fullmatch(output_uri)
    if not found:
        raise FlagError(
            "--model_dir is required here: this service does not pass the pipeline root to its steps",
            received=output_uri,
            expected="gs://BUCKET/FOLDER for the checkpoints",
        )
    return found[1]


def _checkpoint_dir(parent: str, flags: Flags, fingerprint: str, checkpoint_version: str, code_version: str) -> str:
    """The folder of this training's checkpoints: one that exists already, or a new one.

    A folder that is past --train_steps would give a model of more steps than requested, so it is left alone. Those of
    2.0.0 do not tell which code of an --estimator they are of.
    """
    from tf_image_classification.checkpoints import checkpoint_file

    key_flags = training_key.checkpoint_key_flags(vars(flags))
    known = {name: value for name, value in key_flags.items() if (name, value) != ("batch_norm", "original")}
    folder = storage.join(parent, _key(key_flags, fingerprint, checkpoint_version, code_version))
    latest = checkpoint_file.latest(folder)
    if latest is None and known.keys() <= _KEY_FLAGS_2_0_0 and not code_version:
        all_flags = {name: getattr(flags, name) for name in sorted(_KEY_FLAGS_2_0_0)} | known
        folder_2_0_0 = storage.join(parent, _key(all_flags, fingerprint, checkpoint_version))
        latest = checkpoint_file.latest(folder_2_0_0)
        folder = folder if latest is None else folder_2_0_0
    step = latest.rpartition("-")[2] if latest else ""
    is_past = step.isdecimal() and int(step) > flags.train_steps
    return f"{folder}-{flags.train_steps}" if is_past else folder


def _key(key_flags: Mapping[str, object], fingerprint: str, checkpoint_version: str, code_version: str = "") -> str:
    versions = [fingerprint, checkpoint_version]
    text = json.dumps([*versions, key_flags, code_version] if code_version else [*versions, key_flags])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _copy_events(model_dir: str, target: str) -> None:
    from tf_image_classification.training import training_folder

    with storage.temporary_dir() as cache_dir:
        for file in storage.walk(model_dir):
            if training_folder.is_summary(os.path.basename(file.path)):
                copy = os.path.join(target, os.path.relpath(file.path, model_dir))
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                shutil.copyfile(storage.fetch(file.path, cache_dir), copy)
