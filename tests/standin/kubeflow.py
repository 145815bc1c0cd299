"""Kubeflow Pipelines on 127.0.0.1: the methods of its v2beta1 API that kfp.Client calls.

Served: runs and recurring runs of experiments, uploaded pipelines and their versions, with filters and pages. Not
served: several users and namespaces, artifacts, archiving, the UI.
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
from tests.standin.clock import Clock
from tests.standin.kubeflow_recurring import RecurringRuns
from tests.standin.kubeflow_versions import PipelineVersions
from tests.standin.runs import UNKNOWN, Event, Runner, leaf_tasks
from tests.standin.service import ApiError, Service

_API = "/apis/v2beta1"
_DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
_GRACE_SECS = 2.0  # KFP's launcher ends at SIGTERM, and Argo the container about a second later
# Vertex AI's own placeholders, which reach the steps as they are.
_UNKNOWN = (
    "pipeline_google_cloud_project_id",
    "pipeline_google_cloud_location",
    "pipeline_service_account",
    "pipeline_network",
    "pipeline_encryption_key_name",
)
_NO_TIME = "0001-01-01T00:00:00Z"  # of what has not happened
# The fields of each list that a filter may name.
_FILTERED = {
    "runs": {"run_id", "display_name", "experiment_id", "recurring_run_id", "state"},
    "recurringRuns": {"recurring_run_id", "display_name"},
    "experiments": {"experiment_id", "display_name"},
    "pipeline_versions": {"pipeline_version_id", "display_name"},
}

Resource = dict[str, Any]


class Kubeflow(Service):
    """Runs, recurring runs and uploaded pipelines.

    Attributes:
        clock: of recurring runs and timestamps; advanced by `advance`.
        runner: executes the pipelines.
        version: of Kubeflow Pipelines.
        experiments, runs: by id.
        recurring: recurring runs, by id.
        uploaded: versions of pipelines.
    """

    def __init__(self, folder: Path, storage_url: str = "", port: int = 0) -> None:
        self.clock, self.runner = Clock(), Runner(folder, storage_url)
        self.version = "2.17.0"
        self.experiments: dict[str, Resource] = {}
        self.add_experiment("Default")
        self.runs: dict[str, Resource] = {}
        self.uploaded = PipelineVersions(self._now, _page)
        self._recurring = RecurringRuns(self.clock, self.runs, self._start, _parse, self._remove_workflow)
        self.recurring = self._recurring.all
        self._threads: list[threading.Thread] = []
        self._removed: set[str] = set()  # runs whose workflows nothing reports of any more
        super().__init__(port)

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", f"{_API}/healthz", lambda request: {"multi_user": False, "tag_name": self.version}),
            ("GET", f"{_API}/experiments", lambda request: _page(request, self.experiments, "experiments")),
            ("GET", f"{_API}/experiments/<name>", lambda request, name: _find(self.experiments, name)),
            ("POST", f"{_API}/runs", self._create_run),
            ("GET", f"{_API}/runs", lambda request: _page(request, self.runs, "runs")),
            ("GET", f"{_API}/runs/<name>", lambda request, name: _find(self.runs, name)),
            ("POST", f"{_API}/runs/<name>:terminate", self._terminate),
            ("POST", f"{_API}/recurringruns", self._recurring.create),
            ("GET", f"{_API}/recurringruns", lambda request: _page(request, self.recurring, "recurringRuns")),
            ("GET", f"{_API}/recurringruns/<name>", lambda request, name: self._recurring.find(name)),
            (
                "POST",
                f"{_API}/recurringruns/<name>:enable",
                lambda request, name: self._recurring.switch(name, "ENABLE"),
            ),
            (
                "POST",
                f"{_API}/recurringruns/<name>:disable",
                lambda request, name: self._recurring.switch(name, "DISABLE"),
            ),
            ("DELETE", f"{_API}/recurringruns/<name>", self._recurring.delete),
            *self.uploaded.routes(_API),
        ]

    def add_experiment(self, name: str) -> str:
        """Creates an experiment, and returns its id."""
        experiment_id = str(uuid.uuid4())
        self.experiments[experiment_id] = {
            "experiment_id": experiment_id,
            "display_name": name,
            "created_at": self._now(),
        }
        return experiment_id

    def stop(self) -> None:
        """Kills the processes of all runs, and stops serving."""
        self.runner.stop()
        super().stop()

    def error(self, code: int, message: str, detail: str = "") -> Response:
        """An error in the format of Kubeflow's API."""
        return Response(
            json.dumps({"error": message, "code": code, "message": message}), status=code, mimetype="application/json"
        )

    def _create_run(self, request: Request) -> Resource:
        return self._start(_parse(kfp_server_api.V2beta1Run, request.data))

    def _start(self, run: Resource) -> Resource:
        """Starts a run; one of a version that was uploaded is answered with a reference to it, without its spec."""
        if reference := run.get("pipeline_version_reference"):
            given = self.uploaded.find(reference)["pipeline_spec"]
        else:
            given = run["pipeline_spec"]
        spec = kubernetes.pipeline_of(given)
        if self.version[:1].isdigit():
            kubernetes.check_version(spec, self.version)
        self.runner.fail_once += kubernetes.tasks_without_a_pod(spec)
        config = run.get("runtime_config", {})
        parameters = _parameters(spec, config.get("parameters", {}))
        run_id = str(uuid.uuid4())
        run |= {
            "run_id": run_id,
            "created_at": self._now(),
            "finished_at": _NO_TIME,
            "state": "RUNNING",
            "run_details": {
                "task_details": [
                    {
                        "task_id": str(uuid.uuid4()),
                        "display_name": name,
                        "create_time": self._now(),
                        "start_time": _NO_TIME,
                        "end_time": _NO_TIME,
                        "state": "PENDING",
                    }
                    for name in ["root", *leaf_tasks(spec)]
                ]
            },
        }
        self.runs[run_id] = run
        root = config.get("pipeline_root") or _DEFAULT_ROOT
        # Of scheduled runs the service fills in no name. {{$.pipeline_root}} reaches the steps as it is.
        placeholders = {
            "pipeline_job_name": "" if run.get("recurring_run_id") else run["display_name"],
            "pipeline_job_resource_name": f"{spec['pipelineInfo']['name']}-{run_id[:5]}",
            "pipeline_job_uuid": run_id,
            **dict.fromkeys(_UNKNOWN, UNKNOWN),
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
                run_folder=f"{root}/{spec['pipelineInfo']['name']}/{run_id}",
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
            for detail in run["run_details"]["task_details"]:
                if detail["state"] == "PENDING":  # Argo omits what is never reached, for which there is no state
                    detail["state"] = "RUNTIME_STATE_UNSPECIFIED"
            if run["state"] == "RUNNING" and run["run_id"] not in self._removed:
                run |= {"state": "SUCCEEDED" if succeeded else "FAILED", "finished_at": self._now()}

    def _terminate(self, request: Request, name: str) -> Resource:
        run = _find(self.runs, name)
        if run["state"] != "RUNNING":
            raise ApiError(400, "The run has ended.")
        run |= {"state": "CANCELED", "finished_at": self._now()}
        self.runner.terminate(name, _GRACE_SECS)
        return {}

    def _remove_workflow(self, run_id: str, orphan: bool) -> None:
        """Ends a run whose recurring run was deleted; its state stays what it was. 2.16 and newer can orphan it."""
        release = self.version.removeprefix("v").split(".")[:2]
        if not orphan or [int(number) for number in release] < [2, 16]:
            self._removed.add(run_id)
            self.runner.cancel(run_id)

    def advance(self, time: dt.timedelta = dt.timedelta()) -> None:
        """Advances the clock. Runs that become due are started one after the other, as if they took no time."""
        end = self.clock.now() + time
        while (due := self._recurring.next_due()) and due <= end:
            self.clock.advance_to(due)
            with self.lock:
                self._recurring.start_due()
            self.join()
        self.clock.advance_to(end)

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


def _parameters(spec: Resource, given: Resource) -> Resource:
    """The parameters of a run: those given, and the defaults of the others."""
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    if unknown := set(given) - set(declared):
        raise ApiError(400, f"Unrecognized input parameter: {', '.join(sorted(unknown))}.")
    for name, one in declared.items():
        if name not in given and "defaultValue" not in one and not one.get("isOptional"):
            raise ApiError(400, f"parameter {name} is not optional, yet has neither default nor user provided value")
    return {name: one["defaultValue"] for name, one in declared.items() if "defaultValue" in one} | given


def _page(request: Request, resources: dict[str, Resource], key: str) -> Resource:
    """One page of a list, of 20 items unless asked for others, at most 200.

    Oldest first, unless they are sorted by `created_at desc`; of one experiment if one is given; those that match a
    filter of EQUALS predicates.
    """
    wanted = {
        one["key"]: one["stringValue"] for one in json.loads(request.args.get("filter") or "{}").get("predicates", [])
    }
    if unknown := wanted.keys() - _FILTERED[key]:
        raise ApiError(400, f"no support for filtering on unrecognized field {', '.join(unknown)}")
    if experiment := request.args.get("experiment_id"):
        wanted["experiment_id"] = experiment
    kept = [one for one in resources.values() if all(one.get(name) == value for name, value in wanted.items())]
    if request.args.get("sort_by") == "created_at desc":
        kept.reverse()
    start = int(request.args.get("page_token") or 0)
    end = start + min(int(request.args.get("page_size") or 0) or 20, 200)
    page: Resource = {key: kept[start:end], "total_size": len(kept)}
    if end < len(kept):
        page["next_page_token"] = str(end)
    return page
