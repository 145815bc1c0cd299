"""The pods of a TFJob: each is a process on this machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.standin.runs import REPOSITORY

_GRACE_SECS = 10.0  # between SIGTERM and SIGKILL


class Pod:
    """A pod whose only container is named tensorflow.

    Args:
        job: name of the TFJob.
        role, index: of the replica.
        template: of the pod.
        variables: besides those of this process and of the container.
        obstacle: why it cannot start; '' if it can.

    Attributes:
        name: of the pod.
    """

    def __init__(
        self, job: str, role: str, index: int, template: Mapping[str, Any], variables: Mapping[str, str], obstacle: str
    ) -> None:
        self.job, self.name, self._template, self._obstacle = job, f"{job}-{role}-{index}", template, obstacle
        self._uid, self._ends_at = str(uuid.uuid4()), 0.0
        self._labels = {
            "training.kubeflow.org/job-name": job,
            "training.kubeflow.org/operator-name": "tfjob-controller",
            "training.kubeflow.org/replica-type": role,
            "training.kubeflow.org/replica-index": str(index),
        }
        self._lines: list[tuple[str, str]] = []
        self._process: subprocess.Popen | None = None
        if not obstacle:
            self._start(variables)

    def _start(self, variables: Mapping[str, str]) -> None:
        container = self._template["spec"]["containers"][0]
        own = {variable["name"]: variable.get("value", "from a Secret") for variable in container.get("env", [])}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._process = subprocess.Popen(
            [*container["command"], *container.get("args", [])],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path} | dict(variables) | own,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def code(self) -> int:
        """Exit code of a pod that has ended, as Kubernetes has it: 128 + the number of a signal."""
        assert self._process
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def send(self, number: int) -> None:
        """Sends a signal to its processes, if they run."""
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def end(self) -> bool:
        """Asks its process to end, kills it after the grace period, and returns whether it has ended."""
        if self._process is None or self.has_ended:
            return True
        if not self._ends_at:
            self._ends_at = time.monotonic() + _GRACE_SECS
            self.send(signal.SIGTERM)
        elif time.monotonic() > self._ends_at:
            self.kill()
        return False

    def log(self, query: Mapping[str, str]) -> str:
        """The log, or the part of it that is asked for."""
        if self.has_ended:
            self._reader.join(timeout=5)
        lines = list(self._lines)
        if "sinceSeconds" in query:
            since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(query["sinceSeconds"]))
            lines = [line for line in lines if line[0] >= since.isoformat()]
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :]
        stamped = query.get("timestamps") == "true"
        return "".join(f"{stamp}Z {text}\n" if stamped else f"{text}\n" for stamp, text in lines)

    def resource(self) -> dict[str, Any]:
        """The pod as the API returns it."""
        metadata = {"name": self.name, "uid": self._uid, "labels": self._labels}
        if self._ends_at:
            metadata["deletionTimestamp"] = "now"
        return {"metadata": metadata, "spec": self._template["spec"], "status": self._status()}

    def _status(self) -> dict[str, Any]:
        if self._obstacle == "Unschedulable":
            message = "0/3 nodes are available: 3 Insufficient cpu."
            return {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "reason": self._obstacle, "message": message}],
            }
        state: dict[str, Any] = {"running": {}}
        phase = "Running"
        if self._obstacle:
            phase, state = "Pending", {"waiting": {"reason": self._obstacle, "message": "image not there"}}
        elif self.has_ended:
            phase = "Failed" if self.code else "Succeeded"
            reason = "Error" if self.code else "Completed"
            state = {"terminated": {"exitCode": self.code, "reason": reason}}
        return {"phase": phase, "containerStatuses": [{"name": "tensorflow", "state": state}]}

    def _read(self) -> None:
        assert self._process
        for line in self._process.stdout or ():
            stamp = dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
            self._lines.append((stamp, line.rstrip("\n")))
