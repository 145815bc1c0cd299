"""How a run on Kubeflow ended, as its Argo workflow says: KFP's own status of a run does not tell.

Kubeflow passes an exit handler the state that the pods of the steps have recorded. A step whose pod was killed, refused
or never started has recorded nothing, and so the state stays RUNNING, as it does after many runs that succeed. A step
that failed and then succeeded when it was retried may have left FAILED.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tf_image_classification.errors import ServiceError

_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"  # variables of every container of a cluster
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_RUN_NAME = "pipelines.kubeflow.org/run_name"  # annotation of a workflow
_FAILED = ("Failed", "Error")  # phases of a node
_GROUPS = ("DAG", "Retry", "Steps", "StepGroup", "TaskGroup")  # types of nodes that are made of others
_TIMEOUT_SECS = 30
# The controller stores how the handler's tasks ended while it starts the exit handler.
_ATTEMPTS, _WAIT_SECS = 10, 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: its display name, or the name of its workflow.
        failed: whether a step failed for good.
        errors: `STEP: MESSAGE` of each step that failed, as `train: OOMKilled (exit code 137)`.
    """

    run: str
    failed: bool
    errors: tuple[str, ...] = ()


def is_in_cluster() -> bool:
    """Whether this process runs in a Kubernetes cluster."""
    return _HOST in os.environ


def read(workflow: str, task: str) -> Outcome:
    """Asks the cluster how the tasks of an exit handler ended, with the account of this pod.

    Args:
        workflow: name of the run's workflow, KFP's pipeline_job_resource_name.
        task: name of the exit handler's group of tasks, KFP's pipeline_task_name.

    Raises:
        ServiceError: the workflow cannot be read, or does not tell.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_WAIT_SECS)
        try:
            found = _get(workflow)
        except ServiceError as error:
            unknown = error
            continue
        nodes = _nodes(found)
        group = next((node for node in nodes if node.get("displayName") == task and node.get("type") == "DAG"), {})
        phase = group.get("phase", "none")
        if phase in ("Succeeded", *_FAILED):
            metadata = found["metadata"]
            run = metadata.get("annotations", {}).get(_RUN_NAME) or metadata["name"]
            return Outcome(run, phase in _FAILED, _errors(nodes, group) if phase in _FAILED else ())
        unknown = ServiceError(f"The workflow {workflow} does not say how {task} ended", received=f"phase {phase}")
    raise unknown


def _get(workflow: str) -> dict[str, Any]:
    """The workflow, over Kubernetes' REST API."""
    host = os.environ[_HOST]
    host = f"[{host}]" if ":" in host else host
    try:
        namespace, token = ((_ACCOUNT / name).read_text().strip() for name in ("namespace", "token"))
        with requests.Session() as session:
            session.trust_env = False  # a proxy is not for addresses of the cluster
            response = session.get(
                f"https://{host}:{os.environ[_PORT]}/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows/{workflow}",
                headers={"Authorization": f"Bearer {token}"},
                verify=str(_ACCOUNT / "ca.crt"),
                timeout=_TIMEOUT_SECS,
            )
    except (OSError, requests.RequestException) as error:
        raise ServiceError(f"The workflow {workflow} cannot be read", received=type(error).__name__) from error
    if response.status_code != requests.codes.ok:
        raise ServiceError(
            f"The workflow {workflow} cannot be read",
            received=f"{response.status_code} {response.reason}",
            hint="The pods' service account needs the verb get on workflows.argoproj.io."
            if response.status_code == requests.codes.forbidden
            else "",
        )
    return dict(response.json())


def _nodes(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a workflow, by start; Argo compresses those of a large one."""
    status = workflow.get("status", {})
    nodes = status.get("nodes") or {}
    if compressed := status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(compressed)))
    return sorted(nodes.values(), key=lambda node: str(node.get("startedAt")))


def _errors(nodes: list[dict[str, Any]], group: Mapping[str, Any]) -> tuple[str, ...]:
    """Each failed step and why, by the last pod of it that failed; of a step that was retried with success, nothing."""
    succeeded = {node["name"] for node in nodes if node.get("phase") == "Succeeded"}
    errors: dict[str, str] = {}
    for node in nodes:
        name = node["name"]
        if node.get("type") in _GROUPS or node.get("phase") not in _FAILED or not name.startswith(f"{group['name']}."):
            continue
        attempts = re.sub(r"\(\d+\)$", "", name)  # the node of which this is an attempt
        if attempts not in succeeded:
            step = attempts.removesuffix(".executor").rpartition(".")[2]
            errors[step] = node.get("message") or node["phase"]
    return tuple(f"{step}: {message}" for step, message in errors.items()) or (str(group.get("message") or ""),)
