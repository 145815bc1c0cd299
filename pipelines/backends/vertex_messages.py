"""Conversions between aiplatform_v1's messages and this project's values."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from google.cloud import aiplatform_v1 as vertex
from google.protobuf import json_format

from pipelines import template
from pipelines.backends.base import Recurrence, Run, Schedule, State, Submission, TaskStatus
from tf_image_classification.errors import FlagError

_FORMS = {
    "run_id": (re.compile(r"[a-z][-a-z0-9]{0,127}"), "lower-case letters, digits and hyphens, a letter first"),
    "encryption_key": (
        re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+"),
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "network": (re.compile(r"projects/[^/]+/global/networks/[^/]+"), "projects/NUMBER/global/networks/NAME"),
}
_CRON = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)")
_CONSOLE = "https://console.cloud.google.com/vertex-ai"
# KFP's SDK sent no longer backoffMaxDuration before 2.17, and Vertex AI documents none: there it is the longest time
# between two retries.
_LONGEST_BACKOFF_SECS = 3600
_FAILURE_POLICIES = {"": 0, "slow": 1, "fast": 2}
_RUN_STATES = {
    "PIPELINE_STATE_QUEUED": State.PENDING,
    "PIPELINE_STATE_PENDING": State.PENDING,
    "PIPELINE_STATE_RUNNING": State.RUNNING,
    "PIPELINE_STATE_SUCCEEDED": State.SUCCEEDED,
    "PIPELINE_STATE_FAILED": State.FAILED,
    "PIPELINE_STATE_CANCELLING": State.RUNNING,
    "PIPELINE_STATE_CANCELLED": State.CANCELLED,
    "PIPELINE_STATE_PAUSED": State.PENDING,
}
_TASK_STATES = {
    "PENDING": State.PENDING,
    "RUNNING": State.RUNNING,
    "SUCCEEDED": State.SUCCEEDED,
    "CANCEL_PENDING": State.RUNNING,
    "CANCELLING": State.RUNNING,
    "CANCELLED": State.CANCELLED,
    "FAILED": State.FAILED,
    "SKIPPED": State.CACHED,  # PipelineTaskDetail.State: "Specifies task was skipped due to cache hit."
    "NOT_TRIGGERED": State.SKIPPED,
}


def resource_id(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def from_submission(submission: Submission) -> vertex.PipelineJob:
    """Converts a submission.

    Raises:
        FlagError: an option has a form that Vertex AI does not accept.
    """
    for option, (form, expected) in _FORMS.items():
        value = getattr(submission, option)
        if value and not form.fullmatch(value):
            raise FlagError(f"Invalid value for --{option}", received=value, expected=expected)
    key = submission.encryption_key
    return vertex.PipelineJob(
        display_name=template.pipeline_name(submission.spec),
        pipeline_spec=template.with_longest_backoff(submission.spec, _LONGEST_BACKOFF_SECS),
        labels=submission.labels,
        service_account=submission.service_account,
        network=submission.network,
        encryption_spec=vertex.EncryptionSpec(kms_key_name=key) if key else None,
        runtime_config=vertex.PipelineJob.RuntimeConfig(
            gcs_output_directory=submission.pipeline_root,
            parameter_values=submission.parameters,
            failure_policy=_FAILURE_POLICIES[submission.failure_policy],
        ),
    )


def from_schedule(name: str, recurrence: Recurrence, submission: Submission, parent: str) -> vertex.Schedule:
    """Converts a schedule.

    Args:
        parent: `projects/P/locations/L`, where its runs are started.

    Raises:
        FlagError: an option has a form that Vertex AI does not accept.
    """
    return vertex.Schedule(
        display_name=name,
        cron=f"CRON_TZ={recurrence.time_zone} {recurrence.cron}",
        start_time=recurrence.start,
        end_time=recurrence.end,
        max_concurrent_run_count=recurrence.max_concurrent_runs,
        allow_queueing=recurrence.queue,
        create_pipeline_job_request=vertex.CreatePipelineJobRequest(
            parent=parent, pipeline_job=from_submission(submission)
        ),
    )


def to_run(job: vertex.PipelineJob, project: str, location: str) -> Run:
    """Converts a run."""
    submission = _to_submission(job)
    # The service lists groups of tasks, and the run itself, too.
    steps = template.step_names(submission.spec)
    run_id = resource_id(job.name)
    return Run(
        id=run_id,
        state=_RUN_STATES.get(job.state.name, State.PENDING),
        pipeline=job.display_name,
        created=_time(job.create_time) or dt.datetime.now(dt.UTC),
        ended=_time(job.end_time),
        submission=submission,
        tasks=tuple(_to_task_status(detail) for detail in job.job_detail.task_details if detail.task_name in steps),
        error=job.error.message,
        schedule=job.schedule_name,
        link=f"{_CONSOLE}/locations/{location}/pipelines/runs/{run_id}?project={project}",
    )


def to_schedule(message: vertex.Schedule, project: str) -> Schedule:
    """Converts a schedule."""
    state = message.state.name
    zoned = _CRON.fullmatch(message.cron)
    recurrence = Recurrence(
        cron=zoned[2] if zoned else message.cron,
        time_zone=zoned[1] if zoned else "UTC",
        start=_time(message.start_time),
        end=_time(message.end_time),
        max_concurrent_runs=message.max_concurrent_run_count,
        queue=message.allow_queueing,
    )
    return Schedule(
        id=message.name,
        name=message.display_name,
        state=state,
        recurrence=recurrence,
        submission=_to_submission(message.create_pipeline_job_request.pipeline_job),
        created=_time(message.create_time) or dt.datetime.now(dt.UTC),
        next_run=_time(message.next_run_time) if state == "ACTIVE" else None,
        started_runs=message.started_run_count,
        link=f"{_CONSOLE}/pipelines/schedules/{resource_id(message.name)}?project={project}",
    )


def parameters(job: vertex.PipelineJob) -> dict[str, Any]:
    """The parameters of a run, as JSON has them: all numbers are floating-point."""
    return _to_dict(job).get("runtimeConfig", {}).get("parameterValues", {})


def _to_submission(job: vertex.PipelineJob) -> Submission:
    spec = _to_dict(job).get("pipelineSpec", {})
    policies = {number: policy for policy, number in _FAILURE_POLICIES.items()}
    return Submission(
        run_id=resource_id(job.name),
        spec=spec,
        parameters=_with_integers(spec, parameters(job)),
        pipeline_root=job.runtime_config.gcs_output_directory,
        # Vertex AI adds labels of its own.
        labels={key: value for key, value in job.labels.items() if not key.startswith("vertex-ai-")},
        service_account=job.service_account,
        network=job.network,
        encryption_key=job.encryption_spec.kms_key_name,
        failure_policy=policies.get(int(job.runtime_config.failure_policy), ""),
    )


def _with_integers(spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with integers where the pipeline declares them."""
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    integers = {name for name, definition in declared.items() if definition["parameterType"] == "NUMBER_INTEGER"}
    return {name: int(value) if name in integers else value for name, value in values.items()}


def _to_task_status(detail: vertex.PipelineTaskDetail) -> TaskStatus:
    # Output parameters are in the metadata of the task's execution.
    metadata = _to_dict(detail).get("execution", {}).get("metadata", {})
    outputs = {}
    for name, value in metadata.items():
        if name.startswith("output:"):
            outputs[name.removeprefix("output:")] = str(value)
    for name, listed in detail.outputs.items():
        if listed.artifacts and listed.artifacts[0].uri:
            outputs[name] = listed.artifacts[0].uri
    return TaskStatus(
        name=detail.task_name,
        state=_TASK_STATES.get(detail.state.name, State.PENDING),
        started=_time(detail.start_time),
        ended=_time(detail.end_time),
        error=detail.error.message,
        outputs=outputs,
    )


def _to_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(type(message).pb(message))


def _time(value: Any) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(value.timestamp(), dt.UTC) if value else None
