"""The training step of a run on this machine as a cluster of processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_parameter_servers_and_an_evaluator_train_the_sample(tmp_path):
    roles = ("--replicas", "2", "--parameter_servers", "1", "--evaluator")
    command = [sys.executable, "-m", "pipelines", "run", "--runs_dir", str(tmp_path / "runs"), *roles]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "gate: passed" in done.stdout
    assert "evaluator 0: Evaluation at step 400" in done.stdout
    for task in ("worker 0", "worker 1", "ps 0"):
        assert f"{task}: The training has ended" in done.stdout
