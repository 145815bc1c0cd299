"""The pods of a TFJob's tasks: why they wait, how they ended, and how often they were started again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tf_image_classification.launch.restarts import Restarts
from tf_image_classification.launch.tfjob import CONTAINER

Pod = dict[str, Any]

LABEL = "training.kubeflow.org/job-name"
_TYPE, _INDEX = "training.kubeflow.org/replica-type", "training.kubeflow.org/replica-index"
# Reasons for which a container waits that seldom pass by themselves; a registry may be away for a while.
_BROKEN = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
)
_BROKEN_SECS = 300.0
# A node may be added, and another job's quota may be free again; later than this somebody has to look at it.
_NO_ROOM_SECS = 1800.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a task does not run.

    Attributes:
        text: `TASK: REASON: MESSAGE`.
        patience_secs: for how long it may be so.
    """

    text: str
    patience_secs: float


def name(pod: Pod) -> str:
    """As `worker 0`, or `chief`."""
    labels = pod["metadata"]["labels"]
    return labels[_TYPE] if labels[_TYPE] == "chief" else f"{labels[_TYPE]} {labels[_INDEX]}"


def chief(pods: Iterable[Pod]) -> Pod | None:
    """The chief's pod, if it exists and is not about to be deleted."""
    found = [pod for pod in pods if name(pod) == "chief" and "deletionTimestamp" not in pod["metadata"]]
    return found[0] if found else None


def obstacle(pods: Sequence[Pod], expected: int, events: Sequence[Pod]) -> Obstacle | None:
    """What keeps a task from running; None if nothing does.

    Args:
        pods: of the job.
        expected: number of its tasks.
        events: warnings about the job, oldest first; only looked at while pods are missing.
    """
    for pod in pods:
        if pod["status"].get("phase") != "Pending":
            continue
        for status in pod["status"].get("containerStatuses", []):
            waiting = status.get("state", {}).get("waiting", {})
            if waiting.get("reason") in _BROKEN:
                return Obstacle(f"{name(pod)}: {waiting['reason']}: {waiting.get('message', '')}", _BROKEN_SECS)
        for condition in pod["status"].get("conditions", []):
            if condition.get("reason") == "Unschedulable":
                return Obstacle(f"{name(pod)}: Unschedulable: {condition.get('message', '')}", _NO_ROOM_SECS)
    refusals = [str(event.get("message")) for event in events if event.get("reason") == "FailedCreatePod"]
    if len(pods) < expected and refusals:
        return Obstacle(refusals[-1], _NO_ROOM_SECS if "exceeded quota" in refusals[-1] else _BROKEN_SECS)
    return None


def failed(pods: Iterable[Pod]) -> list[Pod]:
    """The pods that have failed: first those that ended with a final exit code, and the chief's before others."""
    found = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
    return sorted(found, key=lambda pod: (_exit_code(pod) not in range(1, 128), name(pod)))


def end(pod: Pod) -> str:
    """How a pod that has failed ended, as `worker 1: OOMKilled (exit code 137)`."""
    status = pod["status"]
    if reason := status.get("reason"):  # of the pod itself, as Evicted
        return f"{name(pod)}: {reason}: {status.get('message', '')}"
    terminated = _terminated(pod)
    return f"{name(pod)}: {terminated.get('reason', 'Error')} (exit code {terminated.get('exitCode', 'unknown')})"


class TaskRestarts:
    """Follows how often the operator starts tasks again: it does so without an end."""

    def __init__(self) -> None:
        self._pods: dict[str, tuple[str, float]] = {}  # task -> uid, and when it was seen first or was waiting last
        self._restarts: dict[str, Restarts] = {}

    def update(self, pods: Iterable[Pod]) -> tuple[list[str], list[str]]:
        """Takes the pods as they are now.

        Returns:
            The tasks that were started again since the last call, and those of them that were too often.
        """
        again, too_often = [], []
        now = time.monotonic()
        for pod in pods:
            task, uid = name(pod), pod["metadata"]["uid"]
            last, since = self._pods.setdefault(task, (uid, now))
            if uid != last:
                self._pods[task] = uid, now
                again.append(task)
                if not self._restarts.setdefault(task, Restarts()).add(now - since):
                    too_often.append(task)
            elif pod["status"].get("phase") == "Pending":  # for a node, or its image
                self._pods[task] = uid, now
        return again, too_often


def _exit_code(pod: Pod) -> int | None:
    return _terminated(pod).get("exitCode")


def _terminated(pod: Pod) -> dict[str, Any]:
    states = {one["name"]: one.get("state", {}) for one in pod["status"].get("containerStatuses", [])}
    return dict(states.get(CONTAINER, {}).get("terminated", {}))
