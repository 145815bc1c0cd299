"""The interface of a service that runs pipelines, and the values that go in and out of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tf_image_classification.errors import FlagError


class State(StrEnum):
    """The state of a run or of one of its tasks."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    CACHED = "CACHED"  # of a task: its outputs are an earlier run's
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"  # of a task: its condition does not hold, or a task that it depends on failed

    @property
    def has_ended(self) -> bool:
        """Whether a run in this state has ended."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The status of a step in a run.

    Attributes:
        started, ended: None until it has.
        error: the service's message about a failure.
        outputs: output name -> value of a parameter, or URI of an artifact.
    """

    name: str
    state: State
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    error: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """A run to start.

    Attributes:
        run_id: identifies the run: two submissions with the same id start one run.
        spec: the compiled pipeline.
        parameters: those that differ from their defaults.
        pipeline_root: folder for the run's artifacts, in a bucket; '' leaves it to the service.
        labels, service_account, network, encryption_key, failure_policy: as Vertex AI defines them.
        platforms: the pipeline's settings for Kubernetes, by platform; only Kubeflow takes them.
    """

    run_id: str
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]
    pipeline_root: str
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    network: str = ""
    encryption_key: str = ""
    failure_policy: str = ""
    platforms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run and its current status.

    Attributes:
        submission: what it was started from; in a list, its spec and parameters may be missing.
        schedule: id of the schedule that started it, or ''.
        link: its page in the service's console.
    """

    id: str
    state: State
    pipeline: str
    created: dt.datetime | None
    ended: dt.datetime | None
    submission: Submission
    tasks: tuple[TaskStatus, ...]
    error: str
    schedule: str
    link: str


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When a schedule starts runs.

    Attributes:
        cron: five fields; of a recurring run that was made in Kubeflow's UI also another form, as `@every 3600s`.
        time_zone: IANA name.
        start, end: None for now, and for never.
        max_concurrent_runs: a run beyond these is skipped, or waits when `queue` is set.
    """

    cron: str
    time_zone: str
    start: dt.datetime | None
    end: dt.datetime | None
    max_concurrent_runs: int
    queue: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule and its current status.

    Attributes:
        state: ACTIVE, PAUSED or COMPLETED.
        submission: what each of its runs is started from; its run_id is ''.
        next_run, started_runs: None when the service does not report it.
        link: its page in the service's console.
        late_runs: what becomes of runs that cannot start when they are due, in a sentence; '' if `recurrence` says it.
    """

    id: str
    name: str
    state: str
    recurrence: Recurrence
    submission: Submission
    created: dt.datetime | None
    next_run: dt.datetime | None
    started_runs: int | None
    link: str
    late_runs: str = ""


class Backend(Protocol):
    """A service that runs pipelines.

    Every method raises ServiceError when the service cannot be reached or denies access, and FlagError when it rejects
    the request.
    """

    def check_pipeline_root(self, pipeline_root: str) -> None:
        """Checks that the bucket of the pipeline root exists; it is never created.

        Raises:
            FlagError: the root is missing or not on gs://, or its bucket is not found.
        """

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """Starts a run, unless there is one with the submission's id.

        Returns:
            The run, and whether this call started it.

        Raises:
            FlagError: an option is invalid for this service, or the id is that of a run with other parameters.
        """

    def get_run(self, run_id: str) -> Run:
        """Returns a run with its tasks.

        Raises:
            FlagError: it is not found.
        """

    def list_runs(self, limit: int, schedule_id: str = "") -> list[Run]:
        """Returns runs, the newest first.

        Args:
            limit: maximum number of runs.
            schedule_id: only the runs of this schedule.
        """

    def cancel_run(self, run_id: str) -> None:
        """Requests that a run is cancelled, and does not wait for it.

        Raises:
            FlagError: it is not found.
        """

    def create_schedule(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        """Creates a schedule.

        Args:
            submission: what each run is started from; its run_id is ignored.

        Raises:
            FlagError: the name is taken, or the service does not support the recurrence or an option.
        """

    def get_schedule(self, name: str) -> Schedule:
        """Returns the schedule with this name.

        Raises:
            FlagError: it is not found, or several schedules have this name.
        """

    def list_schedules(self) -> list[Schedule]:
        """Returns all schedules, the newest first."""

    def pause_schedule(self, schedule: Schedule) -> None:
        """Pauses a schedule: it starts no runs. Active runs continue."""

    def resume_schedule(self, schedule: Schedule, catch_up: bool) -> None:
        """Resumes a paused schedule.

        Args:
            catch_up: also start the runs that the pause skipped.

        Raises:
            FlagError: `catch_up` is set, and the service does not support it.
        """

    def update_schedule(self, schedule: Schedule, recurrence: Recurrence, submission: Submission) -> Schedule:
        """Changes a schedule in place, or replaces it where the service cannot change it.

        Returns:
            The changed schedule; a replacement has another id.

        Raises:
            FlagError: the service does not support the recurrence or an option.
        """

    def delete_schedule(self, schedule: Schedule) -> None:
        """Deletes a schedule; the runs that it has started are kept."""


def replace_schedule(service: Backend, old: Schedule, create: Callable[[], Schedule]) -> Schedule:
    """Replaces a schedule by the one that `create` creates, which is paused if the old one is.

    The old schedule is paused first and deleted last, so no run is started twice; when `create` fails, it is resumed.

    Returns:
        The new schedule.
    """
    active = old.state == "ACTIVE"
    if active:
        service.pause_schedule(old)
    try:
        created = create()
    except BaseException:
        if active:
            service.resume_schedule(old, catch_up=False)
        raise
    if not active:
        service.pause_schedule(created)
    service.delete_schedule(old)
    return service.get_schedule(old.name)


def run_id_taken(run_id: str) -> FlagError:
    """The error for a run id that another run has."""
    return FlagError(
        "This --run_id is that of another run, with other parameters",
        received=run_id,
        hint="Choose another --run_id.",
    )


def schedule_exists(name: str) -> FlagError:
    """The error for a new schedule whose name is taken."""
    return FlagError("A schedule with this name exists", received=name, hint="Change it with `schedule update`.")


def schedule_not_found(service: Backend, name: str) -> FlagError:
    """The error for a schedule that is not found; it lists those that exist."""
    known = ", ".join(schedule.name for schedule in service.list_schedules())
    return FlagError("Schedule not found", received=name, expected=known or None, hint="`schedule list` shows them.")
