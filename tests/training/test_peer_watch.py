"""Tasks of a synchronous cluster that lose each other, or are told to stop while they wait for each other."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.training.clusters import Cluster, Restarter

TASK = [sys.executable, "-m", "tests.training.watched_task"]
LOST = "Another task of the cluster was lost"

pytestmark = pytest.mark.slow


def words(text: str) -> str:
    """The text without the line breaks of a paragraph."""
    return " ".join(text.split())


def wait_until_printed(cluster: Cluster, text: str, *tasks: str) -> None:
    for task in tasks or cluster.tasks:
        cluster.wait_for(lambda task=task: f"{text}\n" in cluster.output(task), 60)


@pytest.mark.parametrize(
    ("lost", "number"),
    [
        ("chief:0", signal.SIGKILL),
        pytest.param("chief:0", signal.SIGSTOP, marks=pytest.mark.cluster),
        pytest.param("worker:1", signal.SIGSTOP, marks=pytest.mark.cluster),
    ],
)
def test_all_end_with_the_retryable_code_when_one_is_killed_or_stopped(tmp_path, lost, number):
    with Cluster(TASK, tmp_path, chief=1, worker=2) as cluster:
        cluster.start()
        wait_until_printed(cluster, "step 5")
        cluster.kill(lost, number)
        others = [task for task in cluster.tasks if task != lost]
        assert cluster.wait(30, *others) == dict.fromkeys(others, 138), cluster.outputs()
        for task in others:
            assert LOST in words(cluster.output(task)), cluster.outputs()
        names = (lost.replace(":", " "), "the chief" if lost == "chief:0" else "")
        cluster.kill(lost, signal.SIGCONT)
        assert cluster.wait(60, lost)[lost] == (137 if number == signal.SIGKILL else 138), cluster.outputs()
        assert any(f"Received: {name}:" in words(cluster.output(task)) for task in others for name in names if name)


@pytest.mark.cluster
@pytest.mark.parametrize(("lost", "at_work"), [("chief:0", 1), ("worker:1", 0)])
def test_a_task_that_is_at_other_work_notices_a_loss_too(tmp_path, lost, at_work):
    with Cluster([*TASK, str(at_work)], tmp_path, chief=1, worker=2, env={"WORK": "1000"}) as cluster:
        cluster.start()
        wait_until_printed(cluster, "step 3")
        cluster.kill(lost)
        others = [task for task in cluster.tasks if task != lost]
        assert cluster.wait(45, *others) == dict.fromkeys(others, 138), cluster.outputs()
        assert LOST in words(cluster.output(cluster.tasks[at_work])), cluster.outputs()


@pytest.mark.cluster
def test_slow_work_of_any_task_is_no_loss_and_all_end_together(tmp_path):
    with Cluster([*TASK, "0", "1"], tmp_path, chief=1, worker=1, env={"WORK": "15", "STEPS": "20"}) as cluster:
        cluster.start()
        assert cluster.wait(90) == {"chief:0": 0, "worker:0": 0}, cluster.outputs()
        assert "has worked" in cluster.output("chief:0")


@pytest.mark.cluster
def test_a_task_that_does_not_come_ends_the_others(tmp_path):
    for missing in ("chief:0", "worker:1"):
        with Cluster(TASK, tmp_path / missing[:5], chief=1, worker=2, env={"CLUSTER_JOIN_SECONDS": "8"}) as cluster:
            others = [task for task in cluster.tasks if task != missing]
            cluster.start(*others)
            assert cluster.wait(60) == dict.fromkeys(others, 138), cluster.outputs()
            assert "Not all tasks of the cluster were there within 8 s" in words(cluster.output(others[0]))


@pytest.mark.cluster
def test_sigterm_ends_a_task_that_waits_for_another_within_the_limit(tmp_path):
    with Cluster([*TASK, "0"], tmp_path, chief=1, worker=1, env={"WORK": "1000"}) as cluster:
        cluster.start()
        wait_until_printed(cluster, "working", "chief:0")
        wait_until_printed(cluster, "step 3", "worker:0")
        time.sleep(1.0)  # until TensorFlow has it, in its fourth step, where Python's handler does not run
        cluster.kill("worker:0", signal.SIGTERM)
        assert cluster.wait(30, "worker:0") == {"worker:0": 143}, cluster.outputs()
        assert "Stopped by SIGTERM without a checkpoint" in words(cluster.output("worker:0"))
        assert cluster.wait(30) == {"chief:0": 138, "worker:0": 143}, cluster.outputs()


@pytest.mark.cluster
def test_sigterm_ends_a_task_that_is_at_work_before_or_after_its_steps(tmp_path):
    with Cluster([*TASK, "0"], tmp_path, chief=1, worker=1, env={"WORK": "1000"}) as cluster:
        cluster.start()
        wait_until_printed(cluster, "working", "chief:0")
        cluster.kill("chief:0", signal.SIGTERM)
        assert cluster.wait(30) == {"chief:0": 143, "worker:0": 138}, cluster.outputs()
        assert "has worked" not in cluster.output("chief:0")


def test_a_task_that_is_restarted_alone_joins_the_others_when_these_are_restarted_too(tmp_path):
    killed = []
    with Cluster(TASK, tmp_path, chief=1, worker=1, env={"STEPS": "60"}) as cluster:

        def kill_once() -> None:
            if not killed and cluster.output_file("worker:0").exists() and "step 5\n" in cluster.output("worker:0"):
                cluster.kill("worker:0")
                killed.append("worker:0")

        exits = Restarter(cluster).run(90, kill_once)
    assert {(end.task, end.code) for end in exits} >= {("worker:0", 137), ("chief:0", 138), ("chief:0", 0)}
