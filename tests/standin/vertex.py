"""Vertex AI Pipelines on 127.0.0.1: the REST surface of pipeline jobs and schedules, checked with the SDK's own message types."""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.protobuf import field_mask_pb2, json_format
from werkzeug.wrappers import Request

from tests.standin.clock import Clock, next_time
from tests.standin.runs import Event, Runner, whole_numbers
from tests.standin.service import Refused, Service

PROJECT_NUMBER = "123456789012"  # answers name a project by its number, whatever the request said

_LOCATION = "/v1/projects/<project>/locations/<location>"
_TYPES = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list, "STRUCT": dict}
_FAILED_PRECONDITION = 9  # google.rpc.Code
_RUNNING = (types.PipelineState.PIPELINE_STATE_PENDING, types.PipelineState.PIPELINE_STATE_RUNNING)


class Vertex(Service):
    """Pipeline jobs and schedules.

    Attributes:
        clock: what schedules go by; moved by `advance`.
        runner: carries the runs out.
        updates_requests: whether a schedule's pipeline job can be changed in place.
    """

    def __init__(self, folder: Path, storage_url: str = "", port: int = 0) -> None:
        self.clock, self.runner, self.updates_requests = Clock(), Runner(folder, storage_url), True
        self.jobs: dict[str, types.PipelineJob] = {}
        self.schedules: dict[str, types.Schedule] = {}
        self._threads: dict[str, threading.Thread] = {}
        super().__init__(port)

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        jobs, schedules = f"{_LOCATION}/pipelineJobs", f"{_LOCATION}/schedules"
        return [
            ("POST", jobs, self._create_job),
            ("GET", jobs, self._list_jobs),
            ("GET", f"{jobs}/<name>", self._get_job),
            ("DELETE", f"{jobs}/<name>", self._delete_job),
            ("POST", f"{jobs}/<name>:cancel", self._cancel_job),
            ("POST", schedules, self._create_schedule),
            ("GET", schedules, self._list_schedules),
            ("GET", f"{schedules}/<name>", self._get_schedule),
            ("PATCH", f"{schedules}/<name>", self._update_schedule),
            ("DELETE", f"{schedules}/<name>", self._delete_schedule),
            ("POST", f"{schedules}/<name>:pause", self._pause_schedule),
            ("POST", f"{schedules}/<name>:resume", self._resume_schedule),
            *(
                ("GET", f"/{api}/projects/<project>/locations/<location>/operations/<name>", self._get_operation)
                for api in ("v1", "ui")  # the SDK polls an operation under either
            ),
            ("POST", "/standin/clock", self._move_clock),
            ("POST", "/standin/fail_once", self._fail_once),
        ]

    def stop(self) -> None:
        self.runner.stop()
        super().stop()

    # Pipeline jobs

    def _create_job(self, request: Request, project: str, location: str) -> dict[str, Any]:
        name = request.args.get("pipelineJobId") or f"run-{len(self.jobs) + 1}"
        return _answer(self._start(name, _parse(types.PipelineJob, request.data), project, location))

    def _start(self, name: str, job: types.PipelineJob, project: str, location: str) -> types.PipelineJob:
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", name):
            raise Refused(400, f"Invalid pipeline job id {name!r}: it must match [a-z][-a-z0-9]{{0,127}}.")
        if name in self.jobs:
            raise Refused(409, f"The PipelineJob {name} already exists.")
        spec, config = _plain(job)["pipelineSpec"], job.runtime_config
        _check_parameters(spec, dict(config.parameter_values))
        if not config.gcs_output_directory.startswith("gs://"):
            raise Refused(400, "pipeline_job.runtime_config.gcs_output_directory must be a Cloud Storage path.")
        now = self.clock.now()
        job.name = f"projects/{PROJECT_NUMBER}/locations/{location}/pipelineJobs/{name}"
        job.create_time = job.start_time = job.update_time = now
        job.state = types.PipelineState.PIPELINE_STATE_RUNNING
        job.job_detail = types.PipelineJobDetail(
            task_details=[
                types.PipelineTaskDetail(task_id=number, task_name=task, create_time=now, state=types.PipelineTaskDetail.State.PENDING)
                for number, task in enumerate(_in_order(spec["root"]["dag"]["tasks"]), start=1)
            ]
        )
        self.jobs[name] = job
        self._threads[name] = self.runner.start(
            name,
            spec,
            dict(config.parameter_values),
            config.gcs_output_directory,
            lambda event: self._report(job, event),
            lambda succeeded: self._finish(job, succeeded),
        )
        return job

    def _report(self, job: types.PipelineJob, event: Event) -> None:
        with self.lock:
            detail = next((one for one in job.job_detail.task_details if one.task_name == event["task"]), None)
            if detail is None:  # inside a condition or an exit handler
                detail = types.PipelineTaskDetail(
                    task_id=len(job.job_detail.task_details) + 1, task_name=event["task"], create_time=self.clock.now()
                )
                job.job_detail.task_details.append(detail)
                detail = job.job_detail.task_details[-1]
            detail.state = types.PipelineTaskDetail.State[event["state"]]
            if event["state"] == "RUNNING":
                detail.start_time = self.clock.now()
                return
            detail.end_time = self.clock.now()
            if event["state"] == "FAILED":
                detail.error = {"code": _FAILED_PRECONDITION, "message": "The replica workerpool0-0 exited with a non-zero status of 1."}
            results = {name: output["value"] for name, output in event.get("outputs", {}).items() if "value" in output}
            detail.execution = types.Execution(metadata={f"output:{name}": value for name, value in results.items()})
            for name, output in event.get("outputs", {}).items():
                if "uri" in output:
                    artifact = types.Artifact(
                        display_name=name, uri=output["uri"], schema_title=output["schema_title"], metadata=output["metadata"]
                    )
                    detail.outputs[name] = types.PipelineTaskDetail.ArtifactList(artifacts=[artifact])

    def _finish(self, job: types.PipelineJob, succeeded: bool) -> None:
        with self.lock:
            if job.state != types.PipelineState.PIPELINE_STATE_RUNNING:
                return
            state = types.PipelineTaskDetail.State
            failed = [detail.task_name for detail in job.job_detail.task_details if detail.state == state.FAILED]
            for detail in job.job_detail.task_details:
                if detail.state == state.PENDING:
                    detail.state = state.NOT_TRIGGERED
            job.end_time = job.update_time = self.clock.now()
            if succeeded:
                job.state = types.PipelineState.PIPELINE_STATE_SUCCEEDED
            else:
                job.state = types.PipelineState.PIPELINE_STATE_FAILED
                message = f"The DAG failed because some tasks failed. The failed tasks are: [{', '.join(failed)}]."
                job.error = {"code": _FAILED_PRECONDITION, "message": message}

    def _get_job(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return _answer(self._job(name))

    def _job(self, name: str) -> types.PipelineJob:
        if name not in self.jobs:
            raise Refused(404, f"The PipelineJob {name} does not exist.")
        return self.jobs[name]

    def _list_jobs(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return _page(request, list(self.jobs.values()), "pipelineJobs")

    def _delete_job(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        if self._job(name).state in _RUNNING:
            raise Refused(400, f"The PipelineJob {name} is still running.")
        del self.jobs[name]
        return _done(project, location, "delete-" + name)

    def _cancel_job(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        job = self._job(name)
        if job.state not in _RUNNING:
            raise Refused(400, f"The PipelineJob {name} has ended already.")
        self.runner.cancel(name)
        job.state = types.PipelineState.PIPELINE_STATE_CANCELLED
        job.end_time = job.update_time = self.clock.now()
        job.error = {"code": 1, "message": "The PipelineJob was cancelled by the user."}
        state = types.PipelineTaskDetail.State
        for detail in job.job_detail.task_details:
            if detail.state in (state.PENDING, state.RUNNING):
                detail.state = state.CANCELLED
        return {}

    # Schedules

    def _create_schedule(self, request: Request, project: str, location: str) -> dict[str, Any]:
        schedule = _parse(types.Schedule, request.data)
        self._check_schedule(schedule)
        name = str(1000 + len(self.schedules))
        schedule.name = f"projects/{PROJECT_NUMBER}/locations/{location}/schedules/{name}"
        schedule.state = types.Schedule.State.ACTIVE
        now = self.clock.now()
        schedule.create_time = schedule.update_time = now
        schedule.start_time = schedule.start_time or now
        schedule.next_run_time = next_time(schedule.cron, max(now, schedule.start_time))
        self.schedules[name] = schedule
        return _answer(schedule)

    def _check_schedule(self, schedule: types.Schedule) -> None:
        try:
            next_time(schedule.cron, self.clock.now())
        except ValueError as error:
            raise Refused(400, str(error)) from None
        if schedule.max_concurrent_run_count < 1:
            raise Refused(400, "max_concurrent_run_count must be positive.")
        job = schedule.create_pipeline_job_request.pipeline_job
        _check_parameters(_plain(job)["pipelineSpec"], dict(job.runtime_config.parameter_values))

    def _schedule(self, name: str) -> types.Schedule:
        if name not in self.schedules:
            raise Refused(404, f"The Schedule {name} does not exist.")
        return self.schedules[name]

    def _get_schedule(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return _answer(self._schedule(name))

    def _list_schedules(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return _page(request, list(self.schedules.values()), "schedules")

    def _update_schedule(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        current, given = self._schedule(name), _parse(types.Schedule, request.data)
        mask = field_mask_pb2.FieldMask()
        mask.FromJsonString(request.args.get("updateMask", ""))
        if "create_pipeline_job_request" in mask.paths and not self.updates_requests:
            raise Refused(400, "create_pipeline_job_request cannot be updated.")
        changed = types.Schedule()
        types.Schedule.pb(changed).CopyFrom(types.Schedule.pb(current))
        for path in mask.paths:
            setattr(changed, path, getattr(given, path))
        self._check_schedule(changed)
        changed.update_time = self.clock.now()
        changed.next_run_time = next_time(changed.cron, max(self.clock.now(), changed.start_time))
        self.schedules[name] = changed
        return _answer(changed)

    def _delete_schedule(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        self._schedule(name)
        del self.schedules[name]
        return _done(project, location, "delete-" + name)

    def _pause_schedule(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        schedule = self._schedule(name)
        schedule.state, schedule.last_pause_time = types.Schedule.State.PAUSED, self.clock.now()
        return {}

    def _resume_schedule(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        schedule = self._schedule(name)
        schedule.state, schedule.last_resume_time = types.Schedule.State.ACTIVE, self.clock.now()
        schedule.catch_up = json.loads(request.data or b"{}").get("catchUp", False)
        if not schedule.catch_up:  # what the pause left out stays left out
            schedule.next_run_time = next_time(schedule.cron, self.clock.now())
        return {}

    # Time

    def advance(self, time: dt.timedelta) -> None:
        """Moves the clock; each run that becomes due is started when the one before it has ended, as if no time passed within."""
        end = self.clock.now() + time
        while due := self._first_due(end):
            self.clock.advance_to(due.next_run_time)
            self._fire(due)
            self.join()
        self.clock.advance_to(end)

    def fire_due(self) -> None:
        """Starts what is due now."""
        while (due := self._first_due(self.clock.now())) and self._fire(due):
            pass

    def join(self) -> None:
        """Waits until no run is going on."""
        for thread in list(self._threads.values()):
            thread.join()

    def _first_due(self, until: dt.datetime) -> types.Schedule | None:
        with self.lock:
            for schedule in self.schedules.values():
                ended = schedule.end_time and schedule.next_run_time > schedule.end_time
                if ended or 0 < schedule.max_run_count <= schedule.started_run_count:
                    schedule.state = types.Schedule.State.COMPLETED
            active = [one for one in self.schedules.values() if one.state == types.Schedule.State.ACTIVE and one.next_run_time <= until]
            return min(active, key=lambda one: one.next_run_time, default=None)

    def _fire(self, schedule: types.Schedule) -> bool:
        """Starts a run or leaves it out; False when it has to wait."""
        with self.lock:
            time = schedule.next_run_time
            running = [job for job in self.jobs.values() if job.schedule_name == schedule.name and job.state in _RUNNING]
            full = len(running) >= schedule.max_concurrent_run_count
            if full and schedule.allow_queueing:
                return False
            schedule.next_run_time = next_time(schedule.cron, time)
            said = "SKIPPED: max_concurrent_run_count was reached" if full else "OK"
            schedule.last_scheduled_run_response = {"scheduled_run_time": time, "run_response": said}
            if full:
                return True
            job = types.PipelineJob()
            types.PipelineJob.pb(job).CopyFrom(types.PipelineJob.pb(schedule.create_pipeline_job_request.pipeline_job))
            job.schedule_name = schedule.name
            schedule.started_run_count += 1
            _, project, _, location, _, number = schedule.name.split("/")
            pipeline = _plain(job)["pipelineSpec"]["pipelineInfo"]["name"]
            self._start(f"{pipeline}-{number}-{time:%Y%m%d%H%M%S}", job, project, location)
            return True

    # The rest

    def _get_operation(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return _done(project, location, name)

    def _move_clock(self, request: Request) -> dict[str, Any]:
        threading.Thread(target=self.advance, args=[dt.timedelta(**json.loads(request.data))], daemon=True).start()
        return {}

    def _fail_once(self, request: Request) -> dict[str, Any]:
        self.runner.fail_once += json.loads(request.data)
        return {}


def _parse(kind: Any, body: bytes) -> Any:
    message = kind()
    try:
        json_format.Parse(body, kind.pb(message))
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid JSON payload received. {error}") from None
    return message


def _answer(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(type(message).pb(message))


_plain = _answer


def _page(request: Request, found: list[Any], key: str) -> dict[str, Any]:
    """One page of a list: `filter` of NAME="VALUE" terms joined by AND, `orderBy=create_time desc`, `pageSize`, `readMask`."""
    found = [one for one in found if all(_field(one, path) == value for path, value in _terms(request.args.get("filter", "")))]
    if request.args.get("orderBy") == "create_time desc":
        found.sort(key=lambda one: one.create_time, reverse=True)
    first, size = int(request.args.get("pageToken") or 0), int(request.args.get("pageSize") or 100)
    shown = [_answer(_masked(one, request.args.get("readMask", ""))) for one in found[first : first + size]]
    return {key: shown} | ({"nextPageToken": str(first + size)} if first + size < len(found) else {})


def _terms(text: str) -> Iterator[tuple[str, str]]:
    for term in filter(None, text.split(" AND ")):
        found = re.fullmatch(r'\s*([\w.]+)\s*=\s*"?([^"]*)"?\s*', term)
        if not found:
            raise Refused(400, f"Invalid filter: {text}")
        yield found[1], found[2]


def _field(message: Any, path: str) -> str:
    first, _, rest = path.partition(".")
    value = getattr(message, first, None)
    value = value.get(rest, "") if rest else value
    return getattr(value, "name", None) or str(value)


def _masked(message: Any, mask_text: str) -> Any:
    if not mask_text:
        return message
    mask, kept = field_mask_pb2.FieldMask(), type(message)()
    mask.FromJsonString(mask_text)
    inner = [path for path in mask.paths if path.startswith("pipeline_spec.")]  # a Struct: protobuf's masks do not look into one
    for path in inner:
        mask.paths.remove(path)
    mask.MergeMessage(type(message).pb(message), type(message).pb(kept))
    spec = _plain(message)["pipelineSpec"] if inner else {}
    wanted = {re.sub("_(.)", lambda letter: letter[1].upper(), path.partition(".")[2]) for path in inner}
    if inner:
        kept.pipeline_spec = {name: value for name, value in spec.items() if name in wanted}
    return kept


def _check_parameters(spec: dict[str, Any], given: dict[str, Any]) -> None:
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in given.items():
        if name not in known:
            raise Refused(400, f"Parameter {name} is not found in the pipeline's input definitions.")
        kind = known[name]["parameterType"]
        wrong = not isinstance(value, _TYPES[kind]) or (kind != "BOOLEAN" and isinstance(value, bool))
        if wrong or (kind == "NUMBER_INTEGER" and whole_numbers(spec, {name: value})[name] != value):
            raise Refused(400, f"Parameter {name} is not of type {kind}.")
    missing = [name for name, one in known.items() if name not in given and "defaultValue" not in one and not one.get("isOptional")]
    if missing:
        raise Refused(400, f"Parameters are missing: {', '.join(missing)}.")


def _in_order(tasks: dict[str, Any]) -> list[str]:
    """Each task after those that it depends on."""
    ordered: list[str] = []
    while len(ordered) < len(tasks):
        ordered += [name for name, task in tasks.items() if name not in ordered and set(task.get("dependentTasks", [])) <= set(ordered)]
    return ordered


def _done(project: str, location: str, name: str) -> dict[str, Any]:
    """A finished long-running operation."""
    return {
        "name": f"projects/{PROJECT_NUMBER}/locations/{location}/operations/{name}",
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
