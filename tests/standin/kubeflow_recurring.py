"""Recurring runs of the Kubeflow stand-in, as the controller of scheduled workflows starts them.

Rules: backend/src/crd/controller/scheduledworkflow/util of kubeflow/pipelines. A run that is due is not started while
as many as `max_concurrency` are active, nor while its recurring run is disabled. When it can be started, so it is at
once: the latest that was missed, or with catch-up all, one after the other. Its runs are its dependents, which
Kubernetes removes with it unless they are orphaned (`SetOwnerReferences` and `DeleteJob` of the API server).
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable
from typing import Any

import kfp_server_api
from werkzeug.wrappers import Request

from tests.standin.clock import Clock, next_time
from tests.standin.service import ApiError

# Fields of a recurring run that its runs have too.
_COPIED = ("experiment_id", "pipeline_spec", "pipeline_version_reference", "runtime_config", "service_account")

Resource = dict[str, Any]


class RecurringRuns:
    """Recurring runs.

    Attributes:
        all: by id.
    """

    def __init__(
        self,
        clock: Clock,
        runs: dict[str, Resource],
        start: Callable[[Resource], Any],
        parse: Callable[[type, bytes], Resource],
        remove: Callable[[str, bool], None],
    ) -> None:
        self.all: dict[str, Resource] = {}
        self._last: dict[str, dt.datetime] = {}  # when the latest run of each was due
        self._clock, self._runs, self._start, self._parse, self._remove = clock, runs, start, parse, remove

    def find(self, name: str) -> Resource:
        """The recurring run with this id."""
        if name not in self.all:
            raise ApiError(404, f"ResourceNotFound: RecurringRun {name} not found.")
        return self.all[name]

    def create(self, request: Request) -> Resource:
        """Handles POST /recurringruns."""
        recurring = self._parse(kfp_server_api.V2beta1RecurringRun, request.data)
        if not 1 <= int(recurring.get("max_concurrency", 0)) <= 10:
            raise ApiError(400, "Max concurrency of a recurring run must be at least 1 and at most 10.")
        trigger = recurring.get("trigger", {})
        if cron := trigger.get("cron_schedule", {}).get("cron"):
            _five_fields(cron)
        elif int(trigger.get("periodic_schedule", {}).get("interval_second", 1)) < 1:
            raise ApiError(400, "Found invalid period schedule interval. Set at interval to least 1 second")
        recurring_id = str(uuid.uuid4())
        recurring |= {
            "recurring_run_id": recurring_id,
            "created_at": self._clock.now().isoformat(),
            "max_concurrency": str(recurring["max_concurrency"]),  # 64-bit integers are strings in its JSON
            "no_catchup": recurring.get("no_catchup", False),
            "status": "ENABLED" if recurring["mode"] == "ENABLE" else "DISABLED",
        }
        self.all[recurring_id] = recurring
        self.start_due()
        return recurring

    def switch(self, name: str, mode: str) -> Resource:
        """Handles POST /recurringruns/NAME:enable and :disable; `mode` is ENABLE or DISABLE."""
        self.find(name).update({"mode": mode, "status": f"{mode}D"})
        self.start_due()
        return {}

    def delete(self, request: Request, name: str) -> Resource:
        """Handles DELETE /recurringruns/NAME."""
        self.find(name)
        del self.all[name]
        orphan = request.args.get("propagation_policy") == "ORPHAN"
        for run in self._runs.values():
            if run.get("recurring_run_id") == name and run["state"] == "RUNNING":
                self._remove(run["run_id"], orphan)
        return {}

    def next_due(self) -> dt.datetime | None:
        """When the next run is due that can be started; None for never."""
        return min(filter(None, (self._due(one) for one in self.all.values() if self._may_start(one))), default=None)

    def start_due(self) -> None:
        """Starts the runs that are due."""
        for recurring in self.all.values():
            while self._may_start(recurring) and (due := self._due(recurring)) and due <= self._clock.now():
                self._last[recurring["recurring_run_id"]] = due
                copied = {key: recurring[key] for key in _COPIED if key in recurring}
                run = json.loads(json.dumps(copied)) | {
                    "display_name": f"{recurring['display_name']}-{due:%Y%m%d%H%M%S}",
                    "recurring_run_id": recurring["recurring_run_id"],
                }
                self._start(run)

    def _may_start(self, recurring: Resource) -> bool:
        runs = [run for run in self._runs.values() if run.get("recurring_run_id") == recurring["recurring_run_id"]]
        active = sum(run["state"] in ("PENDING", "RUNNING", "CANCELING") for run in runs)
        return recurring["status"] == "ENABLED" and active < int(recurring["max_concurrency"])

    def _due(self, recurring: Resource) -> dt.datetime | None:
        """When its next run is due, which may be past; None for never. `getNextScheduledEpoch` in its sources."""
        trigger = recurring["trigger"]
        timing = trigger.get("cron_schedule") or trigger["periodic_schedule"]
        start, end = (_time(timing.get(name)) for name in ("start_time", "end_time"))
        last = self._last.get(recurring["recurring_run_id"])
        since = last or start or dt.datetime.fromisoformat(recurring["created_at"])
        now = self._clock.now()
        if "cron" in timing:
            fields = _five_fields(timing["cron"])
            due = next_time(fields, max(since, start or since))
            while recurring["no_catchup"] and (following := next_time(fields, due)) <= min(now, end or now):
                due = following
        else:
            interval = dt.timedelta(seconds=int(timing["interval_second"]))
            due = start if start and start > since else since + interval
            due = now if recurring["no_catchup"] and now >= due + interval else due
        return None if end and end < due else due


def _five_fields(cron: str) -> str:
    """A cron expression without its first field, the second; the last field may be missing."""
    fields = cron.replace("?", "*").split()
    if len(fields) not in (5, 6):
        raise ApiError(400, f"Schedule cron is not a supported format. Expected 5 to 6 fields, found {len(fields)}")
    fields += ["*"] if len(fields) == 5 else []
    if "7" in fields[5]:
        raise ApiError(400, "Schedule cron is not a supported format. End of range (7) above maximum (6)")
    if fields[0] != "0":
        raise ApiError(501, "The stand-in has no seconds.")
    try:
        next_time(" ".join(fields[1:]), dt.datetime.now(dt.UTC))
    except ValueError as error:
        raise ApiError(400, f"Schedule cron is not a supported format. {error}") from None
    return " ".join(fields[1:])


def _time(text: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if text else None
