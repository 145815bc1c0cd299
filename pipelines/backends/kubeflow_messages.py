"""Conversions between kfp_server_api's messages and this project's values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pipelines import template
from pipelines.backends.base import Recurrence, Run, Schedule, State, Submission, TaskStatus
from tf_image_classification.errors import FlagError

_STATES = {
    "PENDING": State.PENDING,
    "RUNNING": State.RUNNING,
    "SUCCEEDED": State.SUCCEEDED,
    "SKIPPED": State.SKIPPED,
    "FAILED": State.FAILED,
    "CANCELING": State.RUNNING,
    "CANCELED": State.CANCELLED,
    "PAUSED": State.RUNNING,
}
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_MAX_CONCURRENT_RUNS = 10
_EVERY = "@every "  # and seconds: the cron of a periodic recurring run, as the controller's cron library writes it


def check_options(submission: Submission) -> None:
    """Checks that no option is set that only Vertex AI has.

    Raises:
        FlagError: one is set.
    """
    for name in ("labels", "network", "encryption_key", "failure_policy"):
        if value := getattr(submission, name):
            raise FlagError(f"--{name} is an option of Vertex AI; Kubeflow has none", received=value)


def check_recurrence(recurrence: Recurrence) -> None:
    """Checks that Kubeflow supports the recurrence.

    Raises:
        FlagError: it does not.
    """
    if recurrence.time_zone != "UTC":
        raise FlagError(
            "Kubeflow has no --time_zone for a schedule",
            received=recurrence.time_zone,
            hint="Its controller has one time zone, UTC unless configured.",
        )
    if not 1 <= recurrence.max_concurrent_runs <= _MAX_CONCURRENT_RUNS:
        raise FlagError(
            "Invalid value for --max_concurrent_runs",
            received=recurrence.max_concurrent_runs,
            expected=f"1 to {_MAX_CONCURRENT_RUNS} on Kubeflow",
        )
    if not recurrence.cron:
        raise FlagError("--cron is required", hint="The recurring run has neither a cron expression nor a period.")


def trigger(recurrence: Recurrence) -> dict[str, Any]:
    """The arguments of kfp.Client for a recurring run that say when its runs start.

    A start in the past is left out: the controller would start the latest run since then at once.
    """
    now = dt.datetime.now(dt.UTC)
    start = recurrence.start if recurrence.start and recurrence.start > now else None
    arguments: dict[str, Any] = {
        "start_time": start.isoformat() if start else None,
        "end_time": recurrence.end.isoformat() if recurrence.end else None,
        "max_concurrency": recurrence.max_concurrent_runs,
        "no_catchup": not recurrence.queue,
    }
    if recurrence.cron.startswith(_EVERY):
        return arguments | {"interval_second": int(recurrence.cron.removeprefix(_EVERY).removesuffix("s"))}
    has_five_fields = len(recurrence.cron.split()) == 5
    return arguments | {"cron_expression": f"0 {recurrence.cron}" if has_five_fields else recurrence.cron}


def parameters(submission: Submission) -> dict[str, Any]:
    """The parameters of the run to send: all of the pipeline, because the UI's form for a clone of the run leaves those
    that were not sent blank."""
    return {**template.defaults(dict(submission.spec)), **submission.parameters}


def has_parameters(message: Any, submission: Submission) -> bool:
    """Whether the message of a run has the parameters of a submission."""
    sent = dict(_runtime_config(message).get("parameters") or {})
    return {**template.defaults(dict(submission.spec)), **sent} == parameters(submission)


def to_run(message: Any, host: str) -> Run:
    """Converts a run.

    Args:
        message: V2beta1Run. One that the service cannot read itself has ids and an error alone.
        host: address of Kubeflow's UI.
    """
    submission = _to_submission(message, message.display_name or message.run_id)
    ended = _time(message.finished_at)
    state = _STATES.get(message.state)
    error = _error(message)
    if state is None:  # not known here, unspecified, or none
        state = State.FAILED if ended or error else State.PENDING
        error = error or (f"Kubeflow reports the state {message.state}" if ended else "")
    # The service lists drivers and groups of tasks too.
    steps = template.step_names(submission.spec)
    details = message.run_details.task_details or [] if message.run_details else []
    tasks = [_to_task_status(detail, state.has_ended) for detail in details if detail.display_name in steps]
    return Run(
        id=submission.run_id,
        state=state,
        pipeline=template.pipeline_name(submission.spec) if steps else "",
        created=_time(message.created_at),
        ended=ended if state.has_ended else None,
        submission=submission,
        tasks=tuple(sorted(tasks, key=lambda task: task.started or _NEVER)),
        error=error,
        schedule=message.recurring_run_id or "",
        link=f"{host}/#/runs/details/{message.run_id}",
    )


def to_schedule(message: Any, host: str) -> Schedule:
    """Converts a recurring run.

    Args:
        message: V2beta1RecurringRun. One that the service cannot read itself has an id and an error alone.
        host: address of Kubeflow's UI.
    """
    found = message.trigger
    cron = found.cron_schedule if found else None
    period = found.periodic_schedule if found else None
    timed = cron or period
    recurrence = Recurrence(
        cron=_cron(cron.cron) if cron else f"{_EVERY}{period.interval_second}s" if period else "",
        time_zone="UTC",
        start=_time(timed.start_time) if timed else None,
        end=_time(timed.end_time) if timed else None,
        max_concurrent_runs=int(message.max_concurrency or 1),
        queue=not message.no_catchup,
    )
    return Schedule(
        id=message.recurring_run_id,
        name=message.display_name or message.recurring_run_id,
        state=_schedule_state(message.status, recurrence.end),
        recurrence=recurrence,
        submission=_to_submission(message, ""),
        created=_time(message.created_at),
        next_run=None,
        started_runs=None,
        link=f"{host}/#/recurringrun/details/{message.recurring_run_id}",
        late_runs="Runs that are due while others are active, or during a pause, "
        + ("all start afterwards." if recurrence.queue else "are skipped, but for the latest: it starts afterwards."),
    )


def _schedule_state(status: str, end: dt.datetime | None) -> str:
    """The state of a schedule; the service has none for one that has ended."""
    if status != "ENABLED":
        return "PAUSED"
    return "COMPLETED" if end and end <= dt.datetime.now(dt.UTC) else "ACTIVE"


def _cron(text: str) -> str:
    """The five fields of a cron expression of the controller: its first field is the second, its last may be missing.

    Other forms are left as they are: with another second than 0, and descriptors as @daily.
    """
    fields = text.split()
    fields += ["*"] if len(fields) == 5 else []
    return " ".join(fields[1:]) if len(fields) == 6 and fields[0] in ("0", "00") else text


def _to_submission(message: Any, run_id: str) -> Submission:
    sent = message.pipeline_spec or {}
    spec = sent.get("pipeline_spec", sent)
    spec = spec if "root" in spec and "pipelineInfo" in spec else {}  # a workflow of Argo, from before KFP 2
    config = _runtime_config(message)
    defaults = template.defaults(spec)
    values = {
        name: value
        for name, value in (config.get("parameters") or {}).items()
        if name not in defaults or value != defaults[name]
    }
    return Submission(
        run_id=run_id,
        spec=spec,
        parameters=values,
        pipeline_root=config.get("pipeline_root") or "",
        service_account=message.service_account or "",
        platforms=sent.get("platform_spec", {}).get("platforms", {}),
    )


def _to_task_status(detail: Any, run_has_ended: bool) -> TaskStatus:
    state = _STATES.get(detail.state, State.PENDING)
    if run_has_ended and state == State.PENDING:  # never reached, for which the service has no state
        state = State.SKIPPED
    return TaskStatus(
        name=detail.display_name,
        state=state,
        started=_time(detail.start_time),
        ended=_time(detail.end_time) if state.has_ended else None,
        error=_error(detail),
    )


def _time(time: dt.datetime | None) -> dt.datetime | None:
    """A time of the service, whose zeros mean that something has not happened."""
    return time if time and time > _EPOCH else None


def _runtime_config(message: Any) -> Mapping[str, Any]:
    return message.runtime_config.to_dict() if message.runtime_config else {}


def _error(message: Any) -> str:
    return message.error.message or "" if message.error else ""
