from __future__ import annotations

import datetime as dt

import pytest

from tests.standin.service import Fault

WEEK = dt.timedelta(weeks=1)


@pytest.fixture
def create(pipelines, tiny_template):
    """Creates the schedule `weekly`, Mondays at 3 in Berlin; further words are added."""

    def call(*words: str):
        command = ["schedule", "create", "weekly", "--cron", "0 3 * * 1", "--time_zone", "Europe/Berlin"]
        root = ["--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
        return pipelines(*command, "--template", str(tiny_template), *root, *words)

    return call


def _only(vertex):
    (schedule,) = vertex.schedules.values()
    return schedule


def _times(vertex) -> list[dt.datetime]:
    return [job.create_time for job in vertex.jobs.values()]


def test_a_schedule_starts_a_run_each_week_and_new_data_is_seen(create, pipelines, vertex, storage_url):
    from tests.standin import bucket as standin

    done = create("--steps", "1")
    assert done.returncode == 0, done.stderr
    assert "first run is at" in done.stdout and "03:00 CE" in done.stdout
    vertex.advance(2 * WEEK)
    bucket = standin.client(storage_url).bucket("bucket")
    bucket.blob("words/two.txt").upload_from_string("b")
    try:
        vertex.advance(WEEK)
    finally:
        bucket.blob("words/two.txt").delete()
    states = [[task.state.name for task in job.job_detail.task_details] for job in vertex.jobs.values()]
    assert states == [["SUCCEEDED"] * 3, ["SUCCEEDED", "SKIPPED", "SKIPPED"], ["SUCCEEDED"] * 3]
    listed = pipelines("runs", "list", "--schedule", "weekly")
    assert listed.stdout.count("SUCCEEDED") == 3
    shown = pipelines("schedule", "show", "weekly").stdout
    assert "0 3 * * 1 (Europe/Berlin)" in shown and "steps" in shown and shown.count("SUCCEEDED") == 3


def test_the_hour_is_that_of_the_time_zone_in_summer_and_in_winter(create, vertex):
    import zoneinfo

    assert create("--cron", "30 3 1 1,7 *").returncode == 0
    vertex.advance(53 * WEEK)
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    assert {time.astimezone(zone).strftime("%d.%m. %H:%M") for time in _times(vertex)} == {
        "01.01. 03:30",
        "01.07. 03:30",
    }


def test_no_run_starts_before_the_start_or_after_the_end(create, vertex):
    now = vertex.clock.now()
    start, end = (now + 2 * WEEK).isoformat(), (now + 4 * WEEK).isoformat()
    assert create("--start", start, "--end", end).returncode == 0
    vertex.advance(8 * WEEK)
    assert len(vertex.jobs) == 2
    assert _only(vertex).state.name == "COMPLETED"


def test_a_paused_schedule_starts_nothing_and_catches_up_only_with_the_option(create, pipelines, vertex):
    assert create().returncode == 0
    assert pipelines("schedule", "pause", "weekly").returncode == 0
    vertex.advance(2 * WEEK)
    assert not vertex.jobs
    assert pipelines("schedule", "resume", "weekly").returncode == 0
    vertex.advance(WEEK)
    assert len(vertex.jobs) == 1
    pipelines("schedule", "pause", "weekly")
    vertex.advance(2 * WEEK)
    assert pipelines("schedule", "resume", "weekly", "--catch_up").returncode == 0
    vertex.advance(dt.timedelta())
    assert len(vertex.jobs) == 3


def test_flags_are_changed_in_place(create, pipelines, vertex):
    assert create("--steps", "1").returncode == 0
    before = _only(vertex).name
    done = pipelines("schedule", "update", "weekly", "--steps", "4", "--cron", "0 5 * * 1")
    assert done.returncode == 0, done.stderr
    changed = _only(vertex)
    assert changed.name == before
    assert changed.cron == "CRON_TZ=Europe/Berlin 0 5 * * 1"
    parameters = dict(changed.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values)
    assert parameters == {"folder": "gs://bucket/words", "steps": 4}
    vertex.advance(WEEK)
    (job,) = vertex.jobs.values()
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"


@pytest.mark.parametrize("paused", [False, True])
def test_where_the_service_refuses_to_change_flags_the_schedule_is_replaced(create, pipelines, vertex, paused):
    vertex.updates_requests = False
    assert create("--steps", "1").returncode == 0
    before = _only(vertex).name
    if paused:
        pipelines("schedule", "pause", "weekly")
    done = pipelines("schedule", "update", "weekly", "--steps", "4")
    assert done.returncode == 0, done.stderr
    changed = _only(vertex)
    assert changed.name != before and changed.display_name == "weekly"
    assert changed.state.name == ("PAUSED" if paused else "ACTIVE")
    assert changed.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values["steps"] == 4
    verbs = [
        request.rpartition("/")[2]
        for request in vertex.requests
        if not request.startswith("GET") and "/schedules" in request
    ]
    old = before.rpartition("/")[2]
    assert verbs.index(f"{old}:pause") < verbs.index("schedules", 1) < len(verbs) - 1 - verbs[::-1].index(old)


def test_an_update_that_fails_half_way_leaves_the_old_schedule_at_work(create, pipelines, vertex):
    vertex.updates_requests = False
    assert create("--steps", "1").returncode == 0
    vertex.faults.append(Fault(403, path="schedules$"))
    assert pipelines("schedule", "update", "weekly", "--steps", "4").returncode == 1
    assert _only(vertex).state.name == "ACTIVE"


def test_a_lost_answer_makes_one_schedule(create, vertex):
    vertex.faults.append(Fault(503, path="schedules$", carried_out=True))
    done = create()
    assert done.returncode == 0, done.stderr
    assert len(vertex.schedules) == 1


def test_a_name_is_taken_once_and_free_again_after_delete(create, pipelines, vertex):
    assert create().returncode == 0
    taken = create()
    assert taken.returncode == 2 and "schedule update" in taken.stderr
    assert [line.split()[:2] for line in pipelines("schedule", "list").stdout.splitlines()[1:]] == [
        ["weekly", "ACTIVE"]
    ]
    assert pipelines("schedule", "delete", "weekly").returncode == 0
    assert not vertex.schedules
    gone = pipelines("schedule", "show", "weekly")
    assert gone.returncode == 2 and "Schedule not found" in gone.stderr


def test_wrong_options_are_named_before_anything_is_sent(create, vertex):
    for words, message in (
        (["--time_zone", "Europe/Berln"], "--time_zone"),
        (["--cron", "0 3 * *"], "--cron"),
        (["--start", "tomorrow"], "--start"),
        (["--max_concurrent_runs", "0"], "--max_concurrent_runs"),
        (["--step", "1"], "Did you mean --steps?"),
    ):
        done = create(*words)
        assert done.returncode == 2
        assert message in done.stderr
    assert not vertex.requests
    refused = create("--cron", "99 3 * * 1")  # the service knows cron best
    assert refused.returncode == 2 and "Invalid cron" in refused.stderr


@pytest.mark.parametrize("queue", ["false", "true"])
def test_a_run_that_would_be_one_too_many_is_left_out_or_waits(create, vertex, queue):
    assert create("--queue", queue).returncode == 0
    vertex.clock.advance_to(vertex.clock.now() + 2 * WEEK)
    vertex.fire_due()
    assert len(vertex.jobs) == 1
    vertex.join()
    vertex.fire_due()
    assert len(vertex.jobs) == (2 if queue == "true" else 1)


def test_the_limit_is_one_of_runs_not_of_the_requests_that_start_them(create, pipelines, vertex):
    assert create("--max_concurrent_runs", "2").returncode == 0
    sent = _only(vertex)
    assert (sent.max_concurrent_active_run_count, sent.max_concurrent_run_count) == (2, 2)
    assert "at most 2 at once, the others are skipped" in pipelines("schedule", "show", "weekly").stdout
    assert pipelines("schedule", "update", "weekly", "--max_concurrent_runs", "1", "--queue", "true").returncode == 0
    assert (_only(vertex).max_concurrent_active_run_count, _only(vertex).allow_queueing) == (1, True)
    assert "at most 1 at once, the others wait" in pipelines("schedule", "show", "weekly").stdout


def test_a_schedule_without_a_limit_of_runs_is_shown_so_and_keeps_none(create, pipelines, vertex):
    assert create().returncode == 0
    schedule = _only(vertex)
    schedule.max_concurrent_active_run_count = 0
    schedule.max_concurrent_run_count = 5
    assert "any number at once" in pipelines("schedule", "show", "weekly").stdout
    assert pipelines("schedule", "update", "weekly", "--cron", "0 5 * * 1").returncode == 0
    assert (_only(vertex).max_concurrent_active_run_count, _only(vertex).max_concurrent_run_count) == (0, 5)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_start_that_is_past_is_never_sent_so_no_missed_run_is_started(create, pipelines, vertex, replaced):
    vertex.updates_requests = not replaced
    assert create().returncode == 0
    _only(vertex).start_time = vertex.clock.now() - 4 * WEEK
    done = pipelines("schedule", "update", "weekly", "--steps", "4", "--cron", "0 5 * * 1")
    assert done.returncode == 0, done.stderr
    vertex.fire_due()
    assert not vertex.jobs
    assert _only(vertex).next_run_time > vertex.clock.now()


@pytest.mark.parametrize("replaced", [False, True])
def test_what_the_commands_have_no_option_for_stays(create, pipelines, vertex, replaced):
    vertex.updates_requests = not replaced
    assert create("--labels", "team=vision").returncode == 0
    _only(vertex).max_run_count = 9
    _only(vertex).create_pipeline_job_request.pipeline_job.reserved_ip_ranges = ["range"]
    assert pipelines("schedule", "update", "weekly", "--steps", "4", "--labels", "").returncode == 0
    job = _only(vertex).create_pipeline_job_request.pipeline_job
    assert _only(vertex).max_run_count == 9 and job.reserved_ip_ranges == ["range"]
    assert not job.labels and job.runtime_config.parameter_values["steps"] == 4


def test_start_and_end_are_taken_back(create, pipelines, vertex):
    now = vertex.clock.now()
    start, end = (now + 2 * WEEK).isoformat(), (now + 4 * WEEK).isoformat()
    assert create("--start", start, "--end", end).returncode == 0
    done = pipelines("schedule", "update", "weekly", "--start", "", "--end", "")
    assert done.returncode == 0, done.stderr
    changed = _only(vertex)
    assert changed.end_time is None and changed.next_run_time < now + WEEK
    assert "no end" in pipelines("schedule", "show", "weekly").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--end", "2020-01-01T00:00"], "--end is in the past"),
        (["--start", "2020-01-01T00:00"], "--start is in the past"),
        (["--start", "2090-02-01", "--end", "2090-01-01"], "--end is not after --start"),
        (["--cron", ""], "--cron"),
        (["--time_zone", "Europe"], "--time_zone"),
    ],
)
def test_a_time_that_starts_nothing_or_too_much_is_refused(create, pipelines, vertex, words, message):
    refused = create(*words)
    assert refused.returncode == 2 and message in " ".join(refused.stderr.split())
    assert not vertex.requests


def test_a_schedule_that_has_ended_is_replaced_by_one_with_another_end(create, pipelines, vertex):
    assert create("--end", (vertex.clock.now() + WEEK).isoformat()).returncode == 0
    _only(vertex).end_time = vertex.clock.now() - WEEK
    vertex.fire_due()
    assert _only(vertex).state.name == "COMPLETED"
    ended = pipelines("schedule", "update", "weekly", "--steps", "3")
    assert ended.returncode == 2 and "--end is in the past" in " ".join(ended.stderr.split())
    assert pipelines("schedule", "update", "weekly", "--end", "").returncode == 0
    assert _only(vertex).state.name == "ACTIVE" and _only(vertex).next_run_time > vertex.clock.now()
