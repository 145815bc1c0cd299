"""Kubeflow Pipelines on 127.0.0.1: the methods of its v2beta1 API that kfp.Client calls.

Served: runs and recurring runs of one experiment, with filters and pages. Not served: uploaded pipelines and their
versions, several users and namespaces, artifacts, archiving, the UI.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api
from werkzeug.wrappers import Request, Response

from tests.standin import kubernetes
from tests.standin.clock import Clock, next_time
from tests.standin.runs import Event, Runner, leaf_tasks
from tests.standin.service import ApiError, Service

_API = "/apis/v2beta1"
_EXPERIMENT = {"experiment_id": "e1", "display_name": "Default", "namespace": ""}

_COPIED = ("experiment_id", "pipeline_spec", "runtime_config")  # fields of a recurring run that its runs have too

Resource = dict[str, Any]


class Kubeflow(Service):
    """Runs and recurring runs of one experiment.

    Attributes:
        clock: of recurring runs and timestamps; advanced by `advance`.
        runner: executes the pipelines.
        runs: by id.
        recurring: recurring runs, by id.
    """

    def __init__(self, folder: Path, storage_url: str = "", port: int = 0) -> None:
        self.clock, self.runner = Clock(), Runner(folder, storage_url)
        self.runs: dict[str, Resource] = {}
        self.recurring: dict[str, Resource] = {}
        self._due: dict[str, dt.datetime] = {}
        self._threads: list[threading.Thread] = []
        super().__init__(port)

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", f"{_API}/healthz", lambda request: {"multi_user": False}),
            ("GET", f"{_API}/experiments", lambda request: {"experiments": [_EXPERIMENT], "total_size": 1}),
            ("POST", f"{_API}/runs", self._create_run),
            ("GET", f"{_API}/runs", lambda request: _page(request, self.runs, "runs")),
            ("GET", f"{_API}/runs/<name>", lambda request, name: _find(self.runs, name)),
            ("POST", f"{_API}/runs/<name>:terminate", self._terminate),
            ("POST", f"{_API}/recurringruns", self._create_recurring),
            ("GET", f"{_API}/recurringruns", lambda request: _page(request, self.recurring, "recurringRuns")),
            ("GET", f"{_API}/recurringruns/<name>", lambda request, name: _find(self.recurring, name)),
            (
                "POST",
                f"{_API}/recurringruns/<name>:enable",
                lambda request, name: self._switch(name, "ENABLE", "ENABLED"),
            ),
            (
                "POST",
                f"{_API}/recurringruns/<name>:disable",
                lambda request, name: self._switch(name, "DISABLE", "DISABLED"),
            ),
            ("DELETE", f"{_API}/recurringruns/<name>", self._delete_recurring),
        ]

    def stop(self) -> None:
        """Kills the processes of all runs, and stops serving."""
        self.runner.stop()
        super().stop()

    def error(self, code: int, message: str) -> Response:
        """An error in the format of Kubeflow's API."""
        return Response(
            json.dumps({"error": message, "code": code, "message": message}), status=code, mimetype="application/json"
        )

    def _create_run(self, request: Request) -> Resource:
        return self._start(_parse(kfp_server_api.V2beta1Run, request.data))

    def _start(self, run: Resource) -> Resource:
        spec = kubernetes.pipeline_of(run["pipeline_spec"])
        self.runner.fail_once += kubernetes.tasks_without_a_pod(spec)
        config = run.get("runtime_config", {})
        parameters = config.get("parameters", {})
        unknown = set(parameters) - set(spec["root"].get("inputDefinitions", {}).get("parameters", {}))
        if unknown:
            raise ApiError(400, f"Unrecognized input parameter: {', '.join(sorted(unknown))}.")
        run_id = str(uuid.uuid4())
        details = [
            {"task_id": str(uuid.uuid4()), "display_name": name, "create_time": self._now(), "state": "PENDING"}
            for name in ["root", *leaf_tasks(spec)]
        ]
        run |= {
            "run_id": run_id,
            "created_at": self._now(),
            "state": "RUNNING",
            "run_details": {"task_details": details},
        }
        self.runs[run_id] = run
        root, name = config.get("pipeline_root") or "gs://default/v2/artifacts", run["display_name"]
        # The service does not replace {{$.pipeline_root}}; kfp.local, which executes the tasks here, would.
        placeholders = {
            "pipeline_root": "{{$pipeline_root}}",
            "pipeline_job_name": name,
            "pipeline_job_resource_name": name,
        }
        self._threads.append(
            self.runner.start(
                run_id,
                spec,
                parameters,
                root,
                placeholders,
                lambda event: self._report(run, event),
                lambda succeeded: self._finish(run, succeeded),
            )
        )
        return run

    def _report(self, run: Resource, event: Event) -> None:
        with self.lock:
            detail = next(one for one in run["run_details"]["task_details"] if one["display_name"] == event["task"])
            detail["state"] = event["state"]
            detail["start_time" if event["state"] == "RUNNING" else "end_time"] = self._now()
            if event["state"] == "FAILED":
                detail["error"] = {
                    "code": 9,
                    "message": "This step is in Error state with this message: Error (exit code 1)",
                }

    def _finish(self, run: Resource, succeeded: bool) -> None:
        with self.lock:
            if run["state"] == "RUNNING":
                run |= {"state": "SUCCEEDED" if succeeded else "FAILED", "finished_at": self._now()}

    def _terminate(self, request: Request, name: str) -> Resource:
        run = _find(self.runs, name)
        if run["state"] != "RUNNING":
            raise ApiError(400, "The run has ended.")
        run |= {"state": "CANCELED", "finished_at": self._now()}
        self.runner.cancel(name)
        return {}

    def _create_recurring(self, request: Request) -> Resource:
        recurring = _parse(kfp_server_api.V2beta1RecurringRun, request.data)
        recurring_id = str(uuid.uuid4())
        status = "ENABLED" if recurring["mode"] == "ENABLE" else "DISABLED"
        recurring |= {"recurring_run_id": recurring_id, "created_at": self._now(), "status": status}
        self._plan(recurring, self.clock.now())
        self.recurring[recurring_id] = recurring
        return recurring

    def _plan(self, recurring: Resource, after: dt.datetime) -> None:
        seconds, _, fields = recurring["trigger"]["cron_schedule"]["cron"].partition(" ")
        if seconds != "0" or len(fields.split()) != 5:
            raise ApiError(400, "Schedule cron is not supported: six fields, the first of which is the second.")
        try:
            self._due[recurring["recurring_run_id"]] = next_time(fields, after)
        except ValueError as error:
            raise ApiError(400, str(error)) from None

    def _switch(self, name: str, mode: str, status: str) -> Resource:
        recurring = _find(self.recurring, name)
        recurring |= {"mode": mode, "status": status}
        self._plan(recurring, self.clock.now())
        return {}

    def _delete_recurring(self, request: Request, name: str) -> Resource:
        _find(self.recurring, name)
        del self.recurring[name]
        return {}

    def advance(self, time: dt.timedelta) -> None:
        """Advances the clock. Runs that become due are started one after the other, as if they took no time."""
        end = self.clock.now() + time
        while recurring := self._first_due(end):
            recurring_id = recurring["recurring_run_id"]
            self.clock.advance_to(self._due[recurring_id])
            now = self.clock.now()
            with self.lock:
                self._plan(recurring, now)
                copied = {key: recurring[key] for key in _COPIED if key in recurring}
                name = f"{recurring['display_name']}-{now:%Y%m%d%H%M%S}"
                self._start(json.loads(json.dumps(copied)) | {"display_name": name, "recurring_run_id": recurring_id})
            self.join()
        self.clock.advance_to(end)

    def _first_due(self, until: dt.datetime) -> Resource | None:
        enabled = [one for one in self.recurring.values() if one["status"] == "ENABLED"]
        first = min(enabled, key=lambda one: self._due[one["recurring_run_id"]], default=None)
        return first if first and self._due[first["recurring_run_id"]] <= until else None

    def join(self) -> None:
        """Waits until all runs have ended."""
        for thread in self._threads:
            thread.join()

    def _now(self) -> str:
        return self.clock.now().isoformat()


def _parse(kind: type, body: bytes) -> Resource:
    given = json.loads(body)
    unknown = set(given) - set(kind.attribute_map.values())
    if unknown:
        raise ApiError(400, f"unknown field: {', '.join(sorted(unknown))}")
    return given


def _find(resources: dict[str, Resource], name: str) -> Resource:
    if name not in resources:
        raise ApiError(404, f"ResourceNotFound: {name} not found.")
    return resources[name]


def _page(request: Request, resources: dict[str, Resource], key: str) -> Resource:
    """One page of a list, newest first, of the resources that match a filter of EQUALS predicates."""
    predicates = json.loads(request.args.get("filter") or "{}").get("predicates", [])
    kept = []
    for resource in reversed(resources.values()):
        if all(resource.get(predicate["key"]) == predicate["stringValue"] for predicate in predicates):
            kept.append(resource)
    start = int(request.args.get("page_token") or 0)
    end = start + int(request.args.get("page_size") or 10)
    page: Resource = {key: kept[start:end], "total_size": len(kept)}
    if end < len(kept):
        page["next_page_token"] = str(end)
    return page
