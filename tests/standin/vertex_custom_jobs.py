"""Vertex AI's custom jobs: each replica of a worker pool is a process on this machine. Images are not used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.runs import REPOSITORY, Runner, kill_group
from tests.standin.service import ApiError
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, page, parse, to_json
from tests.standin.vertex_operations import Operations

_ROLES = ("chief", "worker", "ps", "evaluator")  # names of the worker pools in TF_CONFIG, in order


class CustomJobs:
    """The custom jobs of a project, by id. A job ends when all replicas of its first worker pool have ended.

    Each job has a thread that changes its state; it holds the service's lock.
    """

    def __init__(self, clock: Clock, operations: Operations, runner: Runner, lock: threading.RLock) -> None:
        self.all: dict[str, types.CustomJob] = {}
        self._clock, self._operations, self._runner, self._lock = clock, operations, runner, lock
        self._processes: dict[str, list[subprocess.Popen]] = {}

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        jobs = f"{LOCATION}/customJobs"
        return [
            ("POST", jobs, self._create),
            ("GET", jobs, self._list),
            ("GET", f"{jobs}/<name>", self._get),
            ("DELETE", f"{jobs}/<name>", self._delete),
            ("POST", f"{jobs}/<name>:cancel", self._cancel),
        ]

    def stop(self) -> None:
        """Kills the replicas of all jobs."""
        for name in self._processes:
            self._kill(name)

    def _create(self, request: Request, project: str, location: str) -> dict[str, Any]:
        job = parse(types.CustomJob, request.data)
        pools = [pool for pool in job.job_spec.worker_pool_specs if pool.replica_count]
        if not job.display_name or not pools or len(pools) > len(_ROLES):
            raise ApiError(400, "A custom job needs a display_name, and one to four worker pools.")
        for pool in pools:
            if not pool.container_spec.image_uri or not pool.machine_spec.machine_type:
                raise ApiError(400, "A worker pool needs container_spec.image_uri and machine_spec.machine_type.")
        name = str(3000 + len(self.all))
        job.name = f"projects/{PROJECT_NUMBER}/locations/{location}/customJobs/{name}"
        job.create_time = job.update_time = self._clock.now()
        job.state = types.JobState.JOB_STATE_PENDING
        self.all[name] = job
        accepted = to_json(job)
        job.start_time, job.state = self._clock.now(), types.JobState.JOB_STATE_RUNNING
        self._processes[name] = self._start(name, job)
        threading.Thread(target=self._follow, args=[name, job], daemon=True).start()
        return accepted

    def _start(self, name: str, job: types.CustomJob) -> list[subprocess.Popen]:
        """Starts one process for each replica; `python` in its command is this process's."""
        pools = list(job.job_spec.worker_pool_specs)
        addresses = []  # of the replicas of each pool
        for pool in pools:
            addresses.append([f"127.0.0.1:{_free_port()}" for _ in range(pool.replica_count)])
        environment = self._environment()
        processes = []
        for number, pool in enumerate(pools):
            variables = {variable.name: variable.value for variable in pool.container_spec.env}
            for index in range(pool.replica_count):
                log_file = self._runner.folder / "logs" / f"custom-{name}-workerpool{number}-{index}.log"
                with log_file.open("w") as log:
                    processes.append(
                        subprocess.Popen(
                            [*pool.container_spec.command, *pool.container_spec.args],
                            env=environment | _cluster_variables(addresses, number, index) | variables,
                            cwd=REPOSITORY,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
        return processes

    def _environment(self) -> dict[str, str]:
        """The variables of all replicas."""
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        if self._runner.storage_url:
            environment["STORAGE_EMULATOR_HOST"] = self._runner.storage_url
        return environment | self._runner.environment

    def _follow(self, name: str, job: types.CustomJob) -> None:
        chiefs = self._processes[name][: job.job_spec.worker_pool_specs[0].replica_count]
        codes = [process.wait() for process in chiefs]
        self._kill(name)  # parameter servers never end by themselves
        with self._lock:
            if job.state == types.JobState.JOB_STATE_RUNNING:
                job.end_time = job.update_time = self._clock.now()
                job.state = types.JobState.JOB_STATE_FAILED if any(codes) else types.JobState.JOB_STATE_SUCCEEDED
                if any(codes):
                    job.error = {
                        "code": 9,
                        "message": f"The replica workerpool0-0 exited with a non-zero status of {max(codes, key=abs)}.",
                    }

    def _kill(self, name: str) -> None:
        for process in self._processes[name]:
            kill_group(process)

    def _find(self, name: str) -> types.CustomJob:
        if name not in self.all:
            raise ApiError(404, f"The CustomJob {name} does not exist.")
        return self.all[name]

    def _get(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return to_json(self._find(name))

    def _list(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return page(request, list(self.all.values()), "customJobs")

    def _cancel(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._find(name)
        if job.state != types.JobState.JOB_STATE_RUNNING:
            raise ApiError(400, f"The CustomJob {name} has ended already.")
        job.state, job.end_time = types.JobState.JOB_STATE_CANCELLED, self._clock.now()
        job.error = {"code": 1, "message": "The CustomJob was cancelled by the user."}
        self._kill(name)
        return {}

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._find(name)
        if job.state == types.JobState.JOB_STATE_RUNNING:
            raise ApiError(400, f"The CustomJob {name} is still running.")
        del self.all[name]
        return self._operations.start(job.name)


def _cluster_variables(addresses: list[list[str]], pool: int, index: int) -> dict[str, str]:
    """The variables by which a replica finds the others: CLUSTER_SPEC and, if there are others, TF_CONFIG.

    See https://cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables.

    Args:
        addresses: of the replicas of each pool.
        pool: number of the replica's pool.
        index: of the replica in its pool.
    """
    pool_names = [f"workerpool{number}" for number in range(len(addresses))]
    variables = {"CLUSTER_SPEC": _cluster_spec(addresses, pool_names, pool, index)}
    if sum(map(len, addresses)) > 1:
        variables["TF_CONFIG"] = _cluster_spec(addresses, _ROLES, pool, index)
    return variables


def _cluster_spec(addresses: list[list[str]], names: Sequence[str], pool: int, index: int) -> str:
    cluster = {name: replicas for name, replicas in zip(names, addresses, strict=False) if replicas}
    return json.dumps({"cluster": cluster, "task": {"type": names[pool], "index": index}})


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
