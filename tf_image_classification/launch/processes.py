"""A cluster as processes of this machine, or of this container."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import sys
import time
from types import TracebackType

from tf_image_classification.errors import ServiceError, TrainingError
from tf_image_classification.launch import stop_signal
from tf_image_classification.launch.job import Job
from tf_image_classification.launch.local_task import LocalTask
from tf_image_classification.launch.restarts import Restarts

_log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_PORTS = range(20000, 32000)  # below those that Linux gives to outgoing connections
_POLL_SECS = 0.2
# How long the others may go on once a task has ended. That a peer is lost takes them up to a minute to notice.
_AFTER_ERROR_SECS, _AFTER_LOSS_SECS, _AFTER_SUCCESS_SECS = 5.0, 90.0, 110.0


class LocalProcesses:
    """Runs each task of a job as a process, and all of them again when one was lost.

    A task is lost that ends by a signal or with an exit code from 128 on; other exit codes are final. The chief writes
    where this process does; the others' lines come with their role. The machine's cores are divided among the tasks.

    Args:
        restarts: in a row, at most.
        grace_secs: between SIGTERM and SIGKILL; by default as on Kubernetes.
    """

    def __init__(self, restarts: int = 10, grace_secs: float = 30.0) -> None:
        self._restarts, self._grace_secs = restarts, grace_secs

    def run(self, job: Job) -> None:
        """Runs a job to its end, as of `job.Launcher`.

        Raises:
            TrainingError: a task other than the chief failed, or tasks were lost too often.
            ServiceError: other processes took the tasks' ports, again and again.
            SystemExit: after SIGTERM or SIGINT; or with the exit code of the chief, which has said why it failed.
        """
        restarts = Restarts(self._restarts)
        with stop_signal.listening() as stop:
            while True:
                started_at = time.monotonic()
                with _Cluster(job, self._grace_secs) as cluster:
                    cluster.wait(stop)
                if cluster.has_succeeded():
                    return
                if stop.number:
                    raise stop.exit()
                taken = cluster.taken_ports()
                if not taken:
                    cluster.raise_final_error()
                if not restarts.add(time.monotonic() - started_at):
                    raise _too_often(restarts, cluster, taken)
                reason = f"another process has taken {', '.join(taken)}" if taken else cluster.first_loss()
                _log.warning("Starting all tasks again, from the last checkpoint: %s", reason)
                if stop.wait(restarts.pause_secs):
                    raise stop.exit()


class _Cluster:
    """The processes of one attempt; none is left at the end of the block."""

    def __init__(self, job: Job, grace_secs: float) -> None:
        self._job, self._grace_secs = job, grace_secs
        self._addresses: dict[str, list[str]] = {}
        self._tasks: list[LocalTask] = []

    def __enter__(self) -> _Cluster:
        counts = {role: count for role, count in self._job.shape.tasks.items() if count}
        ports = iter(free_ports(sum(counts.values())))
        self._addresses = {role: [f"{_HOST}:{next(ports)}" for _ in range(count)] for role, count in counts.items()}
        command = self._job.command
        if command[0] == "python":
            command = [sys.executable, *command[1:]]
        threads = str(max(1, _cores() // sum(counts.values())))
        try:
            for role, addresses in self._addresses.items():
                for index in range(len(addresses)):
                    task = {"cluster": self._addresses, "task": {"type": role, "index": index}}
                    environment = {"TF_NUM_INTRAOP_THREADS": threads, **os.environ, "TF_CONFIG": json.dumps(task)}
                    self._tasks.append(LocalTask(role, index, command, environment))
        except BaseException:
            self._end_all()
            raise
        _log.info("Started %s on this machine", ", ".join(task.name for task in self._tasks))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all()

    def wait(self, stop: stop_signal.StopSignal) -> None:
        """Waits for the end of all tasks, a signal, or until they had time enough to notice the end of one."""
        while running := self._running():
            roles = {task.role for task in running}
            ended = [task for task in self._tasks if task.code is not None]
            if any(time.monotonic() > task.ended_at + _patience_secs(task, roles) for task in ended):
                if roles != {"ps"}:
                    names = ", ".join(task.name for task in running)
                    _log.warning("%s; stopping %s", self._first(ended).end(), names)
                return
            if stop.wait(_POLL_SECS):
                return

    def has_succeeded(self) -> bool:
        """Whether the chief did its work to the end."""
        return self._tasks[0].code == 0

    def raise_final_error(self) -> None:
        """Raises the error of a task that ended with a final code; does nothing if there is none."""
        failed = [task for task in self._tasks if task.has_failed]
        if not failed:
            return
        if failed[0].role == "chief":
            raise SystemExit(failed[0].code)
        raise TrainingError(f"The training failed: {failed[0].end()}", received=failed[0].error() or "no output")

    def first_loss(self) -> str:
        """The first task that was lost, and how."""
        return self._first([task for task in self._tasks if task.code != 0]).end()

    def taken_ports(self) -> list[str]:
        """The addresses at which some other process listens, now that all tasks have ended."""
        return [address for addresses in self._addresses.values() for address in addresses if not _is_free(address)]

    def _running(self) -> list[LocalTask]:
        return [task for task in self._tasks if task.code is None]

    def _first(self, ended: list[LocalTask]) -> LocalTask:
        return min(ended, key=lambda task: task.ended_at)

    def _end_all(self) -> None:
        """SIGTERM, upon which a training saves a checkpoint, and after a while SIGKILL, for what still runs."""
        for task in self._tasks:
            task.send(signal.SIGTERM)
        end = time.monotonic() + self._grace_secs
        while self._running() and time.monotonic() < end:
            time.sleep(_POLL_SECS / 4)
        for task in self._tasks:
            task.send(signal.SIGKILL)
        for task in self._tasks:
            task.close()


def _patience_secs(ended: LocalTask, running: set[str]) -> float:
    """How long the tasks of the roles that are running may go on after the end of one."""
    if ended.has_failed:
        return _AFTER_ERROR_SECS
    if ended.is_lost:
        return _AFTER_LOSS_SECS
    if ended.role != "chief":
        return float("inf")
    return 0.0 if running == {"ps"} else _AFTER_SUCCESS_SECS  # parameter servers never end by themselves


def _too_often(restarts: Restarts, cluster: _Cluster, taken: list[str]) -> ServiceError | TrainingError:
    if taken:
        return ServiceError("Other processes take the ports of the tasks", received=", ".join(taken))
    return TrainingError(
        f"Tasks were lost {restarts.limit + 1} times in a row",
        received=cluster.first_loss(),
        hint="SIGKILL often means that the machine was out of memory.",
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, and that no outgoing connection gets meanwhile."""
    ports = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(f"{_HOST}:{port}"))
    return [port for _, port in zip(range(count), ports, strict=False)]


def _is_free(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True
