"""The TFJob of a cluster: followed to its end, taken up by a retry, and gone once it is cancelled."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.launch.test_processes import job
from tf_image_classification.errors import ServiceError, TrainingError, UnavailableError
from tf_image_classification.launch import kubernetes_api, restarts, task_pods
from tf_image_classification.launch.training_operator import TrainingOperator

FOR_EVER = "(folder / f'{role}.up').touch()\ntime.sleep(600)"


def run(*arguments: object) -> None:
    TrainingOperator(poll_secs=0.05).run(job(*arguments))


def in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def test_the_tasks_train_and_the_chiefs_log_is_the_steps(cluster, tmp_path, capfd):
    run(tmp_path, "print('I am', role, flush=True)\nif role == 'chief': time.sleep(0.3); print('done')")
    assert cluster.tfjobs.created == ["training-chief-0", "training-worker-0"]
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line] == ["I am chief", "done"]


def test_a_retried_step_takes_up_the_job_that_runs(cluster, tmp_path):
    def stop_following() -> None:
        wait_for(tmp_path / "chief.up")
        cluster.forbidden.add("list pods")  # ends the first attempt, as if its pod were killed

    in_background(stop_following)
    script = "(folder / f'{role}.up').touch()\nwhile not (folder / 'end').exists(): time.sleep(0.02)"
    with pytest.raises(ServiceError, match="may not do what starting a cluster takes"):
        run(tmp_path, script)
    cluster.forbidden.clear()
    (tmp_path / "end").touch()
    run(tmp_path, script)
    run(tmp_path, script)  # also one that has succeeded meanwhile
    assert len(cluster.tfjobs.created) == 2


def test_a_retried_step_replaces_a_job_that_has_failed(cluster, tmp_path):
    with pytest.raises(TrainingError, match=r"chief: Error \(exit code 1\). Received: No disk\."):
        run(tmp_path, "print('error: No disk.')\nsys.exit(1)")
    run(tmp_path, "")
    assert len(cluster.tfjobs.created) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_step_leaves_no_job(cluster, tmp_path, number):
    def cancel() -> None:
        wait_for(tmp_path / "chief.up")
        os.kill(os.getpid(), number)

    in_background(cancel)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, FOR_EVER)
    assert ended.value.code == 128 + number
    assert (cluster.tfjobs.jobs, cluster.tfjobs.pods) == ({}, {})


def test_a_lost_task_is_started_again_by_the_operator(cluster, tmp_path, caplog):
    script = "if role == 'worker' and times('worker') == 1: sys.exit(138)\nif role == 'chief': time.sleep(1)"
    run(tmp_path, script)
    assert cluster.tfjobs.created.count("training-worker-0") == 2
    assert (
        "Restarted, from the last checkpoint: worker 0 (Pod: team.training-worker-0 exited with code 138)"
        in caplog.text
    )


def test_a_job_whose_task_is_always_lost_is_given_up_and_deleted(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(task_pods, "Restarts", lambda: restarts.Restarts(limit=1))
    script = "time.sleep(0.2) if role == 'worker' else time.sleep(600)\nos.kill(os.getpid(), 9)"
    with pytest.raises(TrainingError, match=r"worker 0 was lost too often in a row.*exited with code 137"):
        run(tmp_path, script)
    assert cluster.tfjobs.jobs == {}


def test_the_wait_for_a_node_is_no_time_in_which_a_task_ran(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(task_pods, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tasks = task_pods.TaskRestarts()
    lost = []
    for attempt in range(restarts.Restarts().limit + 2):
        for seconds, phase in ((5, "Pending"), (800, "Pending"), (100, "Running"), (100, "Failed")):
            now[0] += seconds
            labels = {task_pods._TYPE: "worker", task_pods._INDEX: "0"}
            pod = {"metadata": {"uid": str(attempt), "labels": labels}, "status": {"phase": phase}}
            lost += tasks.update([pod])[1]
    assert lost == ["worker 0"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("obstacle", "ImagePullBackOff", r"Received: chief: ImagePullBackOff: image not there"),
        ("obstacle", "Unschedulable", r"Received: chief: Unschedulable: 0/3 nodes are available"),
        ("refusal", "exceeded quota: compute", r"Received: Error creating: pods is forbidden: exceeded quota: compute"),
        ("refusal", "violates PodSecurity", r"Received: Error creating: .* violates PodSecurity"),
    ],
)
def test_tasks_that_do_not_start_end_the_job_with_the_reason(cluster, tmp_path, monkeypatch, attribute, value, message):
    setattr(cluster.tfjobs, attribute, value)
    monkeypatch.setattr(task_pods, "_NO_ROOM_SECS", 0.2)
    monkeypatch.setattr(task_pods, "_BROKEN_SECS", 0.2)
    with pytest.raises(ServiceError, match=message):
        run(tmp_path, "")
    assert cluster.tfjobs.jobs == {}


def test_a_cluster_without_the_operator_is_named(cluster, tmp_path):
    cluster.tfjobs.is_installed = False
    with pytest.raises(ServiceError, match=r"no TFJobs.*Received: 404 page not found.*training operator 1.x"):
        run(tmp_path, "")


@pytest.mark.parametrize("right", ["get pods", "get tfjobs", "create tfjobs", "list pods"])
def test_an_account_without_a_right_is_told_which(cluster, tmp_path, right):
    cluster.forbidden.add(right)
    verb, resource = right.split()
    with pytest.raises(ServiceError, match=rf"{resource} is forbidden: .* cannot {verb} it"):
        run(tmp_path, FOR_EVER)


def test_the_right_to_read_events_is_not_needed(cluster, tmp_path):
    cluster.forbidden.add("list events")
    run(tmp_path, "if role == 'worker' and times('worker') == 1: sys.exit(138)\nif role == 'chief': time.sleep(0.5)")


def test_a_job_that_somebody_deletes_ends_the_step(cluster, tmp_path):
    def delete() -> None:
        wait_for(tmp_path / "chief.up")
        cluster.tfjobs.answer("delete", "tfjobs", "training", {}, {})

    in_background(delete)
    with pytest.raises(ServiceError, match="TFJob training was deleted while it ran"):
        run(tmp_path, FOR_EVER)


def test_a_busy_api_is_asked_again(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(kubernetes_api, "_FIRST_PAUSE_SECS", 0.01)
    cluster.faults = [503, 0, 429, 410, 500, 401, 0]
    run(tmp_path, "")
    assert len(cluster.tfjobs.created) == 2
    monkeypatch.setattr(kubernetes_api, "_PATIENCE_SECS", 0.1)
    cluster.faults = [503] * 100
    with pytest.raises(UnavailableError, match="503: injected 503"):
        run(tmp_path, "")


def test_the_response_to_a_creation_may_be_lost(cluster, tmp_path, monkeypatch):
    create = cluster.tfjobs._create

    def create_twice(given: dict) -> dict:  # what a repeated request whose first response was lost comes to
        create(given)
        return create(given)

    monkeypatch.setattr(cluster.tfjobs, "_create", create_twice)
    run(tmp_path, "")
    assert len(cluster.tfjobs.created) == 2
