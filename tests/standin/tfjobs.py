"""Kubeflow's training operator: each replica of a TFJob is a process on this machine. Images are not used.

As of https://github.com/kubeflow/trainer/tree/release-1.9/pkg/controller.v1.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from tests.standin.pods import Pod
from tf_image_classification.launch.processes import free_ports

NAMESPACE = "team"
_PATH = re.compile(r"/(?:api/v1|apis/kubeflow\.org/v1)/namespaces/[^/]+/(pods|events|tfjobs)(?:/([^/]+))?(/log)?")
_DNS_1035 = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_REPLICA_TYPES = ("Chief", "Evaluator", "Master", "PS", "Worker")
_RUN_POLICY = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "cleanPodPolicy",
    "managedBy",
    "schedulingPolicy",
    "suspend",
    "ttlSecondsAfterFinished",
}
_RECONCILE_SECS = 0.05
_NO_PATH = "404 page not found"  # what is answered for an API that is not installed

Resource = dict[str, Any]


class StatusError(Exception):
    """A response that is an error.

    Attributes:
        code: HTTP status.
        body: a Status object, or the text of a path that is not served.
    """

    def __init__(self, code: int, body: Any) -> None:
        super().__init__(code, body)
        self.code = code
        self.body = body if body == _NO_PATH else {"kind": "Status", "code": code, "message": body}


class TFJobs:
    """The TFJobs of the namespace `team`, their pods, and what happens to them.

    Attributes:
        is_installed: whether the cluster knows TFJobs.
        jobs, pods: by name.
        created: names of the pods that were ever created, in order.
        launching_pod: what the pod of a step looks like.
        environment: variables of the pods, besides those of this process and of their containers.
        refusal: why no pod can be created, as an exceeded quota; '' if pods can.
        obstacle: what pods wait for: a reason, as `Unschedulable` or `ImagePullBackOff`; '' if they start.
    """

    def __init__(self) -> None:
        self.is_installed, self.refusal, self.obstacle = True, "", ""
        self.jobs: dict[str, Resource] = {}
        self.pods: dict[str, Pod] = {}
        self.created: list[str] = []
        self.launching_pod = _launching_pod()
        self.environment: dict[str, str] = {}
        self._events: list[Resource] = []
        self._addresses: dict[str, dict[str, list[str]]] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Kills all pods."""
        self._stopped.set()
        with self._lock:
            for pod in self.pods.values():
                pod.kill()

    def asked(self, method: str, path: str) -> tuple[str, str, str]:
        """The verb, resource and name of a request, as a role names them."""
        found = _PATH.fullmatch(path)
        if not found or (found[1] == "tfjobs") != path.startswith("/apis/"):
            raise StatusError(404, _NO_PATH)
        verb = {"GET": "get" if found[2] else "list", "POST": "create", "DELETE": "delete"}[method]
        return verb, found[1] + (found[3] or ""), found[2] or ""

    def answer(self, verb: str, resource: str, name: str, query: Mapping[str, str], given: Resource) -> Any:
        """The object, list or text that is asked for."""
        with self._lock:
            if resource == "tfjobs":
                return self._answer_jobs(verb, name, given)
            if resource == "events":
                uid = query["fieldSelector"].removeprefix("involvedObject.uid=")
                return {"items": [one for one in self._events if one["involvedObject"]["uid"] == uid]}
            if resource == "pods/log":
                return self._pod(name).log(query)
            if verb == "get":
                own = self.launching_pod
                return own if name == own["metadata"]["name"] else self._pod(name).resource()
            label, _, value = query["labelSelector"].partition("=")
            pods = [pod.resource() for pod in self.pods.values()]
            return {"items": [pod for pod in pods if pod["metadata"]["labels"].get(label) == value]}

    def kill(self, pod: str, number: int) -> None:
        """Sends a signal to the process of a pod."""
        with self._lock:
            self.pods[pod].send(number)

    def _answer_jobs(self, verb: str, name: str, given: Resource) -> Resource:
        if not self.is_installed:
            raise StatusError(404, _NO_PATH)
        if verb == "create":
            return self._create(given)
        if name not in self.jobs:
            raise StatusError(404, f'tfjobs.kubeflow.org "{name}" not found')
        job = self.jobs[name]
        if verb == "delete":
            if given.get("preconditions", {}).get("uid", job["metadata"]["uid"]) != job["metadata"]["uid"]:
                raise StatusError(409, "the UID in the precondition does not match")
            job["metadata"].setdefault("deletionTimestamp", "now")
        return job

    def _create(self, given: Resource) -> Resource:
        check(given)
        name = given["metadata"]["name"]
        if name in self.jobs:
            raise StatusError(409, f'tfjobs.kubeflow.org "{name}" already exists')
        job = json.loads(json.dumps(given))
        job["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE}
        job["status"] = {"conditions": [_condition("Created")]}
        self.jobs[name] = job
        threading.Thread(target=self._follow, args=[name], daemon=True).start()
        return job

    def _pod(self, name: str) -> Pod:
        if name not in self.pods:
            raise StatusError(404, f'pods "{name}" not found')
        return self.pods[name]

    def _follow(self, name: str) -> None:
        """Reconciles a job until it is deleted."""
        while not self._stopped.wait(_RECONCILE_SECS):
            with self._lock:
                job = self.jobs[name]
                pods = [pod for pod in self.pods.values() if pod.job == name]
                deleted = "deletionTimestamp" in job["metadata"]
                if deleted or _holds(job, "Succeeded", "Failed"):
                    policy = job["spec"].get("runPolicy", {}).get("cleanPodPolicy", "None")
                    for pod in pods:
                        if deleted or policy == "All" or (policy == "Running" and not pod.has_ended):
                            self._delete(pod)
                elif _holds(job, "Suspended"):
                    for pod in pods:
                        self._delete(pod)
                else:
                    self._reconcile(name, job)
                if deleted and not any(pod.job == name for pod in self.pods.values()):
                    del self.jobs[name]
                    return

    def _reconcile(self, name: str, job: Resource) -> None:
        for kind, replicas in job["spec"]["tfReplicaSpecs"].items():
            for index in range(replicas["replicas"]):
                pod = self.pods.get(f"{name}-{kind.lower()}-{index}")
                if pod is None:
                    self._start(name, job, kind, index)
                elif pod.has_ended and pod.code != 0:
                    message = f"Pod: {NAMESPACE}.{pod.name} exited with code {pod.code}"
                    self._event(job, "ExitedWithCode", message)
                    if replicas["restartPolicy"] == "ExitCode" and pod.code >= 128:
                        self._delete(pod)
                        _set(job, "Restarting")
                    else:
                        _set(job, "Failed", f"TFJob {NAMESPACE}/{name} has failed because 1 {kind} replica(s) failed.")
        chief = self.pods.get(f"{name}-chief-0") or self.pods.get(f"{name}-worker-0")
        if chief and not _holds(job, "Failed"):
            _set(job, "Succeeded" if chief.has_ended and chief.code == 0 else "Running")

    def _start(self, name: str, job: Resource, kind: str, index: int) -> None:
        if self.refusal:
            self._event(job, "FailedCreatePod", f"Error creating: pods is forbidden: {self.refusal}")
            return
        specs = job["spec"]["tfReplicaSpecs"]
        counts = {one.lower(): replicas["replicas"] for one, replicas in specs.items()}
        if name not in self._addresses:
            ports = iter(free_ports(sum(counts.values())))
            self._addresses[name] = {
                role: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for role, count in counts.items()
            }
        variables = dict(self.environment)
        if sum(counts.values()) > 1:
            task = {"type": kind.lower(), "index": index}
            cluster = {"cluster": self._addresses[name], "task": task, "environment": "cloud"}
            variables["TF_CONFIG"] = json.dumps(cluster)
        pod = Pod(name, kind.lower(), index, specs[kind]["template"], variables, self.obstacle)
        self.pods[pod.name] = pod
        self.created.append(pod.name)

    def _delete(self, pod: Pod) -> None:
        """Ends a pod, and removes it once it has ended."""
        if pod.end():
            del self.pods[pod.name]

    def _event(self, job: Resource, reason: str, message: str) -> None:
        about = {"kind": "TFJob", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        stamp = f"{time.time():.3f}"
        self._events.append({"reason": reason, "message": message, "involvedObject": about, "lastTimestamp": stamp})


def check(given: Resource) -> None:
    """Checks a TFJob as the API server and the operator's webhook do, but refuses unknown fields.

    Raises:
        StatusError: it is refused.
    """
    from kubernetes.client import models

    if given.get("apiVersion") != "kubeflow.org/v1" or given.get("kind") != "TFJob":
        raise StatusError(400, "no kind TFJob is registered for this version")
    _check_fields(given["metadata"], models.V1ObjectMeta, "metadata")
    spec = given["spec"]
    unknown = set(spec) - {"runPolicy", "successPolicy", "tfReplicaSpecs", "enableDynamicWorker"}
    unknown |= set(spec.get("runPolicy", {})) - _RUN_POLICY
    if unknown:
        raise StatusError(400, f"strict decoding error: unknown field {', '.join(sorted(unknown))}")
    for kind, replicas in spec["tfReplicaSpecs"].items():
        if kind not in _REPLICA_TYPES or set(replicas) - {"replicas", "restartPolicy", "template"}:
            raise StatusError(400, f"strict decoding error: unknown field in {kind}")
        _check_fields(replicas["template"], models.V1PodTemplateSpec, f"spec.tfReplicaSpecs[{kind}].template")
        containers = replicas["template"]["spec"]["containers"]
        if not any(one["name"] == "tensorflow" and one.get("image") for one in containers):
            raise StatusError(403, "admission webhook denied the request: must have a container with name tensorflow")
        name = f"{given['metadata']['name']}-{kind.lower()}-{replicas['replicas'] - 1}"  # of a pod and its service
        if not _DNS_1035.fullmatch(given["metadata"]["name"]) or not _DNS_1035.fullmatch(name):
            raise StatusError(
                403, f"admission webhook denied the request: metadata.name: {name}: must be a DNS-1035 label"
            )


def _check_fields(given: Any, kind: Any, path: str) -> None:
    """Checks the names of fields by the client's model of a type, and of what is in it."""
    from kubernetes.client import models

    names = {name: attribute for attribute, name in kind.attribute_map.items()}
    for name, value in given.items():
        if name not in names:
            raise StatusError(400, f'strict decoding error: unknown field "{path}.{name}"')
        inner = kind.openapi_types[names[name]]
        of = getattr(models, inner.removeprefix("list[").removesuffix("]"), None)
        for one in value if inner.startswith("list[") else [value]:
            if of is not None:
                _check_fields(one, of, f"{path}.{name}")


def _condition(kind: str, message: str = "") -> Resource:
    return {"type": kind, "status": "True", "reason": f"TFJob{kind}", "message": message}


def _holds(job: Resource, *kinds: str) -> bool:
    return any(one["type"] in kinds and one["status"] == "True" for one in job["status"]["conditions"])


def _set(job: Resource, kind: str, message: str = "") -> None:
    """Sets a condition; Running and Restarting exclude each other."""
    exclude = {"Running": "Restarting", "Restarting": "Running"}.get(kind)
    kept = [one for one in job["status"]["conditions"] if one["type"] not in (kind, exclude)]
    job["status"]["conditions"] = [*kept, _condition(kind, message)]


def _launching_pod() -> Resource:
    """The pod of a step, with what Argo and KFP give it, and with the settings of a --kubernetes file."""
    names = ("kfp-launcher", "gcs-scratch", "kube-api-access-x")
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in (*names, "data", "keys")]
    variables = [
        {"name": "ARGO_TEMPLATE", "value": "{}"},
        {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "HF_HOME", "value": "/data/hub"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
    ]
    owner = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "name": "training-x",
        "uid": "uid-of-the-workflow",
    }
    return {
        "metadata": {
            "name": "training-x-train",
            "uid": "uid-of-the-pod",
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "serviceAccountName": "default-editor",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
            "securityContext": {"fsGroup": 1000},
            "nodeName": "node-1",
            "volumes": [
                {"name": "kfp-launcher", "emptyDir": {}},
                {"name": "gcs-scratch", "emptyDir": {}},
                {"name": "kube-api-access-x", "projected": {"sources": []}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "photos"}},
                {"name": "keys", "secret": {"secretName": "keys"}},
            ],
            "containers": [
                {"name": "wait", "image": "argoexec"},
                {
                    "name": "main",
                    "image": "launch:1",
                    "imagePullPolicy": "IfNotPresent",
                    "env": variables,
                    "volumeMounts": mounts,
                },
            ],
        },
        "status": {"phase": "Running"},
    }
