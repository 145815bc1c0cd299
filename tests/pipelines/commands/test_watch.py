"""--wait follows a run for as long as a training takes, whatever happens between here and the service."""

from __future__ import annotations

import pytest

from pipelines.commands import watch
from tests.standin.service import Fault


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "_LONGEST_SILENT_PAUSE", 0.1)


def _printed(done) -> str:
    return " ".join(done.stderr.split())


def test_a_busy_service_does_not_end_it(submit_tiny, vertex):
    vertex.faults.append(Fault(429, method="GET", path="pipelineJobs/", times=5))
    done = submit_tiny("--run_id", "first", "--wait")
    assert done.returncode == 0, done.stderr
    assert "Run first SUCCEEDED" in done.stdout
    assert done.stderr.count("is still followed") == 5


def test_giving_up_says_how_to_follow_again(submit_tiny, pipelines, vertex, monkeypatch):
    monkeypatch.setattr(watch, "_PATIENCE", 0)
    vertex.faults.append(Fault(429, method="GET", path="pipelineJobs/", times=1))
    done = submit_tiny("--run_id", "first", "--wait")
    assert done.returncode == 1
    again = "python -m pipelines runs show first --wait --project my-project --location europe-west4 --api_endpoint"
    assert f"The run goes on. To follow it again: {again} {vertex.url}" in _printed(done)
    vertex.faults.append(Fault(403, method="GET", path="pipelineJobs/", times=2))  # refused for good
    refused = pipelines("runs", "show", "first", "--wait")
    assert refused.returncode == 1 and "does not let this account" in _printed(refused)


def test_ctrl_c_says_how_to_follow_again(submit_tiny, vertex, monkeypatch):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "_pause", interrupt)
    vertex.faults.append(Fault(429, method="GET", path="pipelineJobs/", times=1))
    done = submit_tiny("--run_id", "first", "--wait")
    assert done.returncode == 130
    assert "To follow it again: python -m pipelines runs show first --wait --project my-project" in _printed(done)
