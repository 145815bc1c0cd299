"""Vertex AI's custom jobs: each replica of a worker pool is a process on this machine. Images are not used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.runs import REPOSITORY, Runner, kill_group, signal_group
from tests.standin.service import ApiError
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, page, parse, to_json
from tests.standin.vertex_operations import Operations
from tf_image_classification.launch.processes import free_ports

_ROLES = ("chief", "worker", "ps", "evaluator")  # names of the worker pools in TF_CONFIG, in order
_STATE = types.JobState
_LABEL_KEY, _LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
_GRACE_SECS = 10.0
_REASON_SECS = 0.15  # from the end of a job until its error is known; about a minute in the service
# SIGABRT and SIGSEGV. Other exit codes are errors of the user's code; -SIGKILL is of a machine that fails, see `kill`.
_TRANSIENT = {134, 139, -signal.SIGKILL}


class CustomJobs:
    """The custom jobs of a project, by id. A job ends when its chief has ended, or another replica has failed.

    Each job has a thread that changes its state; it holds the service's lock.

    Attributes:
        all: the jobs.
        restarts: how often a job that asks for it is started again when a replica lost its machine, or crashed.
    """

    def __init__(self, clock: Clock, operations: Operations, runner: Runner, lock: threading.RLock) -> None:
        self.all: dict[str, types.CustomJob] = {}
        self.restarts = 0
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

    def kill(self, name: str, number: int) -> None:
        """Kills a replica, as a machine that fails.

        Args:
            name: id of the job.
            number: of the replica, counted over all pools.
        """
        kill_group(self._processes[name][number])

    def _create(self, request: Request, project: str, location: str) -> dict[str, Any]:
        job = parse(types.CustomJob, request.data)
        _check(job)
        name = str(3000 + len(self.all))
        job.name = f"projects/{PROJECT_NUMBER}/locations/{location}/customJobs/{name}"
        job.create_time = job.update_time = self._clock.now()
        job.state = _STATE.JOB_STATE_PENDING
        self.all[name] = job
        accepted = to_json(job)
        job.start_time, job.state = self._clock.now(), _STATE.JOB_STATE_RUNNING
        self._processes[name] = self._start(name, job)
        threading.Thread(target=self._follow, args=[name, job], daemon=True).start()
        return accepted

    def _start(self, name: str, job: types.CustomJob) -> list[subprocess.Popen]:
        """Starts one process for each replica; `python` in its command is this process's."""
        pools = list(job.job_spec.worker_pool_specs)
        ports = iter(free_ports(sum(pool.replica_count for pool in pools)))
        addresses = [[f"127.0.0.1:{next(ports)}" for _ in range(pool.replica_count)] for pool in pools]
        environment = self._environment(job)
        processes = []
        for number, pool in enumerate(pools):
            variables = {variable.name: variable.value for variable in pool.container_spec.env}
            for index in range(pool.replica_count):
                log_file = self._runner.folder / "logs" / f"custom-{name}-workerpool{number}-{index}.log"
                with log_file.open("a") as log:
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

    def _environment(self, job: types.CustomJob) -> dict[str, str]:
        """The variables of all replicas."""
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        if self._runner.storage_url:
            environment["STORAGE_EMULATOR_HOST"] = self._runner.storage_url
        if base := job.job_spec.base_output_directory.output_uri_prefix:
            environment["AIP_TENSORBOARD_LOG_DIR"] = f"{base.removesuffix('/')}/logs/"
        return environment | self._runner.environment

    def _follow(self, name: str, job: types.CustomJob) -> None:
        restarts = self.restarts if job.job_spec.scheduling.restart_job_on_worker_restart else 0
        while failed := self._wait(name, job):
            if not set(failed.values()) <= _TRANSIENT or not restarts or job.state != _STATE.JOB_STATE_RUNNING:
                break
            restarts -= 1
            self._kill(name)
            self._processes[name] = self._start(name, job)
        self._kill(name)  # parameter servers never end by themselves
        with self._lock:
            if job.state != _STATE.JOB_STATE_RUNNING:
                return
            job.end_time = job.update_time = self._clock.now()
            job.state = _STATE.JOB_STATE_FAILED if failed else _STATE.JOB_STATE_SUCCEEDED
        if failed:
            time.sleep(_REASON_SECS)
            codes = {one: 128 - code if code < 0 else code for one, code in failed.items()}
            texts = [f"The replica {one} exited with a non-zero status of {code}." for one, code in codes.items()]
            with self._lock:
                job.error = {"code": 9, "message": " ".join(texts)}

    def _wait(self, name: str, job: types.CustomJob) -> dict[str, int]:
        """Waits for the end of the chief or of one that fails, and returns Popen's codes of those that failed."""
        replicas = []
        for number, pool in enumerate(job.job_spec.worker_pool_specs):
            replicas += [f"workerpool{number}-{index}" for index in range(pool.replica_count)]
        processes = dict(zip(replicas, self._processes[name], strict=True))
        while True:
            codes = {replica: process.poll() for replica, process in processes.items()}
            failed = {replica: code for replica, code in codes.items() if code}
            if failed or codes["workerpool0-0"] == 0:
                return failed
            time.sleep(0.05)

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
        if job.state != _STATE.JOB_STATE_RUNNING:
            raise ApiError(400, f"The CustomJob {name} has ended already.")
        job.state = _STATE.JOB_STATE_CANCELLING
        for process in self._processes[name]:
            signal_group(process, signal.SIGTERM)
        threading.Thread(target=self._finish_cancelling, args=[name, job], daemon=True).start()
        return {}

    def _finish_cancelling(self, name: str, job: types.CustomJob) -> None:
        """Gives the replicas of a job some time to end."""
        end = time.monotonic() + _GRACE_SECS
        while time.monotonic() < end and any(process.poll() is None for process in self._processes[name]):
            time.sleep(0.05)
        self._kill(name)
        with self._lock:
            job.state, job.end_time = _STATE.JOB_STATE_CANCELLED, self._clock.now()
            job.error = {"code": 1, "message": "The CustomJob was cancelled by the user."}

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._find(name)
        if job.state in (_STATE.JOB_STATE_RUNNING, _STATE.JOB_STATE_CANCELLING):
            raise ApiError(400, f"The CustomJob {name} is still running.")
        del self.all[name]
        return self._operations.start(job.name)


def _check(job: types.CustomJob) -> None:
    """Checks a job as the service does.

    Raises:
        ApiError: a field is missing or invalid.
    """
    spec, pools = job.job_spec, list(job.job_spec.worker_pool_specs)
    if not job.display_name or len(job.display_name) > 128 or not pools or len(pools) > len(_ROLES):
        raise ApiError(400, "A custom job needs a display_name, and one to four worker pools.")
    if pools[0].replica_count != 1:
        raise ApiError(400, "The first worker pool has to have one replica.")
    if not pools[-1].replica_count:
        raise ApiError(400, "The last worker pool is empty.")
    for pool in filter(lambda pool: pool != types.WorkerPoolSpec(), pools):
        if not (pool.container_spec.image_uri and pool.machine_spec.machine_type and pool.replica_count):
            raise ApiError(400, "A worker pool needs container_spec.image_uri, machine_type and replica_count.")
        if bool(pool.machine_spec.accelerator_type) != bool(pool.machine_spec.accelerator_count):
            raise ApiError(400, "A worker pool needs both accelerator_type and accelerator_count.")
    for key, value in job.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(value):
            raise ApiError(400, f"Invalid label {key}={value}.")
    if spec.tensorboard and not (spec.service_account and spec.base_output_directory.output_uri_prefix):
        raise ApiError(400, "A custom job with a tensorboard needs a service_account and a base_output_directory.")
    if not (spec.base_output_directory.output_uri_prefix or "gs://").startswith("gs://"):
        raise ApiError(400, "base_output_directory has to be on gs://.")
    if spec.network and not re.fullmatch(r"projects/[^/]+/global/networks/[^/]+", spec.network):
        raise ApiError(400, f"Invalid network {spec.network}.")


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
    if sum(map(len, addresses)) > 1:  # its cluster has no evaluators
        variables["TF_CONFIG"] = _cluster_spec(addresses[: _ROLES.index("evaluator")], _ROLES, pool, index)
    return variables


def _cluster_spec(addresses: list[list[str]], names: Sequence[str], pool: int, index: int) -> str:
    cluster = {name: replicas for name, replicas in zip(names, addresses, strict=False) if replicas}
    return json.dumps({"cluster": cluster, "task": {"type": names[pool], "index": index}})
