"""Vertex AI Pipelines as a backend, over the SDK's REST clients.

The clients of `aiplatform_v1` are used rather than `aiplatform.PipelineJob`, whose `submit` creates a bucket that is
not there, swallows the error when it cannot, and turns caching on for tasks that must never be cached.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform_v1 as vertex
from google.protobuf import field_mask_pb2, json_format

from pipelines import template
from pipelines.backends import base as backend
from pipelines.backends import bucket
from pipelines.backends.base import Plan, Run, Schedule, Submission, Task
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion.google_errors import RETRY, api_retry, translate_api_errors
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options

_RUN_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_NETWORK = re.compile(r"projects/[^/]+/global/networks/[^/]+")
_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)")
_SHORT = field_mask_pb2.FieldMask(
    paths=["name", "display_name", "state", "create_time", "end_time", "error", "schedule_name"]
)
_RUN_STATES = {
    "PIPELINE_STATE_QUEUED": backend.PENDING,
    "PIPELINE_STATE_PENDING": backend.PENDING,
    "PIPELINE_STATE_RUNNING": backend.RUNNING,
    "PIPELINE_STATE_SUCCEEDED": backend.SUCCEEDED,
    "PIPELINE_STATE_FAILED": backend.FAILED,
    "PIPELINE_STATE_CANCELLING": backend.RUNNING,
    "PIPELINE_STATE_CANCELLED": backend.CANCELLED,
    "PIPELINE_STATE_PAUSED": backend.PENDING,
}
_TASK_STATES = {
    "PENDING": backend.PENDING,
    "RUNNING": backend.RUNNING,
    "SUCCEEDED": backend.SUCCEEDED,
    "CANCEL_PENDING": backend.RUNNING,
    "CANCELLING": backend.RUNNING,
    "CANCELLED": backend.CANCELLED,
    "FAILED": backend.FAILED,
    "SKIPPED": backend.CACHED,  # PipelineTaskDetail.State: "Specifies task was skipped due to cache hit."
    "NOT_TRIGGERED": backend.SKIPPED,
}


class Vertex:
    """Runs and schedules of one project in one region."""

    def __init__(self, project: str, location: str, api_endpoint: str = "") -> None:
        self._project, self._location = project, location
        self._parent = f"projects/{project}/locations/{location}"
        with translate_api_errors(SERVICE, "sign in"):
            options = client_options(location, api_endpoint)
            self._runs = vertex.PipelineServiceClient(**options)
            self._schedules = vertex.ScheduleServiceClient(**options)

    def check_root(self, pipeline_root: str) -> None:
        """Makes sure that there is a root, and that its bucket is there."""
        bucket.check(pipeline_root, f"--project {self._project} --location {self._location}")

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """Starts a run, unless its id has one: then that one is the answer.

        Raises:
            FlagError: an option has a form that Vertex does not take, or the id is that of another run.
            ServiceError: the service refuses.
        """
        job = _job(submission)
        lost: list[Exception] = []
        with translate_api_errors(
            SERVICE,
            "submit a run",
            ROLE,
            retry_hint="The same command with the same --run_id never starts a second run.",
        ):
            try:
                made = self._runs.create_pipeline_job(
                    parent=self._parent,
                    pipeline_job=job,
                    pipeline_job_id=submission.run_id,
                    retry=api_retry(on_error=lost.append),
                    timeout=60,
                )
                return self._as_run(made), True
            except exceptions.Conflict:  # an earlier call's, or ours, whose answer was lost
                existing = self._runs.get_pipeline_job(name=self._name(submission.run_id), retry=RETRY)
        if (
            _parameters(existing) != _parameters(job)
            or existing.runtime_config.gcs_output_directory != submission.pipeline_root
        ):
            raise FlagError(
                "This --run_id is that of another run, with other parameters",
                received=submission.run_id,
                hint="Choose another --run_id.",
            )
        return self._as_run(existing), bool(lost)

    def run(self, run_id: str) -> Run:
        """A run as it stands now."""
        with translate_api_errors(SERVICE, f"show the run {run_id}", ROLE):
            return self._as_run(self._runs.get_pipeline_job(name=self._name(run_id), retry=RETRY))

    def runs(self, limit: int, schedule: str = "") -> list[Run]:
        """The newest runs, without their parameters and tasks."""
        import itertools

        request = vertex.ListPipelineJobsRequest(
            parent=self._parent, order_by="create_time desc", page_size=min(limit, 100), read_mask=_SHORT
        )
        if schedule:
            request.filter = f'schedule_name="{schedule}"'
        with translate_api_errors(SERVICE, "list runs", ROLE):
            return [
                self._as_run(job)
                for job in itertools.islice(self._runs.list_pipeline_jobs(request, retry=RETRY), limit)
            ]

    def cancel(self, run_id: str) -> None:
        """Asks a run to end."""
        with translate_api_errors(SERVICE, f"cancel the run {run_id}", ROLE):
            self._runs.cancel_pipeline_job(name=self._name(run_id), retry=RETRY)

    def create_schedule(self, name: str, plan: Plan, submission: Submission) -> Schedule:
        """Creates a schedule; a name is taken once.

        Raises:
            FlagError: there is one of this name, or Vertex does not take the plan.
        """
        if self._found(name):
            raise FlagError("There is a schedule of this name", received=name, hint="Change it with `schedule update`.")
        return self._create_schedule(name, plan, submission)

    def _create_schedule(self, name: str, plan: Plan, submission: Submission) -> Schedule:
        wanted = self._as_message(name, plan, submission)
        before = {found.name for found in self._found(name)}

        def create() -> vertex.Schedule:
            # Its id is the service's choice, so a repetition must look whether the first attempt was carried out.
            for found in self._found(name):
                if found.name not in before:
                    return found
            return self._schedules.create_schedule(parent=self._parent, schedule=wanted, timeout=60)

        with translate_api_errors(SERVICE, "create a schedule", ROLE):
            return self._as_schedule(RETRY(create)())

    def schedule(self, name: str) -> Schedule:
        """The schedule of this name, or with this id.

        Raises:
            FlagError: there is none, or there are several of this name.
        """
        found = self._found(name)
        if not found and name.isdigit():
            with translate_api_errors(SERVICE, f"show the schedule {name}", ROLE):
                found = [self._schedules.get_schedule(name=f"{self._parent}/schedules/{name}", retry=RETRY)]
        if not found:
            known = ", ".join(one.name for one in self.schedules())
            raise FlagError(
                "There is no such schedule", received=name, expected=known or None, hint="`schedule list` shows them."
            )
        if len(found) > 1:
            raise FlagError(
                "Several schedules have this name", received=name, expected=" or ".join(_id(one.name) for one in found)
            )
        return self._as_schedule(found[0])

    def schedules(self) -> list[Schedule]:
        """All schedules, the newest first."""
        with translate_api_errors(SERVICE, "list schedules", ROLE):
            request = vertex.ListSchedulesRequest(parent=self._parent, order_by="create_time desc")
            return [self._as_schedule(found) for found in self._schedules.list_schedules(request, retry=RETRY)]

    def pause(self, schedule: Schedule) -> None:
        """Starts no more runs until it is resumed."""
        with translate_api_errors(SERVICE, "pause a schedule", ROLE):
            self._schedules.pause_schedule(name=schedule.id, retry=RETRY)

    def resume(self, schedule: Schedule, catch_up: bool) -> None:
        """Goes on; `catch_up` also starts the runs that the pause left out."""
        with translate_api_errors(SERVICE, "resume a schedule", ROLE):
            self._schedules.resume_schedule(
                vertex.ResumeScheduleRequest(name=schedule.id, catch_up=catch_up), retry=RETRY
            )

    def update_schedule(self, schedule: Schedule, plan: Plan, submission: Submission) -> Schedule:
        """Changes a schedule in place; where Vertex refuses that, another takes its place."""
        wanted, current = (
            self._as_message(schedule.name, plan, submission),
            self._as_message(schedule.name, schedule.plan, schedule.submission),
        )
        wanted.name = schedule.id
        mask = [
            path
            for path in (
                "cron",
                "start_time",
                "end_time",
                "max_concurrent_run_count",
                "allow_queueing",
                "create_pipeline_job_request",
            )
            if getattr(wanted, path) != getattr(current, path)
        ]
        if not mask:
            return schedule
        try:
            with translate_api_errors(SERVICE, "update a schedule", ROLE):
                return self._as_schedule(
                    self._schedules.update_schedule(
                        schedule=wanted, update_mask=field_mask_pb2.FieldMask(paths=mask), retry=RETRY, timeout=60
                    )
                )
        except FlagError:
            if "create_pipeline_job_request" not in mask:
                raise
        return backend.replace_schedule(self, schedule, lambda: self._create_schedule(schedule.name, plan, submission))

    def delete_schedule(self, schedule: Schedule) -> None:
        """Deletes a schedule; runs that it has started stay."""
        with translate_api_errors(SERVICE, "delete a schedule", ROLE):
            self._schedules.delete_schedule(name=schedule.id, retry=RETRY).result(timeout=120)

    def _name(self, run_id: str) -> str:
        return f"{self._parent}/pipelineJobs/{run_id}"

    def _found(self, name: str) -> list[vertex.Schedule]:
        with translate_api_errors(SERVICE, "list schedules", ROLE):
            request = vertex.ListSchedulesRequest(parent=self._parent, filter=f'display_name="{name}"')
            return list(self._schedules.list_schedules(request, retry=RETRY))

    def _as_run(self, job: vertex.PipelineJob) -> Run:
        submission = _submission(job)
        own = template.step_names(submission.spec)  # groups of them, and the run itself, are listed too
        run_id = _id(job.name)
        return Run(
            id=run_id,
            state=_RUN_STATES.get(job.state.name, backend.PENDING),
            pipeline=job.display_name,
            created=_time(job.create_time) or dt.datetime.now(dt.UTC),
            ended=_time(job.end_time),
            submission=submission,
            tasks=tuple(_task(one) for one in job.job_detail.task_details if one.task_name in own),
            error=job.error.message,
            schedule=job.schedule_name,
            link=f"https://console.cloud.google.com/vertex-ai/locations/{self._location}/pipelines/runs/{run_id}?project={self._project}",
        )

    def _as_message(self, name: str, plan: Plan, submission: Submission) -> vertex.Schedule:
        return vertex.Schedule(
            display_name=name,
            cron=f"CRON_TZ={plan.time_zone} {plan.cron}",
            start_time=plan.start,
            end_time=plan.end,
            max_concurrent_run_count=plan.max_concurrent_runs,
            allow_queueing=plan.queue,
            create_pipeline_job_request=vertex.CreatePipelineJobRequest(
                parent=self._parent, pipeline_job=_job(submission)
            ),
        )

    def _as_schedule(self, schedule: vertex.Schedule) -> Schedule:
        zone = _ZONE.fullmatch(schedule.cron)
        return Schedule(
            id=schedule.name,
            name=schedule.display_name,
            state=schedule.state.name,
            plan=Plan(
                cron=zone[2] if zone else schedule.cron,
                time_zone=zone[1] if zone else "UTC",
                start=_time(schedule.start_time),
                end=_time(schedule.end_time),
                max_concurrent_runs=schedule.max_concurrent_run_count,
                queue=schedule.allow_queueing,
            ),
            submission=_submission(schedule.create_pipeline_job_request.pipeline_job),
            created=_time(schedule.create_time) or dt.datetime.now(dt.UTC),
            next_run=_time(schedule.next_run_time) if schedule.state.name == "ACTIVE" else None,
            started_runs=schedule.started_run_count,
            link=f"https://console.cloud.google.com/vertex-ai/pipelines/schedules/{_id(schedule.name)}?project={self._project}",
        )


def _job(submission: Submission) -> vertex.PipelineJob:
    for option, value, form, expected in (
        ("run_id", submission.run_id, _RUN_ID, "lower-case letters, digits and hyphens, a letter first"),
        ("encryption_key", submission.encryption_key, _KEY, "projects/P/locations/L/keyRings/R/cryptoKeys/K"),
        ("network", submission.network, _NETWORK, "projects/NUMBER/global/networks/NAME"),
    ):
        if value and not form.fullmatch(value):
            raise FlagError(f"Invalid value for --{option}", received=value, expected=expected)
    policies = {"": 0, "slow": 1, "fast": 2}
    return vertex.PipelineJob(
        display_name=template.name(dict(submission.spec)),
        pipeline_spec=submission.spec,
        labels=submission.labels,
        service_account=submission.service_account,
        network=submission.network,
        encryption_spec=vertex.EncryptionSpec(kms_key_name=submission.encryption_key)
        if submission.encryption_key
        else None,
        runtime_config=vertex.PipelineJob.RuntimeConfig(
            gcs_output_directory=submission.pipeline_root,
            parameter_values=submission.parameters,
            failure_policy=policies[submission.failure_policy],
        ),
    )


def _submission(job: vertex.PipelineJob) -> Submission:
    message = json_format.MessageToDict(type(job).pb(job))
    spec = message.get("pipelineSpec", {})
    return Submission(
        run_id=_id(job.name),
        spec=spec,
        parameters=_typed(spec, _parameters(job)),
        pipeline_root=job.runtime_config.gcs_output_directory,
        labels={
            key: value for key, value in job.labels.items() if not key.startswith("vertex-ai-")
        },  # those are Vertex's own
        service_account=job.service_account,
        network=job.network,
        encryption_key=job.encryption_spec.kms_key_name,
        failure_policy={1: "slow", 2: "fast"}.get(int(job.runtime_config.failure_policy), ""),
    )


def _parameters(job: vertex.PipelineJob) -> dict[str, Any]:
    return json_format.MessageToDict(type(job).pb(job)).get("runtimeConfig", {}).get("parameterValues", {})


def _typed(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The service's numbers are all floating-point."""
    definitions = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    whole = {name for name, one in definitions.items() if one["parameterType"] == "NUMBER_INTEGER"}
    return {name: int(value) if name in whole else value for name, value in parameters.items()}


def _task(detail: vertex.PipelineTaskDetail) -> Task:
    values = json_format.MessageToDict(type(detail).pb(detail)).get("execution", {}).get("metadata", {})
    outputs = {name.removeprefix("output:"): str(value) for name, value in values.items() if name.startswith("output:")}
    outputs |= {
        name: one.artifacts[0].uri for name, one in detail.outputs.items() if one.artifacts and one.artifacts[0].uri
    }
    return Task(
        name=detail.task_name,
        state=_TASK_STATES.get(detail.state.name, backend.PENDING),
        started=_time(detail.start_time),
        ended=_time(detail.end_time),
        error=detail.error.message,
        outputs=outputs,
    )


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _time(value: Any) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(value.timestamp(), dt.UTC) if value else None
