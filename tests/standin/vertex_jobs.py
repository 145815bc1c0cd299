"""Vertex AI Pipelines' jobs: executed by a Runner, with the state of each task."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.runs import Event, Runner, as_integers, leaf_tasks
from tests.standin.service import ApiError
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, page, parse, to_json
from tests.standin.vertex_operations import Operations
from tests.standin.vertex_resources import check_resources

_TYPES = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
_FAILED_PRECONDITION = 9  # google.rpc.Code
_DEFAULT_ACCOUNT = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
RUNNING = (types.PipelineState.PIPELINE_STATE_PENDING, types.PipelineState.PIPELINE_STATE_RUNNING)


class PipelineJobs:
    """The pipeline jobs of a project, by id.

    Each job has a thread that changes its state; it holds the service's lock.

    Attributes:
        all: the jobs.
        accounts: those that exist, which preflight validations look up; None: any.
    """

    def __init__(self, clock: Clock, runner: Runner, operations: Operations, lock: threading.RLock) -> None:
        self.all: dict[str, types.PipelineJob] = {}
        self.accounts: set[str] | None = None
        self._clock, self._runner, self._operations, self._lock = clock, runner, operations, lock
        self._threads: dict[str, threading.Thread] = {}

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        jobs = f"{LOCATION}/pipelineJobs"
        return [
            ("POST", jobs, self._create),
            ("GET", jobs, self._list),
            ("GET", f"{jobs}/<name>", self._get),
            ("DELETE", f"{jobs}/<name>", self._delete),
            ("POST", f"{jobs}/<name>:cancel", self._cancel),
        ]

    def join(self) -> None:
        """Waits until all runs have ended."""
        for thread in list(self._threads.values()):
            thread.join()

    def _create(self, request: Request, project: str, location: str) -> dict[str, Any]:
        name = request.args.get("pipelineJobId") or f"run-{len(self.all) + 1}"
        return to_json(self.start(name, parse(types.PipelineJob, request.data), project, location))

    def start(self, name: str, job: types.PipelineJob, project: str, location: str) -> types.PipelineJob:
        """Creates and starts a job, for a request or a schedule.

        Raises:
            ApiError: the id is invalid or taken, or the job is invalid.
        """
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", name):
            raise ApiError(400, f"Invalid pipeline job id {name!r}: it must match [a-z][-a-z0-9]{{0,127}}.")
        if name in self.all:
            raise ApiError(409, f"The PipelineJob {name} already exists.")
        spec, config = to_json(job)["pipelineSpec"], job.runtime_config
        parameters = parameters_of(job)
        check_parameters(spec, parameters)
        check_resources(spec)
        if not config.gcs_output_directory.startswith("gs://"):
            raise ApiError(400, "pipeline_job.runtime_config.gcs_output_directory must be a Cloud Storage path.")
        if job.preflight_validations and self.accounts is not None and job.service_account not in self.accounts:
            raise ApiError(
                400,
                "Request contains an invalid argument.",
                f'type_url: ".../CreatePipelineJobApiErrorDetail"\nvalue: code=INVALID_ARGUMENT, '
                f"message=The service account {job.service_account} does not exist., cause=null",
            )
        now = self._clock.now()
        job.name = f"projects/{PROJECT_NUMBER}/locations/{location}/pipelineJobs/{name}"
        job.create_time = job.start_time = job.update_time = now
        job.state = types.PipelineState.PIPELINE_STATE_RUNNING
        job.job_detail = types.PipelineJobDetail(
            task_details=[
                types.PipelineTaskDetail(
                    task_id=number, task_name=task, create_time=now, state=types.PipelineTaskDetail.State.PENDING
                )
                for number, task in enumerate(leaf_tasks(spec), start=1)
            ]
        )
        self.all[name] = job
        self._threads[name] = self._runner.start(
            name,
            spec,
            parameters,
            config.gcs_output_directory,
            {
                "pipeline_root": config.gcs_output_directory,
                "pipeline_job_name": name,
                "pipeline_job_resource_name": job.name,
                "pipeline_google_cloud_project_id": project,
                "pipeline_google_cloud_location": location,
                "pipeline_service_account": job.service_account or _DEFAULT_ACCOUNT,
                "pipeline_network": job.network,
                "pipeline_encryption_key_name": job.encryption_spec.kms_key_name,
            },
            lambda event: self._report(job, event),
            lambda succeeded: self._finish(job, succeeded),
        )
        return job

    def _report(self, job: types.PipelineJob, event: Event) -> None:
        with self._lock:
            detail = next(one for one in job.job_detail.task_details if one.task_name == event["task"])
            detail.state = types.PipelineTaskDetail.State[event["state"]]
            if event["state"] == "RUNNING":
                detail.start_time = self._clock.now()
                return
            detail.end_time = self._clock.now()
            if event["state"] == "FAILED":
                detail.error = {
                    "code": _FAILED_PRECONDITION,
                    "message": "The replica workerpool0-0 exited with a non-zero status of 1.",
                }
            results = {name: output["value"] for name, output in event.get("outputs", {}).items() if "value" in output}
            detail.execution = types.Execution(metadata={f"output:{name}": value for name, value in results.items()})
            for name, output in event.get("outputs", {}).items():
                if "uri" in output:
                    artifact = types.Artifact(
                        display_name=name,
                        uri=output["uri"],
                        schema_title=output["schema_title"],
                        metadata=output["metadata"],
                    )
                    detail.outputs[name] = types.PipelineTaskDetail.ArtifactList(artifacts=[artifact])

    def _finish(self, job: types.PipelineJob, succeeded: bool) -> None:
        with self._lock:
            if job.state != types.PipelineState.PIPELINE_STATE_RUNNING:
                return
            state = types.PipelineTaskDetail.State
            failed = [detail.task_name for detail in job.job_detail.task_details if detail.state == state.FAILED]
            for detail in job.job_detail.task_details:
                if detail.state == state.PENDING:
                    detail.state = state.NOT_TRIGGERED
            job.end_time = job.update_time = self._clock.now()
            if succeeded:
                job.state = types.PipelineState.PIPELINE_STATE_SUCCEEDED
            else:
                job.state = types.PipelineState.PIPELINE_STATE_FAILED
                message = f"The DAG failed because some tasks failed. The failed tasks are: [{', '.join(failed)}]."
                job.error = {"code": _FAILED_PRECONDITION, "message": message}

    def _get(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return to_json(self._find(name))

    def _find(self, name: str) -> types.PipelineJob:
        if name not in self.all:
            raise ApiError(404, f"The PipelineJob {name} does not exist.")
        return self.all[name]

    def _list(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return page(request, list(self.all.values()), "pipelineJobs")

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._find(name)
        if job.state in RUNNING:
            raise ApiError(400, f"The PipelineJob {name} is still running.")
        del self.all[name]
        return self._operations.start(job.name)

    def _cancel(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._find(name)
        if job.state not in RUNNING:
            raise ApiError(400, f"The PipelineJob {name} has ended already.")
        self._runner.terminate(name)
        job.state = types.PipelineState.PIPELINE_STATE_CANCELLED
        job.end_time = job.update_time = self._clock.now()
        job.error = {"code": 1, "message": "The PipelineJob was cancelled by the user."}
        state = types.PipelineTaskDetail.State
        for detail in job.job_detail.task_details:
            if detail.state in (state.PENDING, state.RUNNING):
                detail.state = state.CANCELLED
        return {}


def parameters_of(job: types.PipelineJob) -> dict[str, Any]:
    """The parameters of a job, as JSON has them."""
    return to_json(job)["runtimeConfig"].get("parameterValues", {})


def check_parameters(spec: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Checks the parameters of a job against the pipeline's inputs.

    Raises:
        ApiError: one is unknown, has another type, or is missing.
    """
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in parameters.items():
        if name not in known:
            raise ApiError(400, f"Parameter {name} is not found in the pipeline's input definitions.")
        kind = known[name]["parameterType"]
        wrong = not isinstance(value, _TYPES[kind]) or (kind != "BOOLEAN" and isinstance(value, bool))
        if wrong or (kind == "NUMBER_INTEGER" and as_integers(spec, {name: value})[name] != value):
            raise ApiError(400, f"Parameter {name} is not of type {kind}.")
    required = [name for name, one in known.items() if "defaultValue" not in one and not one.get("isOptional")]
    missing = [name for name in required if name not in parameters]
    if missing:
        raise ApiError(400, f"Parameters are missing: {', '.join(missing)}.")
