"""The stand-in starts recurring runs when Kubeflow's controller would."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.kubeflow_recurring import RecurringRuns
from tests.standin.service import ApiError

DAY = dt.timedelta(days=1)
DAILY = {"cron_schedule": {"cron": "0 0 3 * * *"}}


class Controller:
    """Recurring runs whose runs are active until the test ends them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runs: dict[str, dict] = {}
        self.removed: list[tuple[str, bool]] = []
        self.recurring = RecurringRuns(
            self.clock,
            self.runs,
            self._start,
            lambda kind, body: json.loads(body),
            lambda *run: self.removed.append(run),
        )

    def _start(self, run: dict) -> None:
        run_id = str(len(self.runs))
        self.runs[run_id] = run | {"state": "RUNNING", "run_id": run_id}

    def create(self, trigger: dict, **changes: object) -> str:
        body = {"display_name": "daily", "mode": "ENABLE", "max_concurrency": 1, "no_catchup": True, "trigger": trigger}
        request = Request(EnvironBuilder(method="POST", data=json.dumps(body | changes)).get_environ())
        return self.recurring.create(request)["recurring_run_id"]

    def advance(self, time: dt.timedelta) -> int:
        """Advances the clock, and returns how many runs there are then."""
        end = self.clock.now() + time
        while (due := self.recurring.next_due()) and due <= end:
            self.clock.advance_to(due)
            self.recurring.start_due()
        self.clock.advance_to(end)
        return len(self.runs)

    def end_runs(self) -> int:
        for run in self.runs.values():
            run["state"] = "SUCCEEDED"
        self.recurring.start_due()
        return len(self.runs)


@pytest.mark.parametrize(("no_catchup", "waiting"), [(True, 1), (False, 4)])
def test_of_the_runs_that_meet_an_active_one_the_latest_waits_or_all(no_catchup, waiting):
    controller = Controller()
    controller.create(DAILY, no_catchup=no_catchup)
    assert controller.advance(5 * DAY) == 1
    started = [controller.end_runs() for _ in range(6)]
    assert started == [min(1 + n, 1 + waiting) for n in range(1, 7)]


@pytest.mark.parametrize(("no_catchup", "missed"), [(True, 1), (False, 3)])
def test_enabling_starts_the_latest_run_that_was_missed_or_all(no_catchup, missed):
    controller = Controller()
    name = controller.create(DAILY, no_catchup=no_catchup, max_concurrency=10)
    controller.recurring.switch(name, "DISABLE")
    assert controller.advance(3 * DAY) == 0
    controller.recurring.switch(name, "ENABLE")
    assert len(controller.runs) == missed


def test_enabling_starts_nothing_if_nothing_was_missed():
    controller = Controller()
    name = controller.create(DAILY, mode="DISABLE")
    controller.recurring.switch(name, "ENABLE")
    assert not controller.runs


@pytest.mark.parametrize(
    "trigger",
    [
        {"cron_schedule": {"cron": "0 0 3 * * *", "start_time": "2020-01-01T00:00:00+00:00"}},
        {"periodic_schedule": {"interval_second": "86400", "start_time": "2020-01-01T00:00:00+00:00"}},
    ],
)
def test_a_start_in_the_past_fires_at_once(trigger):
    controller = Controller()
    controller.create(trigger)
    assert len(controller.runs) == 1


def test_a_period_starts_with_the_creation_and_ends_with_the_end():
    controller = Controller()
    end = (controller.clock.now() + 3.5 * DAY).isoformat()
    controller.create({"periodic_schedule": {"interval_second": "86400", "end_time": end}}, max_concurrency=10)
    assert controller.advance(0.9 * DAY) == 0
    assert controller.advance(9 * DAY) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"max_concurrency": 11},
        {"max_concurrency": 0},
        {"trigger": {"cron_schedule": {"cron": "0 3 * *"}}},
        {"trigger": {"cron_schedule": {"cron": "0 0 3 * * 7"}}},
        {"trigger": {"periodic_schedule": {"interval_second": "0"}}},
    ],
)
def test_what_the_service_refuses(changes):
    with pytest.raises(ApiError) as refused:
        Controller().create(**{"trigger": DAILY, **changes})
    assert refused.value.code == 400


@pytest.mark.parametrize(("query", "orphan"), [("", False), ("propagation_policy=ORPHAN", True)])
def test_active_runs_are_removed_with_their_recurring_run_unless_they_are_orphaned(query, orphan):
    controller = Controller()
    name = controller.create(DAILY, max_concurrency=2)
    controller.advance(DAY)
    controller.end_runs()
    controller.advance(DAY)
    controller.recurring.delete(Request(EnvironBuilder(query_string=query).get_environ()), name)
    assert controller.removed == [("1", orphan)]
