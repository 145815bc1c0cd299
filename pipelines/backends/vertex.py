"""Vertex AI Pipelines as a backend, over the SDK's REST clients.

The clients of `aiplatform_v1` are used rather than `aiplatform.PipelineJob`, whose `submit` creates a missing bucket,
swallows the error when it cannot, and turns caching on for tasks that must never be cached.
"""

from __future__ import annotations

import itertools

from google.api_core import exceptions
from google.cloud import aiplatform_v1 as vertex
from google.protobuf import field_mask_pb2

from pipelines.backends import base, bucket, run_differences
from pipelines.backends import vertex_messages as messages
from pipelines.backends.base import Recurrence, Run, Schedule, Submission
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion.google_errors import RETRY, api_retry, translate_api_errors
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options

# The fields of a run that a list shows.
_LISTED_FIELDS = field_mask_pb2.FieldMask(
    paths=["name", "display_name", "state", "create_time", "end_time", "error", "schedule_name"]
)
_UPDATABLE_FIELDS = (
    "cron",
    "start_time",
    "end_time",
    "max_concurrent_run_count",
    "allow_queueing",
    "create_pipeline_job_request",
)


class Vertex:
    """The backend for the runs and schedules of one project in one region."""

    def __init__(self, project: str, location: str, api_endpoint: str = "") -> None:
        self._project, self._location = project, location
        self._parent = f"projects/{project}/locations/{location}"
        with translate_api_errors(SERVICE, "sign in"):
            options = client_options(location, api_endpoint)
            self._jobs = vertex.PipelineServiceClient(**options)
            self._schedules = vertex.ScheduleServiceClient(**options)

    def check_pipeline_root(self, pipeline_root: str) -> None:
        """See `Backend`."""
        bucket.check(pipeline_root, f"--project {self._project} --location {self._location}")

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """See `Backend`."""
        job = messages.from_submission(submission)
        lost: list[Exception] = []
        with translate_api_errors(
            SERVICE,
            "submit a run",
            ROLE,
            retry_hint="The same command with the same --run_id never starts a second run.",
        ):
            try:
                created = self._jobs.create_pipeline_job(
                    parent=self._parent,
                    pipeline_job=job,
                    pipeline_job_id=submission.run_id,
                    retry=api_retry(on_error=lost.append),
                    timeout=60,
                )
                return self._to_run(created), True
            except exceptions.Conflict:  # with an earlier call's run, or with this call's, if its answer was lost
                existing = self._jobs.get_pipeline_job(name=self._job_name(submission.run_id), retry=RETRY)
        run = self._to_run(existing)
        if differences := run_differences.find(run.submission, submission):
            raise base.run_id_taken(submission.run_id, differences)
        return run, bool(lost)

    def get_run(self, run_id: str) -> Run:
        """See `Backend`."""
        with translate_api_errors(SERVICE, f"show the run {run_id}", ROLE):
            return self._to_run(self._jobs.get_pipeline_job(name=self._job_name(run_id), retry=RETRY))

    def list_runs(self, limit: int, schedule_id: str = "") -> list[Run]:
        """See `Backend`; without their specs, parameters and tasks."""
        request = vertex.ListPipelineJobsRequest(
            parent=self._parent, order_by="create_time desc", page_size=min(limit, 100), read_mask=_LISTED_FIELDS
        )
        if schedule_id:
            request.filter = f'schedule_name="{schedule_id}"'
        with translate_api_errors(SERVICE, "list runs", ROLE):
            newest = itertools.islice(self._jobs.list_pipeline_jobs(request, retry=RETRY), limit)
            return [self._to_run(job) for job in newest]

    def cancel_run(self, run_id: str) -> None:
        """See `Backend`."""
        with translate_api_errors(SERVICE, f"cancel the run {run_id}", ROLE):
            self._jobs.cancel_pipeline_job(name=self._job_name(run_id), retry=RETRY)

    def create_schedule(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`."""
        if self._find_schedules(name):
            raise base.schedule_exists(name)
        return self._create_schedule(name, recurrence, submission)

    def _create_schedule(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        wanted = messages.from_schedule(name, recurrence, submission, self._parent)
        earlier = {found.name for found in self._find_schedules(name)}

        def create() -> vertex.Schedule:
            # The service chooses the id, so a repetition must find out whether the first attempt was carried out.
            for found in self._find_schedules(name):
                if found.name not in earlier:
                    return found
            return self._schedules.create_schedule(parent=self._parent, schedule=wanted, timeout=60)

        with translate_api_errors(SERVICE, "create a schedule", ROLE):
            return self._to_schedule(RETRY(create)())

    def get_schedule(self, name: str) -> Schedule:
        """See `Backend`; an id is accepted too."""
        found = self._find_schedules(name)
        if not found and name.isdigit():
            with translate_api_errors(SERVICE, f"show the schedule {name}", ROLE):
                found = [self._schedules.get_schedule(name=f"{self._parent}/schedules/{name}", retry=RETRY)]
        if not found:
            raise base.schedule_not_found(self, name)
        if len(found) > 1:
            ids = [messages.resource_id(schedule.name) for schedule in found]
            raise FlagError("Several schedules have this name", received=name, expected=" or ".join(ids))
        return self._to_schedule(found[0])

    def list_schedules(self) -> list[Schedule]:
        """See `Backend`."""
        with translate_api_errors(SERVICE, "list schedules", ROLE):
            request = vertex.ListSchedulesRequest(parent=self._parent, order_by="create_time desc")
            return [self._to_schedule(found) for found in self._schedules.list_schedules(request, retry=RETRY)]

    def pause_schedule(self, schedule: Schedule) -> None:
        """See `Backend`."""
        with translate_api_errors(SERVICE, "pause a schedule", ROLE):
            self._schedules.pause_schedule(name=schedule.id, retry=RETRY)

    def resume_schedule(self, schedule: Schedule, catch_up: bool) -> None:
        """See `Backend`."""
        request = vertex.ResumeScheduleRequest(name=schedule.id, catch_up=catch_up)
        with translate_api_errors(SERVICE, "resume a schedule", ROLE):
            self._schedules.resume_schedule(request, retry=RETRY)

    def update_schedule(self, schedule: Schedule, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`; the schedule is replaced where Vertex AI refuses to change its request for runs."""
        wanted = messages.from_schedule(schedule.name, recurrence, submission, self._parent)
        current = messages.from_schedule(schedule.name, schedule.recurrence, schedule.submission, self._parent)
        wanted.name = schedule.id
        changed = [path for path in _UPDATABLE_FIELDS if getattr(wanted, path) != getattr(current, path)]
        if not changed:
            return schedule
        mask = field_mask_pb2.FieldMask(paths=changed)
        try:
            with translate_api_errors(SERVICE, "update a schedule", ROLE):
                updated = self._schedules.update_schedule(schedule=wanted, update_mask=mask, retry=RETRY, timeout=60)
                return self._to_schedule(updated)
        except FlagError:
            if "create_pipeline_job_request" not in changed:
                raise
        return base.replace_schedule(
            self, schedule, lambda: self._create_schedule(schedule.name, recurrence, submission)
        )

    def delete_schedule(self, schedule: Schedule) -> None:
        """See `Backend`."""
        with translate_api_errors(SERVICE, "delete a schedule", ROLE):
            self._schedules.delete_schedule(name=schedule.id, retry=RETRY).result(timeout=120)

    def _find_schedules(self, name: str) -> list[vertex.Schedule]:
        with translate_api_errors(SERVICE, "list schedules", ROLE):
            request = vertex.ListSchedulesRequest(parent=self._parent, filter=f'display_name="{name}"')
            return list(self._schedules.list_schedules(request, retry=RETRY))

    def _job_name(self, run_id: str) -> str:
        return f"{self._parent}/pipelineJobs/{run_id}"

    def _to_run(self, job: vertex.PipelineJob) -> Run:
        return messages.to_run(job, self._project, self._location)

    def _to_schedule(self, schedule: vertex.Schedule) -> Schedule:
        return messages.to_schedule(schedule, self._project)
