"""What a service that runs pipelines is asked for, and what it answers, whichever service it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tf_image_classification.errors import FlagError, did_you_mean

PENDING, RUNNING, SUCCEEDED, CACHED, FAILED, CANCELLED, SKIPPED = (
    "PENDING",
    "RUNNING",
    "SUCCEEDED",
    "CACHED",
    "FAILED",
    "CANCELLED",
    "SKIPPED",
)
ENDED = (SUCCEEDED, FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class Task:
    """A step of a run.

    Attributes:
        state: one of the states above.
        started, ended: None as long as it has not.
        error: what the service says of a failure.
        outputs: name -> value, or where an artifact lies.
    """

    name: str
    state: str
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    error: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """A run to start.

    Attributes:
        run_id: two submissions with one id are one run.
        spec: the compiled pipeline.
        parameters: those that differ from their defaults.
        pipeline_root: gs:// folder for what the run makes; '' leaves it to the service.
        labels, service_account, network, encryption_key, failure_policy: as Vertex AI has them.
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


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands.

    Attributes:
        state: one of the states above.
        submission: what started it; in a list its spec and parameters may be left out.
        schedule: the id of the schedule that started it, or ''.
        link: its page for a person.
    """

    id: str
    state: str
    pipeline: str
    created: dt.datetime
    ended: dt.datetime | None
    submission: Submission
    tasks: tuple[Task, ...]
    error: str
    schedule: str
    link: str


@dataclass(frozen=True, slots=True)
class Plan:
    """When a schedule starts runs.

    Attributes:
        cron: five fields.
        time_zone: IANA name.
        start, end: None for now, and for never.
        max_concurrent_runs: a run that would be one more is left out, or waits when `queue` is set.
    """

    cron: str
    time_zone: str
    start: dt.datetime | None
    end: dt.datetime | None
    max_concurrent_runs: int
    queue: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands.

    Attributes:
        state: ACTIVE, PAUSED or COMPLETED.
        submission: what each of its runs starts from; its run_id is ''.
        next_run, started_runs: None when the service does not tell.
    """

    id: str
    name: str
    state: str
    plan: Plan
    submission: Submission
    created: dt.datetime
    next_run: dt.datetime | None
    started_runs: int | None
    link: str


class Backend(Protocol):
    """A service that runs pipelines. Its methods raise UserError for what it refuses."""

    def check_root(self, pipeline_root: str) -> None: ...
    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """Starts a run; the second value says whether it is new, or one that this id already had."""

    def run(self, run_id: str) -> Run: ...
    def runs(self, limit: int, schedule: str = "") -> list[Run]: ...
    def cancel(self, run_id: str) -> None: ...
    def create_schedule(self, name: str, plan: Plan, submission: Submission) -> Schedule: ...
    def schedule(self, name: str) -> Schedule: ...
    def schedules(self) -> list[Schedule]: ...
    def pause(self, schedule: Schedule) -> None: ...
    def resume(self, schedule: Schedule, catch_up: bool) -> None: ...
    def update_schedule(self, schedule: Schedule, plan: Plan, submission: Submission) -> Schedule: ...
    def delete_schedule(self, schedule: Schedule) -> None: ...


def replace_schedule(service: Backend, old: Schedule, create: Callable[[], Schedule]) -> Schedule:
    """Puts the schedule that `create` makes in the place of an old one.

    The old one is paused first and deleted last: no run is started twice, and when something fails it goes on.
    """
    active = old.state == "ACTIVE"
    if active:
        service.pause(old)
    try:
        made = create()
    except BaseException:
        if active:
            service.resume(old, catch_up=False)
        raise
    if not active:
        service.pause(made)
    service.delete_schedule(old)
    return service.schedule(old.name)


def dispatch(
    help_text: str,
    plain: Mapping[str, Callable[[Sequence[str]], int]],
    named: Mapping[str, Callable[[str, Sequence[str]], int]],
    argv: Sequence[str],
) -> int:
    """Calls the verb that stands first; those of `named` take a name behind it.

    Raises:
        FlagError: there is no such verb, or the name is missing.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text, end="")
        return 0 if argv else 2
    verb, *rest = argv
    if verb in plain:
        return plain[verb](rest)
    if verb not in named:
        known = [*plain, *named]
        raise FlagError(
            "There is no such command",
            received=verb,
            expected=" or ".join(known),
            hint=did_you_mean(verb, known),
        )
    if rest and rest[0] in ("-h", "--help"):
        return named[verb]("", rest)
    if not rest or rest[0].startswith("-"):
        raise FlagError(f"{verb} is told no name", received=" ".join(argv), expected=f"{verb} NAME [options]")
    return named[verb](rest[0], rest[1:])
