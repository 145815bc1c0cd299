"""TF_CONFIG: the cluster that a process is a task of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tf_image_classification import cluster
from tf_image_classification.cluster import Role, Task
from tf_image_classification.errors import FlagError

WORKERS = {"worker": ["a:1", "b:1"]}
CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


def task(monkeypatch: pytest.MonkeyPatch, members: Any, role: str = "worker", index: Any = 0) -> Task:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": members, "task": {"type": role, "index": index}}))
    return cluster.current()


def test_without_tf_config_a_process_is_the_chief_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    alone = cluster.current()
    assert (alone.is_chief, alone.is_alone, alone.num_workers, alone.worker_index) == (True, True, 1, 0)


def test_a_trial_of_hyperparameter_tuning_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"task": {"type": "master", "index": 0, "trial": "7"}}))
    assert cluster.current().trial == "7"
    assert cluster.current().is_alone


def test_the_only_worker_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert task(monkeypatch, {"worker": ["a:1"]}).is_alone


def test_worker_0_is_the_chief_of_a_cluster_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = task(monkeypatch, WORKERS, index=0), task(monkeypatch, WORKERS, index=1)
    assert (first.is_chief, first.worker_index, second.is_chief, second.worker_index) == (True, 0, False, 1)
    assert first.num_workers == 2


@pytest.mark.parametrize("name", ["chief", "master"])
def test_workers_are_counted_after_the_chief(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    members = {"worker": CHIEF["worker"], name: CHIEF["chief"]}
    chief, worker = task(monkeypatch, members, name), task(monkeypatch, members, "worker", 0)
    assert (chief.role, chief.is_chief, chief.worker_index) == (Role.CHIEF, True, 0)
    assert (worker.is_chief, worker.worker_index, worker.worker_addresses) == (False, 1, ("a:1", "b:1", "c:1"))


def test_parameter_servers_and_evaluators_train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = task(monkeypatch, CHIEF, "ps")
    assert (server.has_parameter_servers, server.is_chief, server.num_workers) == (True, False, 3)
    assert not task(monkeypatch, CHIEF, "chief").is_synchronous
    evaluator = task(monkeypatch, WORKERS, "evaluator")  # Vertex AI does not list it
    assert (evaluator.is_chief, evaluator.is_alone, str(evaluator)) == (False, False, "evaluator 0")
    assert (evaluator.is_synchronous, task(monkeypatch, WORKERS).is_synchronous) == (False, True)


def vertex_ai(monkeypatch: pytest.MonkeyPatch, cluster_spec: Any) -> None:
    """What Vertex AI sets beside TF_CONFIG."""
    text = cluster_spec if isinstance(cluster_spec, str) else json.dumps(cluster_spec)
    monkeypatch.setenv("CLUSTER_SPEC", text)


def test_the_chief_knows_the_evaluator_that_vertex_ai_names_in_cluster_spec_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = {"workerpool0": ["a:1"], "workerpool1": ["b:1", "c:1"], "workerpool3": ["e:1"]}
    vertex_ai(monkeypatch, {"cluster": pools, "environment": "cloud", "task": {"type": "workerpool0", "index": 0}})
    chief = task(monkeypatch, CHIEF, "chief")
    assert (chief.cluster[Role.EVALUATOR], chief.num_workers) == (("e:1",), 3)
    vertex_ai(monkeypatch, {"cluster": {**pools, "workerpool3": []}})
    assert Role.EVALUATOR not in task(monkeypatch, CHIEF, "chief").cluster


def test_a_trial_of_one_machine_has_its_number_from_cluster_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    cluster_spec = {"cluster": {"workerpool0": ["a:1"]}, "task": {"type": "workerpool0", "index": 0}}
    vertex_ai(monkeypatch, cluster_spec)
    assert (cluster.current().trial, cluster.current().is_alone) == ("", True)
    vertex_ai(monkeypatch, cluster_spec | {"task": {"type": "workerpool0", "index": 0, "trial": "3"}})
    assert (cluster.current().trial, cluster.current().is_alone) == ("3", True)


@pytest.mark.parametrize("text", ["of another program", "[1]", '{"cluster": [], "task": 3}'])
def test_a_cluster_spec_of_another_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    vertex_ai(monkeypatch, text)
    assert task(monkeypatch, WORKERS) == Task(Role.WORKER, 0, {Role.WORKER: ("a:1", "b:1")})


@pytest.mark.parametrize(
    ("members", "role", "index", "named"),
    [
        (WORKERS, "worker", 2, "not in its cluster.*worker 2.*worker 0 to 1"),
        (WORKERS, "chief", 0, "not in its cluster.*chief 0"),
        (WORKERS, "worker", "x", "invalid index.*x"),
        (WORKERS, "worker", -1, "invalid index"),
        (WORKERS, "boss", 0, "unknown role.*boss.*master, chief"),
        ({"workers": ["a:1"]}, "worker", 0, "unknown role.*workers"),
        ({"worker": ["a:1", "b"]}, "worker", 0, "invalid address for worker.*b.*HOST:PORT"),
        ({"worker": ["a:1", "b:http"]}, "worker", 0, "invalid address"),
        ({"worker": "a:1"}, "worker", 0, "no list of addresses"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "same address.*a:1"),
        ({"worker": ["a:1"], "ps": ["a:1"]}, "worker", 0, "same address.*a:1"),
        ({"chief": ["a:1", "b:1"]}, "chief", 0, "several chiefs"),
        ({"chief": ["a:1"], "master": ["b:1"]}, "chief", 0, "both a chief and a master"),
        (["a:1"], "worker", 0, "no object"),
    ],
)
def test_a_malformed_tf_config_is_refused(
    monkeypatch: pytest.MonkeyPatch, members: Any, role: str, index: Any, named: str
) -> None:
    with pytest.raises(FlagError, match=f"TF_CONFIG .*{named}"):
        task(monkeypatch, members, role, index)


@pytest.mark.parametrize("text", ["not json", "[1]", '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_a_tf_config_without_a_task_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(FlagError, match="TF_CONFIG"):
        cluster.current()


def test_how_long_tasks_wait_for_each_other_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.JOIN_SECONDS_VARIABLE, "7.5")
    assert cluster.join_seconds() == 7.5
    monkeypatch.setenv(cluster.JOIN_SECONDS_VARIABLE, "soon")
    with pytest.raises(FlagError, match=cluster.JOIN_SECONDS_VARIABLE):
        cluster.join_seconds()
