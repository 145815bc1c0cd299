"""The compiled notify step on Kubeflow asks the cluster how the run ended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.promotion.test_notify import HOOK, Listener
from tests.standin.kubeflow import Kubeflow
from tests.standin.kubernetes_api import KubernetesApi, workflow

pytestmark = pytest.mark.slow

WORKFLOW = "local-pipeline-exit-handler-1"  # what kfp.local, which executes the stand-in's runs, names it
OUT_OF_MEMORY = "OOMKilled (exit code 137)"


@pytest.fixture
def listener():
    service = Listener()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def kubeflow(tmp_path, storage_url):
    (tmp_path / "account").mkdir()
    cluster, service = KubernetesApi(tmp_path / "account"), Kubeflow(tmp_path / "kubeflow", storage_url)
    service.cluster = cluster
    service.runner.environment = cluster.environment
    module = "__import__('tf_image_classification.promotion.kubeflow_outcome', fromlist=['read'])"
    service.runner.first_lines = [f"{module}._ACCOUNT = __import__('pathlib').Path({str(cluster.account)!r})"]
    service.start()
    yield service
    service.stop()
    cluster.stop()


def submit(kubeflow: Kubeflow, command: Any, listener: Listener, steps: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Runs a pipeline whose first step fails, and that left this workflow; returns what was received."""
    kubeflow.runner.fail_once = ["resolve"]
    kubeflow.cluster.workflows[WORKFLOW] = workflow(WORKFLOW, steps, run="first")
    words = ["--backend", "kubeflow", "--host", kubeflow.url, "--pipeline_root", "gs://bucket/root", "--wait"]
    words += ["--train_metadata", "gs://bucket/photos", "--image_size", "16", "--run_id", "first"]
    done = command("submit", *words, "--notify", listener.url + HOOK, "--notify_insecure")
    assert done.returncode == 1
    return listener.received


def test_a_step_that_was_out_of_memory_is_reported_with_that_reason(kubeflow, command, listener):
    (message,) = submit(kubeflow, command, listener, {"resolve": [""], "train": [OUT_OF_MEMORY]})
    assert message["text"] == f"The run first ended as FAILED.\ntrain: {OUT_OF_MEMORY}"


def test_a_step_that_succeeded_when_it_was_retried_is_not(kubeflow, command, listener):
    assert submit(kubeflow, command, listener, {"resolve": [OUT_OF_MEMORY, ""]}) == []
    assert kubeflow.cluster.requests == 1
