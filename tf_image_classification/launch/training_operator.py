"""A cluster as a TFJob of Kubeflow's training operator, which the launching pod creates and follows."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from tf_image_classification.errors import ServiceError, TrainingError, UnavailableError
from tf_image_classification.launch import stop_signal, task_lines, task_pods, tfjob
from tf_image_classification.launch.job import Job
from tf_image_classification.launch.kubernetes_api import KubernetesApi, RefusedError
from tf_image_classification.launch.task_pods import Obstacle, Pod
from tf_image_classification.launch.tfjob import CONTAINER

_log = logging.getLogger(__name__)

_POD_NAME = ("KFP_POD_NAME", "HOSTNAME")  # variables of KFP's container, and of any
_CANCEL_SECS = 180.0  # how long a deletion may take
_TAIL_LINES = 20
_OVERLAP_SECS = 60  # what is read of a log again, lest a line be lost
_EXIT_EVENT = "ExitedWithCode"


class TrainingOperator:
    """Creates the TFJob of a job, or re-attaches to it, and follows it to its end.

    The operator starts lost tasks again; see `tfjob.manifest`.

    Args:
        poll_secs: between two looks at the job.
    """

    def __init__(self, poll_secs: float = 5.0) -> None:
        self._poll_secs = poll_secs

    def run(self, job: Job) -> None:
        """Runs a job to its end, as of `job.Launcher`.

        Raises:
            TrainingError: a task failed, or was lost too often.
            ServiceError: Kubernetes or the operator refuses the job, its pods do not start, or somebody deleted it.
            SystemExit: after SIGTERM or SIGINT; the TFJob is deleted then.
        """
        with stop_signal.listening() as stop:
            running = _TFJob(KubernetesApi(stop), job)
            try:
                running.attach()
                while not stop.wait(self._poll_secs):
                    if running.has_succeeded():
                        return
            except RefusedError as error:
                raise _explained(error) from error
            except UnavailableError:
                if not stop.number:
                    raise
            # KFP's launcher ends at the same signal, and the container a second later: delete first, talk then.
            running.delete()
            _log.warning("Deleted TFJob %s", job.name)
            raise stop.exit()


class _TFJob:
    """One TFJob, while it is followed."""

    def __init__(self, api: KubernetesApi, job: Job) -> None:
        self._api, self._job = api, job
        namespace = f"namespaces/{api.namespace}"
        self._jobs = f"/apis/kubeflow.org/v1/{namespace}/tfjobs"
        self._pods, self._events = f"/api/v1/{namespace}/pods", f"/api/v1/{namespace}/events"
        self._uid = ""
        self._restarts = task_pods.TaskRestarts()
        self._obstacle: Obstacle | None = None
        self._obstacle_since = 0.0
        self._log_of, self._last_line, self._read_at = "", "", 0.0
        self._was_running = self._is_suspended = False

    def attach(self) -> None:
        """Creates the TFJob, or takes the one of this name, if it has not failed, or been cancelled."""
        found = self._find()
        if found and ("deletionTimestamp" in found["metadata"] or "Failed" in _conditions(found)):
            self._uid = found["metadata"]["uid"]
            self.delete()
            found = None
        self._was_running = found is not None
        if not found:
            name = next(os.environ[name] for name in _POD_NAME if name in os.environ)
            manifest = tfjob.manifest(self._job, self._api.get(f"{self._pods}/{name}"))
            try:
                found = self._api.post(self._jobs, manifest)
            except RefusedError as error:
                if error.status != 409 or not (found := self._find()):  # else the response to an earlier try was lost
                    raise
        self._uid = found["metadata"]["uid"]
        where = f"kubectl -n {self._api.namespace} describe tfjob {self._job.name}"
        _log.info("%s TFJob %s: %s", "Re-attached to" if self._was_running else "Created", self._job.name, where)

    def has_succeeded(self) -> bool:
        """Shows what is new, and returns whether the job has succeeded.

        Raises:
            TrainingError, ServiceError: it has failed, does not start, or was deleted.
        """
        found = self._find()
        if not found or found["metadata"]["uid"] != self._uid:
            raise ServiceError(
                f"TFJob {self._job.name} was deleted while it ran",
                expected="a job that is there until its step has ended",
                hint="Run again to go on from the last checkpoint.",
            )
        conditions = _conditions(found)
        if ("Suspended" in conditions) != self._is_suspended:
            self._is_suspended = not self._is_suspended
            _log.warning("TFJob %s is %s", self._job.name, "suspended" if self._is_suspended else "resumed")
        pods: list[Pod] = self._api.get(self._pods, labelSelector=f"{task_pods.LABEL}={self._job.name}")["items"]
        self._show_log(task_pods.chief(pods))
        if "Failed" in conditions:
            raise self._failure(pods, conditions["Failed"])
        if "Succeeded" in conditions:
            return True
        if not self._is_suspended:
            self._check_restarts(pods)
            self._check_obstacles(pods)
        return False

    def delete(self) -> None:
        """Deletes the TFJob, and waits until its pods are gone."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": self._uid},
        }
        end = time.monotonic() + _CANCEL_SECS
        try:
            self._api.delete(f"{self._jobs}/{self._job.name}", options)
            while (found := self._find()) and found["metadata"]["uid"] == self._uid:
                if time.monotonic() > end:
                    raise ServiceError(f"TFJob {self._job.name} is not deleted after {_CANCEL_SECS:.0f} s")
                time.sleep(0.5)
        except RefusedError as error:
            if error.status not in (404, 409):  # it is gone, or another one has its name
                raise

    def _find(self) -> dict[str, Any] | None:
        try:
            return self._api.get(f"{self._jobs}/{self._job.name}")
        except RefusedError as error:
            if error.status != 404:
                raise
            return None

    def _show_log(self, pod: Pod | None) -> None:
        """Prints what the chief has written since the last call; of one that was found running, the last lines."""
        if not pod or pod["status"].get("phase") == "Pending":
            return
        uid, now = pod["metadata"]["uid"], time.monotonic()
        part = {"sinceSeconds": str(int(now - self._read_at) + _OVERLAP_SECS)}
        if uid != self._log_of:
            part = {"tailLines": str(_TAIL_LINES)} if self._was_running and not self._log_of else {}
            self._log_of, self._last_line = uid, ""
        for line in self._log_lines(pod, timestamps="true", **part):
            stamp, _, text = line.partition(" ")
            stamp = stamp.removesuffix("Z")  # of two times of which one has fewer digits, the shorter one is less
            if stamp > self._last_line:
                self._last_line = stamp
                print(text, flush=True)
        self._read_at = now

    def _log_lines(self, pod: Pod, **query: str) -> list[str]:
        try:
            return self._api.text(f"{self._pods}/{pod['metadata']['name']}/log", container=CONTAINER, **query).split(
                "\n"
            )
        except RefusedError as error:
            if error.status not in (400, 404):  # the container has not started, or the pod is gone
                raise
            return []

    def _failure(self, pods: list[Pod], message: str) -> TrainingError:
        failed = task_pods.failed(pods)
        if not failed:
            return TrainingError(f"TFJob {self._job.name} failed", received=message)
        lines = [line for line in self._log_lines(failed[0], tailLines=str(_TAIL_LINES)) if line.strip()]
        return TrainingError(
            f"The training failed: {task_pods.end(failed[0])}",
            received=task_lines.error(lines) or message,
            hint=f"kubectl -n {self._api.namespace} logs {failed[0]['metadata']['name']} shows all of its log.",
        )

    def _check_restarts(self, pods: list[Pod]) -> None:
        """Says which tasks the operator has started again; the job is deleted if that goes on without an end."""
        again, too_often = self._restarts.update(pods)
        if not again:
            return
        exits = [str(one.get("message")) for one in self._job_events() if one.get("reason") == _EXIT_EVENT]
        reason = exits[-1] if exits else "of a lost pod nothing is known"
        _log.warning("Restarted, from the last checkpoint: %s (%s)", ", ".join(again), reason)
        if too_often:
            self.delete()
            raise TrainingError(
                f"{', '.join(too_often)} was lost too often in a row",
                received=reason,
                hint="Exit code 137 is SIGKILL, often of a task that was out of memory: see --memory.",
            )

    def _check_obstacles(self, pods: list[Pod]) -> None:
        """Says why a task does not run; the job is deleted if that has been so for too long."""
        expected = sum(self._job.shape.tasks.values())
        found = task_pods.obstacle(pods, expected, self._job_events() if len(pods) < expected else [])
        if found is None:
            self._obstacle = None
            return
        if self._obstacle is None:
            self._obstacle_since = time.monotonic()
        if self._obstacle is None or found.text != self._obstacle.text:
            _log.warning("Waiting for %s", found.text)
        self._obstacle = found
        if time.monotonic() - self._obstacle_since > found.patience_secs:
            self.delete()
            raise ServiceError(
                f"The tasks of TFJob {self._job.name} do not start",
                received=found.text,
                expected=f"all of them running within {found.patience_secs / 60:.0f} minutes",
            )

    def _job_events(self) -> list[dict[str, Any]]:
        """The events about the job, oldest first; none if the account may not read them."""
        try:
            found = self._api.get(self._events, fieldSelector=f"involvedObject.uid={self._uid}")["items"]
        except RefusedError:
            return []
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def _conditions(found: dict[str, Any]) -> dict[str, str]:
    """Type -> message of the conditions that hold."""
    conditions = found.get("status", {}).get("conditions") or []
    return {one["type"]: one.get("message", "") for one in conditions if one["status"] == "True"}


def _explained(error: RefusedError) -> ServiceError:
    """What to do about a request that the API refused."""
    if error.status == 404 and "tfjobs" in error.problem:
        return ServiceError(
            "This cluster has no TFJobs",
            received=error.message,
            expected="Kubeflow's training operator 1.x, of which kubeflow.org/v1 TFJob is an API; Trainer 2 has none",
            hint="Install it (docs/distributed.md), or compile without --replicas.",
        )
    if error.status == 403 and " cannot " in error.message:
        return ServiceError(
            "The step's service account may not do what starting a cluster takes",
            received=error.message,
            expected="the role in docs/distributed.md",
        )
    return error
