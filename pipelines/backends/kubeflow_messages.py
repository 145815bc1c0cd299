"""Conversions between kfp_server_api's messages and this project's values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pipelines import template
from pipelines.backends.base import Recurrence, Run, Schedule, State, Submission, TaskStatus
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_STATES = {
    "RUNNING": State.RUNNING,
    "SUCCEEDED": State.SUCCEEDED,
    "SKIPPED": State.SKIPPED,
    "FAILED": State.FAILED,
    "CANCELING": State.RUNNING,
    "CANCELED": State.CANCELLED,
}
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


def check_options(submission: Submission) -> None:
    """Checks that no option is set that only Vertex AI has.

    Raises:
        FlagError: one is set.
    """
    for name in ("labels", "network", "encryption_key", "failure_policy"):
        if value := getattr(submission, name):
            raise FlagError(f"--{name} is an option of Vertex AI; Kubeflow has none", received=value)


def check_recurrence(recurrence: Recurrence) -> None:
    """Checks that Kubeflow supports the recurrence: its controller has one time zone, and no queue.

    Raises:
        FlagError: it does not.
    """
    for option, value, supported in (
        ("time_zone", recurrence.time_zone, recurrence.time_zone == "UTC"),
        ("queue", "true", not recurrence.queue),
    ):
        if not supported:
            raise FlagError(
                f"Kubeflow has no --{option} for a schedule",
                received=value,
                hint="Its controller has one time zone, UTC unless configured.",
            )


def parameters(submission: Submission) -> dict[str, Any]:
    """The parameters of the run to send.

    Kubeflow does not pass the pipeline root to the steps, so a run of this project's pipeline gets the folder of its
    checkpoints, `<pipeline_root>/checkpoints`, as model_dir.

    Raises:
        FlagError: neither is set.
    """
    declared = submission.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values = dict(submission.parameters)
    if {"model_dir", "champion"} <= set(declared) and not values.get("model_dir"):
        if not submission.pipeline_root:
            raise FlagError(
                "--pipeline_root or --model_dir is required", expected="gs://BUCKET/FOLDER, for the checkpoints"
            )
        values["model_dir"] = _checkpoint_folder(submission.pipeline_root)
    return values


def sent_parameters(message: Any) -> dict[str, Any]:
    """The parameters in the message of a run or a recurring run."""
    return dict(_runtime_config(message).get("parameters") or {})


def to_run(message: Any, host: str) -> Run:
    """Converts a run.

    Args:
        message: V2beta1Run.
        host: address of Kubeflow's UI.
    """
    submission = _to_submission(message, message.display_name)
    # The service lists drivers and groups of tasks too.
    steps = template.step_names(submission.spec)
    details = message.run_details.task_details or [] if message.run_details else []
    details = [detail for detail in details if detail.display_name in steps]
    details.sort(key=lambda detail: detail.start_time or _NEVER)
    state = _STATES.get(message.state, State.PENDING)
    return Run(
        id=message.display_name,
        state=state,
        pipeline=template.pipeline_name(submission.spec) if steps else "",
        created=message.created_at,
        ended=message.finished_at if state.has_ended else None,
        submission=submission,
        tasks=tuple(_to_task_status(detail) for detail in details),
        error=_error(message),
        schedule=message.recurring_run_id or "",
        link=f"{host}/#/runs/details/{message.run_id}",
    )


def to_schedule(message: Any, host: str) -> Schedule:
    """Converts a recurring run.

    Args:
        message: V2beta1RecurringRun.
        host: address of Kubeflow's UI.
    """
    cron = message.trigger.cron_schedule
    recurrence = Recurrence(
        cron=cron.cron.partition(" ")[2],  # the first field is the second
        time_zone="UTC",
        start=cron.start_time,
        end=cron.end_time,
        max_concurrent_runs=int(message.max_concurrency or 1),
        queue=False,
    )
    return Schedule(
        id=message.recurring_run_id,
        name=message.display_name,
        state="ACTIVE" if message.status == "ENABLED" else "PAUSED",
        recurrence=recurrence,
        submission=_to_submission(message, ""),
        created=message.created_at,
        next_run=None,
        started_runs=None,
        link=f"{host}/#/recurringrun/details/{message.recurring_run_id}",
    )


def _to_submission(message: Any, run_id: str) -> Submission:
    spec = message.pipeline_spec or {}
    values = sent_parameters(message)
    root = _runtime_config(message).get("pipeline_root") or ""
    if root and values.get("model_dir") == _checkpoint_folder(root):  # `parameters` derived it from the root
        del values["model_dir"]
    return Submission(
        run_id=run_id,
        spec=spec.get("pipeline_spec", spec),
        parameters=values,
        pipeline_root=root,
        service_account=message.service_account or "",
        platforms=spec.get("platform_spec", {}).get("platforms", {}),
    )


def _to_task_status(detail: Any) -> TaskStatus:
    state = _STATES.get(detail.state, State.PENDING)
    return TaskStatus(
        name=detail.display_name,
        state=state,
        started=detail.start_time,
        ended=detail.end_time if state.has_ended else None,
        error=_error(detail),
    )


def _checkpoint_folder(pipeline_root: str) -> str:
    return storage.join(pipeline_root, "checkpoints")


def _runtime_config(message: Any) -> Mapping[str, Any]:
    return message.runtime_config.to_dict() if message.runtime_config else {}


def _error(message: Any) -> str:
    return message.error.message or "" if message.error else ""
