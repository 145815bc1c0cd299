from __future__ import annotations

import socket
import threading
import time

import pytest

from tf_image_classification import asynchronous_training, cluster
from tf_image_classification.cluster import PeerError, Role, Task
from tf_image_classification.errors import FlagError
from tf_image_classification.launch.processes import free_ports
from tf_image_classification.training import checkpoint_evaluation, parameter_servers, presence


@pytest.fixture
def task() -> Task:
    chief, worker, ps = (f"127.0.0.1:{port}" for port in free_ports(3))
    return Task(Role.CHIEF, 0, {Role.CHIEF: (chief,), Role.WORKER: (worker,), Role.PS: (ps,)})


def test_a_chief_that_builds_data_is_there_for_those_that_wait(task):
    address = presence.chief_address(task)
    assert not presence.is_there(address)
    with presence.announced(task):
        assert all(presence.is_there(address) for _ in range(20))  # more than a port keeps waiting
    assert not presence.is_there(address)


def test_a_chief_may_take_its_time_to_come_and_must_not_go(task, monkeypatch):
    monkeypatch.setenv(cluster.JOIN_SECONDS_VARIABLE, "1")
    monkeypatch.setattr(presence, "LOST_SECONDS", 0.1)
    watch = presence.ChiefWatch(task)
    watch.check()
    time.sleep(1)
    with pytest.raises(PeerError, match="The chief did not come"):
        watch.check()
    with presence.announced(task):
        watch.check()
    time.sleep(0.2)
    with pytest.raises(PeerError, match="The chief is lost") as raised:
        watch.check()
    assert raised.value.exit_code == cluster.EXIT_RETRYABLE


def test_the_chief_names_the_tasks_that_did_not_come(task, monkeypatch):
    monkeypatch.setenv(cluster.JOIN_SECONDS_VARIABLE, "0.1")
    monkeypatch.setattr(presence, "_POLL_SECONDS", 0.05)
    with pytest.raises(PeerError, match=r"no answer of worker 0 at 127.*, ps 0 at 127"):
        parameter_servers.Servers(task)


def test_a_cluster_without_a_worker_beside_the_chief_is_refused():
    alone = Task(Role.WORKER, 0, {Role.WORKER: ("a:1",), Role.PS: ("b:1",)})
    with pytest.raises(FlagError, match="no worker beside the chief"):
        parameter_servers.Servers(alone)


def test_without_a_chief_worker_0_coordinates_and_the_others_serve():
    members = {Role.WORKER: ("a:1", "b:1"), Role.PS: ("c:1",)}
    served = [parameter_servers.serves(Task(role, index, members)) for role, index in (("worker", 0), ("worker", 1))]
    assert served == [False, True]
    assert not parameter_servers.serves(Task(Role.WORKER, 1, {Role.WORKER: ("a:1", "b:1")}))


def test_flags_that_make_workers_wait_for_each_other_are_refused_with_parameter_servers(built_data, training_flags):
    asynchronous_training.check_flags(training_flags(), built_data)
    with pytest.raises(FlagError, match=r"--sync_replicas does not go together .*It aggregates gradients over workers"):
        asynchronous_training.check_flags(training_flags(sync_replicas=True), built_data)


def test_flags_that_parameter_servers_would_ignore_are_refused_or_warned_of(built_data, training_flags, caplog):
    with pytest.raises(FlagError, match="--jit_compile does not go together with parameter servers"):
        asynchronous_training.check_flags(training_flags(jit_compile=True), built_data)
    asynchronous_training.check_flags(training_flags(shard_streams=2), built_data)
    assert "--shard_streams saves nothing with parameter servers" in caplog.text


def test_the_chief_leaves_evaluations_by_time_to_an_evaluator_unless_they_decide(task, training_flags):
    members = {**task.cluster, Role.EVALUATOR: ("127.0.0.1:1",)}
    evaluated = Task(Role.CHIEF, 0, members)
    flags = training_flags(eval_throttle_secs=7)
    assert checkpoint_evaluation.throttle_secs(task, flags) == 7
    assert checkpoint_evaluation.throttle_secs(evaluated, flags) == float("inf")
    for decides in ({"export": "best"}, {"early_stopping_evals": 2}):
        assert checkpoint_evaluation.throttle_secs(evaluated, training_flags(eval_throttle_secs=7, **decides)) == 7


def test_a_task_says_whom_it_waits_for_and_goes_on_when_it_has_come(task, monkeypatch, caplog):
    monkeypatch.setattr(presence, "_POLL_SECONDS", 0.05)
    worker, ps = task.cluster[Role.WORKER][0], task.cluster[Role.PS][0]
    waits = threading.Thread(target=presence.wait_for, args=({worker: "worker 0", ps: "ps 0"},))
    with caplog.at_level("INFO"):
        with presence.listening(ps):
            waits.start()
            while "Waiting for worker 0 at" not in caplog.text:
                time.sleep(0.01)
        with presence.listening(worker):  # ps 0 need not be there at the same moment
            waits.join(10)
    assert not waits.is_alive()


def test_a_task_listens_on_ipv4_and_ipv6(task):
    port = presence.chief_address(task).rpartition(":")[2]
    with presence.announced(task):
        assert presence.is_there(f"127.0.0.1:{port}")
        assert not socket.has_dualstack_ipv6() or presence.is_there(f"[::1]:{port}")
