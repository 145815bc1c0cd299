"""Dataflow on 127.0.0.1: jobs are created, listed, shown, cancelled, and tell messages.

A job waits until `finish` is called for it, or until its pipeline was executed here, see `dataflow_pipeline`. Of
pipelines, options and images only what is checked below matters. Not served: metrics, snapshots, draining, templates.

Its address names localhost, which Beam wants literally.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request

from tests.standin.access import Access
from tests.standin.runs import REPOSITORY, kill_group
from tests.standin.service import ApiError, Service

ACTIVE = {"JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_CANCELLING"}
_ENDED = {"DONE", "FAILED", "CANCELLED"}
_JOBS = "/v1b3/projects/<project>/locations/<location>/jobs"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?")
_LABEL_KEY, _LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
_FILTERS = ("UNKNOWN", "ALL", "TERMINATED", "ACTIVE")
_IMPORTANCE = [f"JOB_MESSAGE_{name}" for name in ("DEBUG", "DETAILED", "BASIC", "WARNING", "ERROR")]
_PAGE = 2  # jobs or messages in a response
_SUMMARY = ("id", "name", "projectId", "location", "type", "currentState", "createTime")
_BATCH = ("JOB_TYPE_BATCH", 1)

Job = dict[str, Any]


class Dataflow(Service):
    """The jobs of one project.

    Attributes:
        jobs: by id, in the order of their creation, as they were sent and with what the service adds.
        executes: whether pipelines are executed, by Beam's runner for one process.
        cancel_secs: from the request to cancel a job until it has ended.
        messages: of each job.
    """

    def __init__(self, folder: Path, storage_url: str = "", *, executes: bool = False) -> None:
        """Args:
        folder: for the logs of pipelines that are executed.
        storage_url: of the storage emulator, which has what a job names on gs://.
        """
        self.jobs: dict[str, Job] = {}
        self.messages: dict[str, list[Job]] = {}
        self.executes, self.cancel_secs = executes, 0.2
        self._folder, self._storage_url = folder, storage_url
        self._processes: dict[str, subprocess.Popen] = {}
        super().__init__()
        self._access = Access(self._server.server_port, "localhost")

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("POST", _JOBS, self._create),
            ("GET", _JOBS, self._list),
            ("GET", f"{_JOBS}/<job_id>", self._get),
            ("PUT", f"{_JOBS}/<job_id>", self._update),
            ("GET", f"{_JOBS}/<job_id>/messages", self._list_messages),
        ]

    def stop(self) -> None:
        """Kills the pipelines that are executed, and stops serving."""
        for process in self._processes.values():
            kill_group(process)
        super().stop()

    def states(self) -> list[str]:
        """The states of all jobs, as RUNNING."""
        with self.lock:
            return [job["currentState"].removeprefix("JOB_STATE_") for job in self.jobs.values()]

    def say(self, job_id: str, text: str, importance: str = "BASIC") -> None:
        """Adds a message to those of a job."""
        with self.lock:
            self.messages[job_id].append(
                {  # without an id: that field is deprecated
                    "time": _now(),
                    "messageText": text,
                    "messageImportance": f"JOB_MESSAGE_{importance}",
                }
            )

    def finish(self, job_id: str, state: str, *errors: str) -> None:
        """Ends a job that has not ended: DONE, FAILED or CANCELLED."""
        with self.lock:
            if self.jobs[job_id]["currentState"] in ACTIVE:
                assert state in _ENDED
                for error in errors:
                    self.say(job_id, error, "ERROR")
                self.jobs[job_id]["currentState"] = f"JOB_STATE_{state}"

    def _create(self, request: Request, project: str, location: str) -> Job:
        job = json.loads(request.data)
        _check(job)
        for other in self.jobs.values():
            if other["name"] == job["name"] and other["currentState"] in ACTIVE:
                if other["clientRequestId"] == job["clientRequestId"]:
                    return other
                raise ApiError(
                    409,
                    f"The workflow could not be created. Causes: There is already an active job named {job['name']}. "
                    "If you want to submit a second job, try again by setting a different name.",
                )
        job_id = f"2026-11-29_08_00_00-{len(self.jobs)}"
        added = {"id": job_id, "projectId": project, "location": location, "createTime": _now()}
        self.jobs[job_id] = job | added | {"currentState": "JOB_STATE_PENDING"}
        self.messages[job_id] = []
        answer = dict(self.jobs[job_id])
        self.jobs[job_id]["currentState"] = "JOB_STATE_RUNNING"
        self.say(job_id, "Worker configuration: n1-standard-1 in europe-west4-b.")
        if self.executes:
            threading.Thread(target=self._execute, args=[job_id], daemon=True).start()
        return answer

    def _execute(self, job_id: str) -> None:
        """Executes a job's pipeline, in a process."""
        url = self.jobs[job_id]["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        log_path = self._folder / f"{job_id}.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.standin.dataflow_pipeline", url],
                cwd=REPOSITORY,
                env={**_environment(), "STORAGE_EMULATOR_HOST": self._storage_url},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[job_id] = process
        if process.wait() == 0:
            self.finish(job_id, "DONE")
        else:
            self.finish(job_id, "FAILED", log_path.read_text()[-2000:])

    def _list(self, request: Request, project: str, location: str) -> Job:
        kind = request.args.get("filter", "UNKNOWN")
        if kind not in _FILTERS:
            raise ApiError(400, f"Invalid value at 'filter': {kind}")
        listed = [job for job in self.jobs.values() if request.args.get("name") in (None, job["name"])]
        if kind in ("ACTIVE", "TERMINATED"):
            listed = [job for job in listed if (job["currentState"] in ACTIVE) == (kind == "ACTIVE")]
        summaries = [{name: job[name] for name in _SUMMARY if name in job} for job in listed]
        return _page(request, "jobs", summaries)

    def _get(self, request: Request, project: str, location: str, job_id: str) -> Job:
        return self._find(project, location, job_id)

    def _update(self, request: Request, project: str, location: str, job_id: str) -> Job:
        job = self._find(project, location, job_id)
        wanted = json.loads(request.data)
        if wanted != {"requestedState": "JOB_STATE_CANCELLED"}:
            raise ApiError(400, f"The request to update the job is invalid: {wanted}")
        if job["currentState"] not in ACTIVE:
            raise ApiError(400, f"({job_id}): Cannot cancel a job in the terminal state {job['currentState']}.")
        job["currentState"] = "JOB_STATE_CANCELLING"
        threading.Thread(target=self._finish_cancelling, args=[job_id], daemon=True).start()
        return job

    def _finish_cancelling(self, job_id: str) -> None:
        time.sleep(self.cancel_secs)
        self.finish(job_id, "CANCELLED")
        if job_id in self._processes:
            kill_group(self._processes[job_id])

    def _list_messages(self, request: Request, project: str, location: str, job_id: str) -> Job:
        self._find(project, location, job_id)
        least = _IMPORTANCE.index(request.args.get("minimumImportance", _IMPORTANCE[0]))
        found = [one for one in self.messages[job_id] if _IMPORTANCE.index(one["messageImportance"]) >= least]
        found = [one for one in found if one["time"] >= request.args.get("startTime", "")]
        return _page(request, "jobMessages", found)

    def _find(self, project: str, location: str, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None or (job["projectId"], job["location"]) != (project, location):
            raise ApiError(404, f"({job_id}): Information about job {job_id} could not be found in our system.")
        return job


def _check(job: Mapping[str, Any]) -> None:
    """Checks a job as the service does.

    Raises:
        ApiError: a field is missing or invalid.
    """
    environment = job.get("environment", {})
    options = environment.get("sdkPipelineOptions", {}).get("options", {})
    if not _NAME.fullmatch(job.get("name", "")):
        raise ApiError(400, f"Invalid name of a job: {job.get('name')}.")
    if job.get("type") not in _BATCH or not job.get("clientRequestId"):
        raise ApiError(400, "A job needs a type and a clientRequestId.")
    if not environment.get("tempStoragePrefix", "").startswith("storage.googleapis.com/"):
        raise ApiError(400, "The tempStoragePrefix has to be on Cloud Storage.")
    if not str(options.get("pipelineUrl", "")).startswith("gs://"):
        raise ApiError(400, "The pipeline has to be staged on Cloud Storage.")
    pools = environment.get("workerPools", [])
    if len(pools) != 1 or not pools[0].get("workerHarnessContainerImage"):
        raise ApiError(400, "A job needs a worker pool with an image.")
    if "@" not in environment.get("serviceAccountEmail", "@"):
        raise ApiError(400, "serviceAccountEmail has to be an e-mail address.")
    for key, value in job.get("labels", {}).items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(value):
            raise ApiError(400, f"Invalid label {key}={value}.")


def _page(request: Request, field: str, listed: list[Job]) -> Job:
    """A page of a list; an empty list is left out, as the service does."""
    start = int(request.args.get("pageToken", 0))
    answer: Job = {field: listed[start : start + _PAGE]} if listed[start:] else {}
    return answer | ({"nextPageToken": str(start + _PAGE)} if listed[start + _PAGE :] else {})


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
