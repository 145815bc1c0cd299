"""Vertex AI on 127.0.0.1: the REST methods that this project uses, with the SDK's own message types.

Served: pipelineJobs, schedules, models (versions, aliases, evaluations), endpoints, customJobs, and their operations.
Not served: gRPC, permissions, quotas (see `Service.faults` for their errors), predictions, metadata, experiments.
POST /standin/clock advances the clock by a JSON object such as {"weeks": 1}; POST /standin/fail_once adds to
`runner.fail_once`.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.runs import Runner
from tests.standin.service import Service
from tests.standin.vertex_custom_jobs import CustomJobs
from tests.standin.vertex_endpoints import Endpoints
from tests.standin.vertex_jobs import PipelineJobs
from tests.standin.vertex_models import Models
from tests.standin.vertex_operations import Operations
from tests.standin.vertex_schedules import Schedules


class Vertex(Service):
    """Pipeline jobs, schedules, models, endpoints and custom jobs of one project.

    Attributes:
        clock: of schedules and timestamps; advanced by `advance`.
        runner: executes the pipelines; their steps find this service by its environment.
        pipeline_jobs: with the accounts that they may run as.
        jobs: pipeline jobs, by id.
        schedules: by id.
        models: the Model Registry.
        endpoints: with the models deployed to them.
        custom_jobs: with a process for each replica.
    """

    def __init__(self, folder: Path, storage_url: str = "", port: int = 0) -> None:
        self.clock, self.runner = Clock(), Runner(folder, storage_url)
        lock = threading.RLock()
        operations = Operations(lock)
        self.pipeline_jobs = PipelineJobs(self.clock, self.runner, operations, lock)
        self._schedules = Schedules(self.clock, self.pipeline_jobs, operations, lock)
        self.models = Models(self.clock, operations, storage_url)
        self.endpoints = Endpoints(self.clock, operations, self.models)
        self.custom_jobs = CustomJobs(self.clock, operations, self.runner, lock)
        self._parts = (self.pipeline_jobs, self._schedules, self.models, self.endpoints, self.custom_jobs, operations)
        self.jobs, self.schedules = self.pipeline_jobs.all, self._schedules.all
        super().__init__(port)
        self.lock = lock
        self.runner.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"] = f"{self.url}/"

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            *(route for part in self._parts for route in part.routes()),
            ("POST", "/standin/clock", self._advance_clock),
            ("POST", "/standin/fail_once", self._fail_once),
        ]

    def stop(self) -> None:
        """Kills the processes of all jobs, and stops serving."""
        self.custom_jobs.stop()
        self.runner.stop()
        super().stop()

    @property
    def updates_requests(self) -> bool:
        """Whether create_pipeline_job_request of a schedule can be updated."""
        return self._schedules.updates_requests

    @updates_requests.setter
    def updates_requests(self, updates: bool) -> None:
        self._schedules.updates_requests = updates

    def advance(self, time: dt.timedelta) -> None:
        """Advances the clock. Runs that become due are started one after the other, as if they took no time."""
        self._schedules.advance(time)

    def fire_due(self) -> None:
        """Starts the runs that are due now."""
        self._schedules.fire_due()

    def join(self) -> None:
        """Waits until all runs have ended."""
        self.pipeline_jobs.join()

    def _advance_clock(self, request: Request) -> dict[str, Any]:
        threading.Thread(
            target=self.advance, args=[dt.timedelta(**json.loads(request.get_data()))], daemon=True
        ).start()
        return {}

    def _fail_once(self, request: Request) -> dict[str, Any]:
        self.runner.fail_once += json.loads(request.get_data())
        return {}
