"""On Kubeflow a notification says what became of the run, not what KFP's status says."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

import pytest

from components.notify.component import notify as component
from tests.promotion.test_notify import HOOK, Listener
from tests.standin.kubernetes_api import KubernetesApi, workflow
from tf_image_classification.promotion import kubeflow_outcome

WORKFLOW = "image-classification-x7k2p"
STEPS = {"resolve": [""], "build-tfrecords": [""], "train": [""], "evaluate": [""], "gate": [""]}
OUT_OF_MEMORY = "OOMKilled (exit code 137)"


@pytest.fixture
def listener():
    service = Listener()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    api = KubernetesApi(tmp_path)
    monkeypatch.setattr(kubeflow_outcome, "_ACCOUNT", api.account)
    monkeypatch.setattr(kubeflow_outcome, "_WAIT_SECS", 0.01)
    for name, value in api.environment.items():
        monkeypatch.setenv(name, value)
    yield api
    api.stop()


def notified(listener: Listener, state: str, run: str = "") -> list[dict[str, Any]]:
    """Runs the step with this status of KFP's, and returns what was received."""

    class Status:
        def __init__(self) -> None:
            self.state, self.pipeline_job_resource_name = state, WORKFLOW
            self.pipeline_task_name, self.error_code, self.error_message = "exit-handler-1", None, None

    component.python_func(status=Status(), destination=listener.url + HOOK, run=run, insecure=True)
    return listener.received


@pytest.mark.parametrize(
    "message",
    [
        OUT_OF_MEMORY,
        "The node was low on resource: memory.",
        "pod deleted",
        "Pod failed before main container starts due to InvalidImageName: ",
    ],
)
def test_a_step_that_was_killed_before_it_could_record_its_failure_is_reported(cluster, listener, message):
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, {"resolve": [""], "train": [message]}, run="weekly-1")
    (received,) = notified(listener, "RUNNING", "weekly-1")
    assert (received["state"], received["run"], received["error"]) == ("FAILED", "weekly-1", f"train: {message}")
    assert received["text"] == f"The run weekly-1 ended as FAILED.\ntrain: {message}"


def test_a_driver_that_failed_is_reported(cluster, listener):
    found = workflow(WORKFLOW, {"resolve": [""], "train": ["never started"]}, run="weekly-1")
    for node in found["status"]["nodes"].values():
        if node["displayName"] == "train-driver":
            node |= {"phase": "Error", "type": "Plugin", "message": "cannot resolve inputs"}
        if node["displayName"].startswith("executor") and "train" in node["name"]:
            node |= {"phase": "Omitted", "type": "Skipped"}
    cluster.workflows[WORKFLOW] = found
    (received,) = notified(listener, "RUNNING", "weekly-1")
    assert received["error"] == "train-driver: cannot resolve inputs"


@pytest.mark.parametrize("state", ["RUNNING", "FAILED", "COMPLETE"])
def test_a_run_that_succeeded_is_not_reported_whatever_its_status_says(cluster, listener, state):
    """RUNNING is what most runs leave, FAILED one whose step failed and succeeded when it was retried."""
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, {**STEPS, "train": [OUT_OF_MEMORY, ""]})
    assert notified(listener, state, "weekly-1") == []


def test_of_a_step_whose_retries_failed_the_last_failure_is_told_and_none_of_a_step_that_recovered(cluster, listener):
    steps = {"resolve": ["Error (exit code 1)", ""], "train": ["The node was shut down.", OUT_OF_MEMORY]}
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, steps)
    (received,) = notified(listener, "FAILED", "weekly-1")
    assert received["error"] == f"train: {OUT_OF_MEMORY}"


def test_a_scheduled_run_has_the_name_of_its_workflow(cluster, listener):
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, {"train": [OUT_OF_MEMORY]})
    (received,) = notified(listener, "FAILED")
    assert received["run"] == WORKFLOW


def test_the_nodes_of_a_large_workflow_are_unpacked(cluster, listener):
    found = workflow(WORKFLOW, {"train": [OUT_OF_MEMORY]})
    nodes = json.dumps(found["status"].pop("nodes")).encode()
    found["status"]["compressedNodes"] = base64.b64encode(gzip.compress(nodes)).decode()
    cluster.workflows[WORKFLOW] = found
    assert notified(listener, "RUNNING", "weekly-1")[0]["error"] == f"train: {OUT_OF_MEMORY}"


def test_it_waits_until_the_workflow_says_how_the_steps_ended(cluster, listener):
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, {"train": [OUT_OF_MEMORY]}, phase="Running")
    answer, ended = cluster._answer, workflow(WORKFLOW, {"train": [""]})

    def settle(*arguments: Any) -> Any:
        if cluster.requests == 2:
            cluster.workflows[WORKFLOW] = ended
        return answer(*arguments)

    cluster._answer = settle
    assert notified(listener, "RUNNING", "weekly-1") == []
    assert cluster.requests == 3


def test_it_asks_again_when_the_cluster_does_not_answer(cluster, listener):
    cluster.workflows[WORKFLOW] = workflow(WORKFLOW, {"train": [""]})
    answer = cluster._answer
    cluster._answer = lambda *arguments: answer(*arguments) if cluster.requests else (answer(*arguments) and (503, {}))
    assert notified(listener, "RUNNING", "weekly-1") == []
    assert cluster.requests == 2


def forbid(api: KubernetesApi) -> None:
    api.may_read = False


def end_without_saying(api: KubernetesApi) -> None:
    api.workflows[WORKFLOW] = workflow(WORKFLOW, STEPS, phase="Running")


def take_the_token(api: KubernetesApi) -> None:
    (api.account / "token").unlink()


@pytest.mark.parametrize("state", ["RUNNING", "FAILED"])
@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        (forbid, r"cannot be read\. Received: 403 Forbidden\. .*get on workflows"),
        (KubernetesApi.stop, r"cannot be read\. Received: ConnectionError"),
        (end_without_saying, "does not say how exit-handler-1 ended. Received: phase Running"),
        (take_the_token, r"cannot be read\. Received: FileNotFoundError"),
    ],
)
def test_where_the_cluster_does_not_tell_the_notification_says_so_and_why(cluster, listener, state, obstacle, reason):
    obstacle(cluster)
    (received,) = notified(listener, state, "weekly-1")
    assert received["state"] == "UNKNOWN"
    assert received["text"].startswith("The run weekly-1 has ended, and may have failed.\n")
    assert f"status of it is {state}" in received["error"]
    assert re.search(reason, received["error"]), received["error"]
