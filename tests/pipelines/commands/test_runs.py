from __future__ import annotations

from tests.standin.service import Fault


def test_a_run_that_failed_is_completed_by_a_rerun_and_what_had_finished_comes_from_the_cache(
    submit_tiny, pipelines, vertex
):
    vertex.runner.fail_once = ["train"]
    assert submit_tiny("--run_id", "first", "--steps", "3", "--labels", "team=vision", "--wait").returncode == 1
    done = pipelines("runs", "rerun", "first", "--run_id", "second", "--wait")
    assert done.returncode == 0, done.stderr
    states = {task.task_name: task.state.name for task in vertex.jobs["second"].job_detail.task_details}
    assert states == {"scan": "SUCCEEDED", "build": "SKIPPED", "train": "SUCCEEDED"}
    assert "build            CACHED" in done.stdout and "aaa" in done.stdout
    first, second = vertex.jobs["first"], vertex.jobs["second"]
    assert second.runtime_config.parameter_values == first.runtime_config.parameter_values
    assert second.labels == first.labels


def test_a_rerun_changes_the_given_parameters_and_checks_them(submit_tiny, pipelines, vertex):
    assert submit_tiny("--run_id", "first", "--steps", "3", "--wait").returncode == 0
    assert pipelines("runs", "rerun", "first", "--run_id", "second", "--steps", "4", "--wait").returncode == 0
    assert dict(vertex.jobs["second"].runtime_config.parameter_values) == {"folder": "gs://bucket/words", "steps": 4}
    misspelt = pipelines("runs", "rerun", "first", "--step", "4")
    assert misspelt.returncode == 2 and "Did you mean --steps?" in misspelt.stderr
    wrong = pipelines("runs", "rerun", "first", "--steps", "four")
    assert wrong.returncode == 2 and "a whole number" in wrong.stderr
    assert list(vertex.jobs) == ["first", "second"]


def test_show_prints_parameters_tasks_outputs_and_errors(submit_tiny, pipelines, vertex):
    vertex.runner.fail_once = ["train"]
    submit_tiny("--run_id", "first", "--steps", "3", "--wait")
    shown = pipelines("runs", "show", "first")
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["first", "FAILED"] in lines and ["steps", "3"] in lines
    train = next(line for line in lines if line[:2] == ["train", "FAILED"])
    assert "non-zero" in train
    assert any(line[:1] == ["build.data"] and line[1].startswith("gs://bucket/root/") for line in lines)
    assert "The failed tasks are: [train]." in shown.stdout


def test_runs_are_listed_newest_first(submit_tiny, pipelines, vertex):
    for name in ("first", "second", "third"):
        submit_tiny("--run_id", name)
    vertex.join()
    listed = pipelines("runs", "list", "--limit", "2")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["run", "state"],
        ["third", "SUCCEEDED"],
        ["second", "SUCCEEDED"],
    ]


def test_a_run_is_cancelled(submit_tiny, pipelines, vertex):
    submit_tiny("--run_id", "first")
    unfinished = pipelines("runs", "rerun", "first")
    assert unfinished.returncode == 2 and "has not ended" in unfinished.stderr
    assert pipelines("runs", "cancel", "first").returncode == 0
    assert vertex.jobs["first"].state.name == "PIPELINE_STATE_CANCELLED"
    again = pipelines("runs", "cancel", "first")
    assert again.returncode == 0 and "had ended" in again.stdout
    waited = pipelines("runs", "show", "first", "--wait")
    assert waited.returncode == 1 and "was cancelled" in waited.stderr


def test_a_run_that_is_not_found_is_named(pipelines, vertex):
    for verb in ("show", "cancel", "rerun"):
        done = pipelines("runs", verb, "nowhere")
        assert done.returncode == 2
        assert "nowhere" in done.stderr


def test_a_misspelt_verb_is_answered_by_the_nearest_one(pipelines):
    done = pipelines("runs", "lst")
    assert done.returncode == 2 and "Did you mean list?" in done.stderr
    assert pipelines("runs", "show").returncode == 2


def test_following_continues_when_the_service_was_unavailable(submit_tiny, pipelines, vertex):
    submit_tiny("--run_id", "first")
    vertex.faults.append(Fault(503, method="GET", times=2))
    assert pipelines("runs", "show", "first", "--wait").returncode == 0
