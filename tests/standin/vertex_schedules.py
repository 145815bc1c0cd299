"""Vertex AI's schedules: they start pipeline jobs by a clock that a test can advance."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin.clock import Clock, next_time
from tests.standin.service import ApiError
from tests.standin.vertex_jobs import RUNNING, PipelineJobs, check_parameters, parameters_of
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, copy_message, page, parse, to_json, update_mask
from tests.standin.vertex_operations import Operations
from tests.standin.vertex_resources import check_resources


class Schedules:
    """The schedules of a project, by id.

    Attributes:
        updates_requests: whether create_pipeline_job_request of a schedule can be updated.
    """

    def __init__(self, clock: Clock, jobs: PipelineJobs, operations: Operations, lock: threading.RLock) -> None:
        self.all: dict[str, types.Schedule] = {}
        self.updates_requests = True
        self._created = 0
        self._clock, self._jobs, self._operations, self._lock = clock, jobs, operations, lock

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        schedules = f"{LOCATION}/schedules"
        return [
            ("POST", schedules, self._create),
            ("GET", schedules, self._list),
            ("GET", f"{schedules}/<name>", self._get),
            ("PATCH", f"{schedules}/<name>", self._update),
            ("DELETE", f"{schedules}/<name>", self._delete),
            ("POST", f"{schedules}/<name>:pause", self._pause),
            ("POST", f"{schedules}/<name>:resume", self._resume),
        ]

    def advance(self, time: dt.timedelta) -> None:
        """Advances the clock. Runs that become due are started one after the other, as if they took no time."""
        end = self._clock.now() + time
        while due := self._first_due(end):
            self._clock.advance_to(due.next_run_time)
            self._fire(due)
            self._jobs.join()
        self._clock.advance_to(end)

    def fire_due(self) -> None:
        """Starts the runs that are due now."""
        while (due := self._first_due(self._clock.now())) and self._fire(due):
            pass

    def _first_due(self, until: dt.datetime) -> types.Schedule | None:
        with self._lock:
            for schedule in self.all.values():
                ended = schedule.end_time and schedule.next_run_time > schedule.end_time
                if ended or 0 < schedule.max_run_count <= schedule.started_run_count:
                    schedule.state = types.Schedule.State.COMPLETED
            active = [
                one
                for one in self.all.values()
                if one.state == types.Schedule.State.ACTIVE and one.next_run_time <= until
            ]
            return min(active, key=lambda one: one.next_run_time, default=None)

    def _fire(self, schedule: types.Schedule) -> bool:
        """Starts the next run of a schedule, or skips it; False if it is queued."""
        with self._lock:
            time = schedule.next_run_time
            running = [
                job for job in self._jobs.all.values() if job.schedule_name == schedule.name and job.state in RUNNING
            ]
            # max_concurrent_run_count limits requests, not runs; here, a request takes no time.
            full = 0 < schedule.max_concurrent_active_run_count <= len(running)
            if full and schedule.allow_queueing:
                return False
            schedule.next_run_time = next_time(schedule.cron, time)
            run_response = "SKIPPED: max_concurrent_active_run_count was reached" if full else "OK"
            schedule.last_scheduled_run_response = {"scheduled_run_time": time, "run_response": run_response}
            if full:
                return True
            job = copy_message(schedule.create_pipeline_job_request.pipeline_job)
            job.schedule_name = schedule.name
            schedule.started_run_count += 1
            _, project, _, location, _, number = schedule.name.split("/")
            pipeline = to_json(job)["pipelineSpec"]["pipelineInfo"]["name"]
            self._jobs.start(f"{pipeline}-{number}-{time:%Y%m%d%H%M%S}", job, project, location)
            return True

    def _create(self, request: Request, project: str, location: str) -> dict[str, Any]:
        schedule = parse(types.Schedule, request.data)
        self._check(schedule)
        name = str(1000 + self._created)
        self._created += 1
        schedule.name = f"projects/{PROJECT_NUMBER}/locations/{location}/schedules/{name}"
        schedule.state = types.Schedule.State.ACTIVE
        now = self._clock.now()
        schedule.create_time = schedule.update_time = now
        schedule.start_time = schedule.start_time or now
        # A start in the past backfills: the runs since then are started, too.
        schedule.next_run_time = next_time(schedule.cron, schedule.start_time)
        self.all[name] = schedule
        return to_json(schedule)

    def _check(self, schedule: types.Schedule) -> None:
        try:
            next_time(schedule.cron, self._clock.now())
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        if schedule.max_concurrent_run_count < 1:
            raise ApiError(400, "max_concurrent_run_count must be positive.")
        if schedule.end_time and schedule.end_time <= max(self._clock.now(), schedule.start_time or self._clock.now()):
            raise ApiError(400, "end_time must be in the future, and after start_time.")
        job = schedule.create_pipeline_job_request.pipeline_job
        spec = to_json(job)["pipelineSpec"]
        check_parameters(spec, parameters_of(job))
        check_resources(spec)

    def _find(self, name: str) -> types.Schedule:
        if name not in self.all:
            raise ApiError(404, f"The Schedule {name} does not exist.")
        return self.all[name]

    def _find_unfinished(self, name: str) -> types.Schedule:
        schedule = self._find(name)
        if schedule.state == types.Schedule.State.COMPLETED:
            raise ApiError(400, f"The Schedule {name} is completed: it can be neither updated, paused nor resumed.")
        return schedule

    def _get(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return to_json(self._find(name))

    def _list(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return page(request, list(self.all.values()), "schedules")

    def _update(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        current, given = self._find_unfinished(name), parse(types.Schedule, request.data)
        paths = update_mask(request)
        if "create_pipeline_job_request" in paths and not self.updates_requests:
            raise ApiError(400, "create_pipeline_job_request cannot be updated.")
        changed = copy_message(current)
        for path in paths:
            setattr(changed, path, getattr(given, path))
        self._check(changed)
        changed.update_time = now = self._clock.now()
        changed.start_time = changed.start_time or now
        since = changed.start_time if "start_time" in paths else max(now, changed.start_time)
        changed.next_run_time = next_time(changed.cron, since)
        self.all[name] = changed
        return to_json(changed)

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        schedule = self._find(name)
        del self.all[name]
        return self._operations.start(schedule.name)

    def _pause(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        schedule = self._find_unfinished(name)
        schedule.state, schedule.last_pause_time = types.Schedule.State.PAUSED, self._clock.now()
        return {}

    def _resume(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        schedule = self._find_unfinished(name)
        schedule.state, schedule.last_resume_time = types.Schedule.State.ACTIVE, self._clock.now()
        schedule.catch_up = json.loads(request.data or b"{}").get("catchUp", False)
        if not schedule.catch_up:  # runs missed during the pause stay missed
            schedule.next_run_time = next_time(schedule.cron, self._clock.now())
        return {}
