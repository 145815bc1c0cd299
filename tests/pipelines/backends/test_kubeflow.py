"""The same commands on Kubeflow Pipelines, over the real kfp.Client."""

from __future__ import annotations

import datetime as dt

from tests.standin.service import Fault

WEEK = dt.timedelta(weeks=1)
DEFAULTS = {"folder": "gs://bucket/words", "steps": 2, "rate": 0.5, "verbose": False}


def _states(run) -> dict[str, str]:
    return {
        one["display_name"]: one["state"] for one in run["run_details"]["task_details"] if one["display_name"] != "root"
    }


def test_a_run_is_followed_to_its_end_and_shown(submit, call, kubeflow):
    done = submit("--run_id", "first", "--steps", "3", "--wait")
    assert done.returncode == 0, done.stderr
    assert f"{kubeflow.url}/#/runs/details/" in done.stdout
    words = [line.split()[1:3] for line in done.stdout.splitlines() if line[2:3] == ":"]
    assert [name for name, state in words if state == "SUCCEEDED"] == ["scan", "build", "train"]
    shown = [line.split()[:2] for line in call("runs", "show", "first").stdout.splitlines()]
    assert ["first", "SUCCEEDED"] in shown and ["steps", "3"] in shown and ["train", "SUCCEEDED"] in shown
    assert "root" not in [line[0] for line in shown if line]


def test_a_failed_run_is_completed_by_a_rerun_from_the_cache(submit, call, kubeflow):
    kubeflow.runner.fail_once = ["train"]
    failed = submit("--run_id", "first", "--steps", "3", "--wait")
    assert failed.returncode == 1 and "train: This step is in Error state" in " ".join(failed.stderr.split())
    done = call("runs", "rerun", "first", "--run_id", "second", "--wait")
    assert done.returncode == 0, done.stderr
    run = next(run for run in kubeflow.runs.values() if run["display_name"] == "second")
    assert _states(run) == {"scan": "SUCCEEDED", "build": "SKIPPED", "train": "SUCCEEDED"}
    assert run["runtime_config"]["parameters"] == {**DEFAULTS, "steps": 3}


def test_one_run_id_is_one_run_also_when_the_answer_was_lost(submit, kubeflow):
    kubeflow.faults.append(Fault(503, path="/runs$", carried_out=True))
    done = submit("--run_id", "first")
    assert done.returncode == 0, done.stderr
    assert "Run first submitted" in done.stdout
    again = submit("--run_id", "first")
    assert again.returncode == 0 and "was submitted before" in again.stdout
    other = submit("--run_id", "first", "--steps", "7")
    assert other.returncode == 2 and "with other parameters" in other.stderr
    assert len(kubeflow.runs) == 1


def test_runs_are_listed_and_cancelled(submit, call, kubeflow):
    for name in ("first", "second"):
        submit("--run_id", name)
    listed = call("runs", "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["run", "second", "first"]
    assert call("runs", "cancel", "second").returncode == 0
    assert next(run for run in kubeflow.runs.values() if run["display_name"] == "second")["state"] == "CANCELED"
    missing = call("runs", "show", "third")
    assert missing.returncode == 2 and "third" in missing.stderr


def test_what_the_service_refuses_is_one_paragraph(submit, kubeflow):
    for code, message, exit_code in (
        (403, "does not let this account", 1),
        (429, "Too many requests", 1),
        (400, "refuses to submit", 2),
    ):
        kubeflow.faults.append(Fault(code, path="/runs$"))
        done = submit()
        assert done.returncode == exit_code
        assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert not kubeflow.runs


def test_options_of_vertex_are_refused_before_anything_is_sent(submit, create, kubeflow):
    for done, option in (
        (submit("--labels", "team=vision"), "--labels"),
        (submit("--failure_policy", "fast"), "--failure_policy"),
        (submit("--step", "3"), "--steps"),
        (create("--time_zone", "Europe/Berlin"), "--time_zone"),
    ):
        assert done.returncode == 2
        assert option in done.stderr
    assert not kubeflow.runs and not kubeflow.recurring


def test_a_schedule_starts_runs_and_is_replaced_when_it_is_updated(create, call, kubeflow):
    done = create("--steps", "1")
    assert done.returncode == 0, done.stderr
    assert create().returncode == 2  # the name is taken
    kubeflow.advance(2 * WEEK)
    assert [_states(run) for run in kubeflow.runs.values()] == [
        {"scan": "SUCCEEDED", "build": "SUCCEEDED", "train": "SUCCEEDED"},
        {"scan": "SUCCEEDED", "build": "SKIPPED", "train": "SKIPPED"},
    ]
    (before,) = kubeflow.recurring
    updated = call("schedule", "update", "weekly", "--steps", "4", "--cron", "0 5 * * 1")
    assert updated.returncode == 0, updated.stderr
    ((after, changed),) = kubeflow.recurring.items()
    assert after != before
    assert changed["runtime_config"]["parameters"] == {**DEFAULTS, "steps": 4}
    assert changed["trigger"]["cron_schedule"]["cron"] == "0 0 5 * * 1"
    assert call("schedule", "pause", "weekly").returncode == 0
    kubeflow.advance(WEEK)
    assert len(kubeflow.runs) == 2
    assert call("schedule", "resume", "weekly").returncode == 0
    kubeflow.join()
    assert len(kubeflow.runs) == 3  # the one that the pause skipped
    shown = call("schedule", "show", "weekly")
    assert "weekly  ACTIVE" in shown.stdout and shown.stdout.count("SUCCEEDED") == 1
    assert [line.split()[:2] for line in call("schedule", "list").stdout.splitlines()[1:]] == [["weekly", "ACTIVE"]]
    assert call("schedule", "delete", "weekly").returncode == 0
    assert not kubeflow.recurring


def test_a_lost_answer_makes_one_schedule(create, kubeflow):
    kubeflow.faults.append(Fault(503, path="/recurringruns$", carried_out=True))
    done = create()
    assert done.returncode == 0, done.stderr
    assert len(kubeflow.recurring) == 1


def test_without_a_host_it_is_that_of_kfps_own_variable(command, kubeflow, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow.url)
    assert command("runs", "list", "--backend", "kubeflow").returncode == 0
    assert kubeflow.requests
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    missing = command("runs", "list", "--backend", "kubeflow")
    assert missing.returncode == 2 and "--host is required" in missing.stderr
