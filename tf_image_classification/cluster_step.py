"""The train step of a pipeline that was compiled with --replicas: launches the cluster, and hands its results on.

It runs in a small image without TensorFlow, which the tasks of the cluster have.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace

from tf_image_classification import storage, training_run
from tf_image_classification.cluster_exchange import Training
from tf_image_classification.flags import Flags
from tf_image_classification.launch.job import ClusterShape, Job, Launcher
from tf_image_classification.launch.processes import LocalProcesses
from tf_image_classification.training_run import TrainOutputs

_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"  # a variable of every container of Kubernetes
_PLACEHOLDER = "{{$"  # begins what only Vertex AI fills in
# Kubeflow's folder of a task's outputs ends so, and a repeated task gets another one.
_TASK_ID = re.compile(r"/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def train(
    data_uri: str,
    flags: Flags,
    outputs: TrainOutputs,
    *,
    cluster: str,
    run: Mapping[str, str],
    pipeline_root: str,
    output_uri: str,
    checkpoint_version: str,
    estimator_version: str,
) -> dict[str, float]:
    """Trains on a cluster as `training_run.train` does on one machine, and returns the metrics.

    Args:
        data_uri: of the folder that build_tfrecords wrote.
        flags, outputs, pipeline_root, output_uri, checkpoint_version, estimator_version: as of `training_run.train`.
        cluster: a ClusterShape in JSON.
        run: `project`, `location`, `service_account`, `network` and `encryption_key` of the run, as Vertex AI fills
            them in.

    Raises:
        UserError: as of `Launcher.run`; FlagError where the batches cannot be divided, or without a folder.
        SystemExit: the step was stopped; the cluster is too.
    """
    run = {name: "" if _PLACEHOLDER in value else value for name, value in run.items()}
    shape = replace(
        ClusterShape.from_json(cluster),
        service_account=run["service_account"],
        network=run["network"],
        encryption_key=run["encryption_key"],
    )
    storage.bill_to(flags.billing_project)
    shape.check_flags(vars(flags))
    parent = training_run.checkpoints_parent(flags.model_dir, pipeline_root, output_uri)
    training = Training(
        data=data_uri,
        flags={**vars(flags), "model_dir": parent},
        folder="",
        checkpoint_version=checkpoint_version,
        estimator_version=estimator_version,
    )
    task_folder = _TASK_ID.sub("", posixpath.dirname(output_uri))
    identity = hashlib.sha256(f"{task_folder}\n{cluster}\n{training.to_json()}".encode()).hexdigest()
    name = f"train-{identity[:24]}"
    training = replace(training, folder=storage.join(parent, "clusters", name))
    command = ["python", "-m", "tf_image_classification.cluster_task", training.to_json()]
    choose(shape.image, run["project"], run["location"]).run(Job(name, command, shape, training.folder))
    return training.collect(*outputs)


def choose(image: str, project: str, location: str) -> Launcher:
    """The platform that this step runs on: Vertex AI, Kubernetes, or this machine itself.

    Args:
        image: of the tasks; '' for processes of this step, in whichever place it runs.
        project, location: of the run on Vertex AI; '' elsewhere.
    """
    if image and location:
        from tf_image_classification.vertex.custom_job import CustomJobs

        return CustomJobs(project, location)
    if image and _IN_CLUSTER in os.environ:
        from tf_image_classification.launch.training_operator import TrainingOperator

        return TrainingOperator()
    return LocalProcesses()
