"""Schedules on Kubeflow say and do what its controller does."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.standin.service import Fault

pytestmark = pytest.mark.usefixtures("instant")
WEEK = dt.timedelta(weeks=1)


def _only(kubeflow):
    (recurring,) = kubeflow.recurring.values()
    return recurring


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def periodic(kubeflow, tiny_template):
    """The id of a recurring run as the UI makes it: with a period, that catches up."""
    from kfp import client

    service = client.Client(host=kubeflow.url)
    (experiment,) = kubeflow.experiments
    return service.create_recurring_run(
        experiment,
        "hourly",
        interval_second=3600,
        no_catchup=False,
        params={"folder": "gs://bucket/words"},
        pipeline_package_path=str(tiny_template),
    ).recurring_run_id


def test_what_becomes_of_late_runs_is_said_when_a_schedule_is_created_resumed_and_shown(create, call, kubeflow):
    late = "during a pause, are skipped, but for the latest: it starts afterwards."
    assert late in create().stdout
    call("schedule", "pause", "weekly")
    kubeflow.advance(3 * WEEK)
    assert not kubeflow.runs
    assert late in call("schedule", "resume", "weekly").stdout
    assert len(kubeflow.runs) == 1
    shown = call("schedule", "show", "weekly").stdout
    assert late in shown and "at most 1 at once\n" in shown


def test_with_queue_all_late_runs_start_and_a_pause_is_caught_up_only_with_the_option(create, call, kubeflow):
    assert "all start afterwards" in create("--queue", "true", "--max_concurrent_runs", "10").stdout
    call("schedule", "pause", "weekly")
    kubeflow.advance(3 * WEEK)
    refused = call("schedule", "resume", "weekly")
    assert refused.returncode == 2 and "starts every run that the pause skipped" in _words(refused.stderr)
    assert not kubeflow.runs
    assert call("schedule", "resume", "weekly", "--catch_up").returncode == 0
    assert len(kubeflow.runs) == 3


def test_a_schedule_without_queue_cannot_catch_up(create, call, kubeflow):
    create()
    call("schedule", "pause", "weekly")
    refused = call("schedule", "resume", "weekly", "--catch_up")
    assert refused.returncode == 2 and "--queue true, before the pause" in _words(refused.stderr)
    assert _only(kubeflow)["status"] == "DISABLED"


def test_a_periodic_recurring_run_is_shown_and_keeps_its_period_until_it_gets_a_cron(periodic, call, kubeflow):
    listed = call("schedule", "list").stdout.splitlines()[1]
    assert listed.split()[:5] == ["hourly", "ACTIVE", "@every", "3600s", "UTC"]
    assert "@every 3600s (UTC)" in call("schedule", "show", "hourly").stdout
    assert call("schedule", "update", "hourly", "--steps", "5").returncode == 0
    assert _only(kubeflow)["trigger"] == {"periodic_schedule": {"interval_second": 3600}}
    assert (_only(kubeflow)["no_catchup"], _only(kubeflow)["runtime_config"]["parameters"]["steps"]) == (False, 5)
    assert call("schedule", "update", "hourly", "--cron", "0 3 * * *", "--queue", "false").returncode == 0
    assert (_only(kubeflow)["trigger"], _only(kubeflow)["no_catchup"]) == (
        {"cron_schedule": {"cron": "0 0 3 * * *"}},
        True,
    )


@pytest.mark.parametrize(
    ("cron", "shown", "sent"),
    [
        ("0 0 3 * *", "0 3 * * *", "0 0 3 * * *"),
        ("0 30 2 ? * 1-5", "30 2 ? * 1-5", "0 30 2 ? * 1-5"),
        ("15 0 3 * * *", "15 0 3 * * *", "15 0 3 * * *"),
        ("@daily", "@daily", "@daily"),
    ],
)
def test_a_cron_expression_of_six_fields_is_shown_with_five_and_never_changed(cron, shown, sent):
    from kfp_server_api import V2beta1CronSchedule, V2beta1RecurringRun, V2beta1Trigger

    from pipelines.backends import kubeflow_messages

    message = V2beta1RecurringRun(trigger=V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=cron)))
    recurrence = kubeflow_messages.to_schedule(message, "").recurrence
    assert recurrence.cron == shown
    assert kubeflow_messages.trigger(recurrence)["cron_expression"] == sent


def test_a_paused_schedule_is_replaced_by_a_paused_one_and_a_failed_update_leaves_the_old_one_active(
    create, call, kubeflow
):
    create()
    before = _only(kubeflow)["recurring_run_id"]
    kubeflow.faults.append(Fault(400, path="/recurringruns$"))
    assert call("schedule", "update", "weekly", "--steps", "5").returncode == 2
    assert (_only(kubeflow)["recurring_run_id"], _only(kubeflow)["status"]) == (before, "ENABLED")
    refused = call("schedule", "update", "weekly", "--max_concurrent_runs", "11")
    assert refused.returncode == 2 and "1 to 10 on Kubeflow" in _words(refused.stderr)
    call("schedule", "pause", "weekly")
    kubeflow.advance(2 * WEEK)
    updated = call("schedule", "update", "weekly", "--steps", "5")
    assert "it is PAUSED" in updated.stdout
    assert not kubeflow.runs


def test_a_start_that_has_passed_is_not_sent_again(create, call, kubeflow):
    create()
    call("schedule", "pause", "weekly")
    _only(kubeflow)["trigger"]["cron_schedule"]["start_time"] = "2020-01-01T00:00:00+00:00"
    assert call("schedule", "update", "weekly", "--steps", "5").returncode == 0
    assert "start_time" not in _only(kubeflow)["trigger"]["cron_schedule"]
    assert call("schedule", "resume", "weekly").returncode == 0
    assert not kubeflow.runs


def test_a_schedule_past_its_end_is_completed_and_goes_on_with_another_end(create, call, kubeflow):
    create()
    _only(kubeflow)["trigger"]["cron_schedule"]["end_time"] = "2020-01-01T00:00:00+00:00"
    assert "weekly  COMPLETED" in call("schedule", "show", "weekly").stdout
    assert "it is ACTIVE" in call("schedule", "update", "weekly", "--end", "2090-01-01").stdout


def test_all_pages_are_read_and_of_schedules_with_one_name_the_id_is_asked_for(create, call, kubeflow):
    create()
    for number in range(205):
        kubeflow.recurring[f"copy-{number}"] = _copy(
            kubeflow, f"copy-{number}", "weekly" if number == 7 else f"s{number}"
        )
    listed = call("schedule", "list").stdout
    assert len(listed.splitlines()) == 207
    refused = call("schedule", "show", "weekly")
    assert refused.returncode == 2 and "copy-7" in _words(refused.stderr)
    identifier = next(iter(kubeflow.recurring))
    updated = call("schedule", "update", identifier, "--steps", "5")
    assert updated.returncode == 0, updated.stderr
    assert list(kubeflow.recurring.values())[-1]["display_name"] == "weekly"
    missing = call("schedule", "show", "2b3f8f6e-0a43-4e0f-9f0e-2a86c5c2b3aa")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


def _copy(kubeflow, name: str, display_name: str) -> dict:
    first = next(iter(kubeflow.recurring.values()))
    return first | {"recurring_run_id": name, "display_name": display_name, "status": "DISABLED"}


def test_the_runs_of_a_schedule_are_found_however_old_they_are(create, call, kubeflow):
    create()
    kubeflow.advance(WEEK)
    (run,) = kubeflow.runs.values()
    for number in range(250):
        kubeflow.runs[str(number)] = {
            **run,
            "run_id": str(number),
            "recurring_run_id": "",
            "display_name": f"r{number}",
        }
    listed = call("runs", "list", "--schedule", "weekly").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == [run["display_name"]]
    assert len(call("runs", "list", "--limit", "230").stdout.splitlines()) == 231


@pytest.mark.parametrize("broken", ["", "trigger"])
def test_a_recurring_run_that_the_service_cannot_read_is_listed(create, call, kubeflow, broken):
    create()
    (experiment,) = kubeflow.experiments
    kubeflow.recurring["x"] = {"recurring_run_id": "x", "experiment_id": experiment, "error": {"message": "unread"}}
    if broken:
        kubeflow.recurring["x"] |= {"trigger": {}, "display_name": "once"}
    listed = call("schedule", "list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["schedule", "once" if broken else "x", "weekly"]


@pytest.mark.parametrize("words", [("delete",), ("update", "--steps", "5")])
def test_before_2_16_a_schedule_with_an_active_run_is_neither_deleted_nor_replaced(words, create, call, kubeflow):
    create()
    kubeflow.advance(WEEK)
    (run,) = kubeflow.runs.values()
    run["state"], kubeflow.version = "RUNNING", "2.15.2"
    before = _only(kubeflow)["recurring_run_id"]
    refused = call("schedule", words[0], "weekly", *words[1:])
    assert refused.returncode == 2 and f"Received: {run['display_name']}." in _words(refused.stderr)
    assert _only(kubeflow)["recurring_run_id"] == before
    run["state"] = "SUCCEEDED"
    assert call("schedule", words[0], "weekly", *words[1:]).returncode == 0


def test_active_runs_outlive_their_schedule_and_a_deletion_whose_answer_is_lost_succeeds(create, call, kubeflow):
    create()
    kubeflow.advance(WEEK)
    (run,) = kubeflow.runs.values()
    run["state"] = "RUNNING"
    kubeflow.faults.append(Fault(503, path="/recurringruns/", method="DELETE", carried_out=True))
    deleted = call("schedule", "delete", "weekly")
    assert (deleted.returncode, kubeflow.recurring) == (0, {}), deleted.stderr


def test_a_schedule_that_cannot_be_deleted_is_not_doubled_by_an_update(create, call, kubeflow):
    create()
    before = _only(kubeflow)["recurring_run_id"]
    kubeflow.faults.append(Fault(400, path="/recurringruns/", method="DELETE"))
    assert call("schedule", "update", "weekly", "--steps", "5").returncode == 2
    assert (_only(kubeflow)["recurring_run_id"], _only(kubeflow)["status"]) == (before, "ENABLED")
