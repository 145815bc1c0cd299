"""The TFJob of a cluster: what its pods are told, and what they take over from the pod that creates it.

The API is kubeflow.org/v1 of Kubeflow's training operator 1.x:
https://github.com/kubeflow/trainer/blob/release-1.9/pkg/apis/kubeflow.org/v1/tensorflow_types.go
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tf_image_classification.launch.job import ClusterShape, Job

_log = logging.getLogger(__name__)

API_VERSION, KIND = "kubeflow.org/v1", "TFJob"
CONTAINER = "tensorflow"  # the name by which the operator knows the container whose exit code counts
_STEP_CONTAINER = "main"  # Argo's name of the container of a step
_REPLICA_TYPES = {"chief": "Chief", "worker": "Worker", "ps": "PS", "evaluator": "Evaluator"}
# A pod's own fields, and volumes, that --kubernetes, the cluster's defaults or its administrator decide.
_POD_FIELDS = ("nodeSelector", "tolerations", "affinity", "imagePullSecrets", "priorityClassName", "securityContext")
_CONTAINER_FIELDS = ("imagePullPolicy", "securityContext")
_VOLUME_KINDS = ("persistentVolumeClaim", "secret", "configMap")  # an emptyDir of the launching pod is KFP's own
_OWN_VARIABLES = ("ARGO_", "KFP_")
# Kubernetes' default of 30 s is short for saving a checkpoint of a large model to a bucket.
_GRACE_SECS = 60


def manifest(job: Job, pod: Mapping[str, Any]) -> dict[str, Any]:
    """The TFJob that runs a job.

    The operator starts a pod again that ended by a signal or with an exit code from 128 on, or that was evicted; any
    other exit code than 0 is final. The job succeeds with its chief. It is deleted with what owns the launching pod,
    the Argo workflow of the run.

    Args:
        pod: the launching pod, as the API returns it.
    """
    _warn_of_what_has_no_effect(job.shape)
    counts = {role: count for role, count in job.shape.tasks.items() if count}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": job.name, "ownerReferences": [_owner(pod)]},
        "spec": {
            # Pods that have ended are kept for their logs; the others, as parameter servers, are deleted.
            "runPolicy": {"cleanPodPolicy": "Running"},
            "tfReplicaSpecs": {
                _REPLICA_TYPES[role]: {
                    "replicas": count,
                    "restartPolicy": "ExitCode",
                    "template": _template(job, role, pod),
                }
                for role, count in counts.items()
            },
        },
    }


def _template(job: Job, role: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    spec = pod["spec"]
    step = next(one for one in spec["containers"] if one["name"] == _STEP_CONTAINER)
    volumes = [one for one in spec.get("volumes", []) if any(kind in one for kind in _VOLUME_KINDS)]
    names = {volume["name"] for volume in volumes}
    container = {
        "name": CONTAINER,
        "image": job.shape.image,
        "command": job.command,
        "env": [variable for variable in step.get("env", []) if _is_taken_over(variable)],
        "resources": _resources(job.shape, role),
        "volumeMounts": [mount for mount in step.get("volumeMounts", []) if mount["name"] in names],
        **{name: step[name] for name in _CONTAINER_FIELDS if name in step},
    }
    return {
        # The sidecar of Istio, which namespaces of Kubeflow's profiles inject, would never end.
        "metadata": {
            "annotations": {"sidecar.istio.io/inject": "false"},
            "labels": {"sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "containers": [container],
            "volumes": volumes,
            "serviceAccountName": job.shape.service_account or spec.get("serviceAccountName", "default"),
            "terminationGracePeriodSeconds": _GRACE_SECS,
            **{name: spec[name] for name in _POD_FIELDS if name in spec},
        },
    }


def _is_taken_over(variable: Mapping[str, Any]) -> bool:
    """Whether a variable of the step is one of its own, and not what Argo and KFP tell their container or pod."""
    return not variable["name"].startswith(_OWN_VARIABLES) and "fieldRef" not in variable.get("valueFrom", {})


def _resources(shape: ClusterShape, role: str) -> dict[str, Any]:
    """The limits, which are the requests too. Tasks that compute no gradients and no metrics get no accelerator."""
    limits = {"cpu": shape.cpu, "memory": shape.memory.replace("K", "k")}  # Kubernetes writes 10^3 as k
    coordinates = role == "ps" or (role == "chief" and shape.parameter_servers)
    if shape.accelerator and not coordinates:
        kind, _, count = shape.accelerator.rpartition(":")
        limits[kind] = count
    limits = {name: amount for name, amount in limits.items() if amount}
    return {"limits": limits, "requests": limits} if limits else {}


def _owner(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The reference by which the job is deleted with its run: to what controls the pod, or to the pod itself.

    The pod of a step that is retried may be gone while its job goes on, so that it is the second choice.
    """
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences", []):
        if owner.get("controller"):
            return {name: owner[name] for name in ("apiVersion", "kind", "name", "uid")}
    return {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}


def _warn_of_what_has_no_effect(shape: ClusterShape) -> None:
    given = {
        "--network": shape.network,
        "--encryption_key": shape.encryption_key,
        "--tensorboard": shape.tensorboard,
        "--spot": "true" if shape.spot else "",
    }
    if names := [name for name, value in given.items() if value]:
        _log.warning("%s: no effect on Kubernetes; --kubernetes selects nodes, Spot nodes too", ", ".join(names))
