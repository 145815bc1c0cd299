"""The harness of clusters: what it starts, and how it stands in for a platform. No TensorFlow."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.training.clusters import Cluster, Exit, Restarter

# Ends with 138 the first time, when its file does not exist yet, and with 0 from then on.
RETRIED = "import os, sys; known = os.path.exists(sys.argv[1]); open(sys.argv[1], 'w'); sys.exit(0 if known else 138)"
DONE, ENDLESS = [sys.executable, "-c", ""], [sys.executable, "-c", "import time; time.sleep(1000)"]


def test_each_task_gets_the_cluster_and_its_own_place_in_it(tmp_path):
    show = [sys.executable, "-c", "import os; print(os.environ['TF_CONFIG'])"]
    with Cluster(show, tmp_path, chief=1, worker=2, evaluator=1) as cluster:
        cluster.start()
        assert cluster.wait(20) == dict.fromkeys(("chief:0", "worker:0", "worker:1", "evaluator:0"), 0)
        configs = [json.loads(cluster.output(task)) for task in cluster.tasks]
    assert {role: len(addresses) for role, addresses in configs[0]["cluster"].items()} == {"chief": 1, "worker": 2}
    assert [config["task"] for config in configs[2:]] == [
        {"type": "worker", "index": 1},
        {"type": "evaluator", "index": 0},
    ]


def test_what_hangs_fails_with_its_output_and_is_killed(tmp_path):
    with Cluster(ENDLESS, tmp_path, worker=2) as cluster:
        cluster.start()
        cluster.kill("worker:1")
        with pytest.raises(TimeoutError, match=r"(?s)not done within 1 s.*time\.sleep|File \"<string>\""):
            cluster.wait(1)
        assert cluster.codes() == {"worker:0": 128 + signal.SIGABRT, "worker:1": 137}


@pytest.mark.parametrize("together", [False, True])
def test_a_retryable_exit_is_restarted_until_the_chief_succeeds(tmp_path, together):
    command = [sys.executable, "-c", RETRIED]
    with Cluster(lambda task: [*command, str(tmp_path / task)], tmp_path, worker=1, chief=1) as cluster:
        exits = Restarter(cluster, together=together).run(20)
        assert exits[-1].code == 0, cluster.outputs()
    assert any(end.code == 138 for end in exits)
    assert not any(isinstance(end, Exit) and end.code not in (0, 138) for end in exits)


def test_a_permanent_exit_ends_the_job_and_so_do_too_many_restarts(tmp_path):
    for code, ends in ((1, [1]), (138, [138, 138, 138])):
        with Cluster([sys.executable, "-c", f"raise SystemExit({code})"], tmp_path, worker=1) as cluster:
            assert [end.code for end in Restarter(cluster, restarts=2).run(20)] == ends


def test_servers_are_ended_once_the_chief_has_succeeded(tmp_path):
    with Cluster(lambda task: ENDLESS if task == "ps:0" else DONE, tmp_path, chief=1, ps=1) as cluster:
        assert [end.code for end in Restarter(cluster, grace=0.1).run(20)] == [0]
        assert cluster.wait(20) == {"chief:0": 0, "ps:0": 128 + signal.SIGTERM}
