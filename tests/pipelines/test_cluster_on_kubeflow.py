"""A pipeline that was compiled with --replicas, on Kubeflow: its training step launches a TFJob."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.standin import bucket
from tests.standin.kubeflow import Kubeflow
from tests.standin.kubernetes_api import KubernetesApi

pytestmark = pytest.mark.slow

TINY = ["--batch_size", "6", "--image_size", "16", "--seed", "7", "--eval_freq", "1", "--learning_rate", "0.1"]
POLL_SECS = 0.1
LAUNCH = "__import__('tf_image_classification.launch.{0}', fromlist=['x'])"


@pytest.fixture
def kubeflow(tmp_path, storage_url) -> Iterator[Kubeflow]:
    (tmp_path / "account").mkdir()
    cluster, service = KubernetesApi(tmp_path / "account"), Kubeflow(tmp_path / "kubeflow", storage_url)
    service.cluster = cluster
    service.runner.environment = cluster.environment
    cluster.tfjobs.environment = {"STORAGE_EMULATOR_HOST": storage_url}
    service.runner.first_lines = [
        f"{LAUNCH.format('kubernetes_api')}._ACCOUNT = __import__('pathlib').Path({str(cluster.account)!r})"
    ]
    service.start()
    yield service
    service.stop()
    cluster.stop()


def submit(kubeflow: Kubeflow, command: Any, image_folder: Any, storage_url: str, *words: str) -> None:
    bucket.fill(storage_url, "bucket", "cluster/photos", image_folder)
    backend = ["--backend", "kubeflow", "--host", kubeflow.url, "--pipeline_root", "gs://bucket/cluster/runs"]
    flags = ["--train_metadata", "gs://bucket/cluster/photos", *TINY]
    done = command("submit", *backend, *flags, "--replicas", "3", *words)
    assert done.returncode == 0, done.stderr


def wait_until(condition: Callable[[], object], kubeflow: Kubeflow) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline and state(kubeflow) == "RUNNING", logs(kubeflow)
        time.sleep(POLL_SECS)


def state(kubeflow: Kubeflow) -> str:
    (run,) = kubeflow.runs.values()
    return run["state"]


def logs(kubeflow: Kubeflow) -> str:
    return "".join(log.read_text() for log in (kubeflow.runner.folder / "logs").iterdir())


def training_step(kubeflow: Kubeflow) -> psutil.Process:
    """The process of the training step of the run."""
    (run,) = kubeflow.runner._processes.values()
    children = psutil.Process(run.pid).children(recursive=True)
    return next(child for child in children if {"kfp.dsl.executor_main", "train"} <= set(child.cmdline()))


def test_a_step_that_is_killed_and_retried_takes_up_the_job_of_three_processes(
    kubeflow, command, image_folder, storage_url
):
    submit(kubeflow, command, image_folder, storage_url, "--train_steps", "30", "--retries", "1")
    pods = kubeflow.cluster.tfjobs.pods
    wait_until(lambda: len(pods) == 3, kubeflow)
    (job,) = kubeflow.cluster.tfjobs.jobs
    training_step(kubeflow).kill()
    kubeflow.join()
    assert state(kubeflow) == "SUCCEEDED", logs(kubeflow)
    assert kubeflow.cluster.tfjobs.created == [f"{job}-{task}" for task in ("chief-0", "worker-0", "worker-1")]
    assert f"Re-attached to TFJob {job}" in logs(kubeflow)


def test_a_run_that_is_cancelled_leaves_no_job(kubeflow, command, image_folder, storage_url):
    submit(kubeflow, command, image_folder, storage_url, "--train_steps", "100000", "--run_id", "long")
    wait_until(lambda: len(kubeflow.cluster.tfjobs.pods) == 3, kubeflow)
    time.sleep(2)  # the step has read that it was created
    done = command("runs", "cancel", "--backend", "kubeflow", "--host", kubeflow.url, "long")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 60
    while kubeflow.cluster.tfjobs.jobs or kubeflow.cluster.tfjobs.pods:
        assert time.monotonic() < deadline
        time.sleep(POLL_SECS)
    kubeflow.join()
    assert state(kubeflow) == "CANCELED"
