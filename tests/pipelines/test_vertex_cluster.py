"""A pipeline compiled with --replicas on Vertex AI: its train step launches a custom job of three processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import psutil
import pytest

from tests.standin import bucket

pytestmark = pytest.mark.slow
_ROOT = ("--pipeline_root", "gs://bucket/runs")
_FLAGS = ("--train_metadata", "gs://bucket/photos", "--image_size", "16", "--seed", "7", "--augmentation", "none")


@pytest.fixture
def photos(storage_url, image_folder) -> None:
    bucket.fill(storage_url, "bucket", "photos", image_folder)


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def steps_of(vertex, run: str) -> list[psutil.Process]:
    """The processes of the steps of a run that are executed now."""
    leader = psutil.Process(vertex.runner._processes[run].pid)
    return [one for one in leader.children() if "executor_main" in " ".join(one.cmdline())]


def logs(vertex, run: str) -> str:
    files = [vertex.runner.folder / "logs" / f"{run}.log", *(vertex.runner.folder / "logs").glob("custom-*.log")]
    return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in files)


def state_of(vertex, job: str) -> str:
    return vertex.custom_jobs.all[job].state.name.removeprefix("JOB_STATE_")


def test_a_train_step_that_is_killed_goes_on_with_its_custom_job(pipelines, vertex, photos, storage_url):
    words = ("--replicas", "3", "--retries", "1", "--batch_size", "6", "--train_steps", "4")
    submitted = pipelines("submit", "--run_id", "first", *_ROOT, *_FLAGS, *words)
    assert submitted.returncode == 0, submitted.stderr
    wait_until(lambda: vertex.custom_jobs.all)
    (step,) = steps_of(vertex, "first")
    step.kill()
    vertex.join()
    assert vertex.jobs["first"].state.name == "PIPELINE_STATE_SUCCEEDED", logs(vertex, "first")
    assert [state_of(vertex, job) for job in vertex.custom_jobs.all] == ["SUCCEEDED"]
    log = (vertex.runner.folder / "logs" / "first.log").read_text()
    assert "An earlier attempt of this step has started" in log
    tasks = sorted(file.name for file in (vertex.runner.folder / "logs").glob("custom-*"))
    assert tasks == [f"custom-3000-workerpool{task}.log" for task in ("0-0", "1-0", "1-1")]

    (train,) = [one for one in vertex.jobs["first"].job_detail.task_details if one.task_name == "train"]
    outputs = {name: output.artifacts[0] for name, output in train.outputs.items()}
    assert outputs["model"].metadata["global_step"] == 4
    blobs = bucket.client(storage_url).bucket("bucket")
    for output, file in (("model", "saved_model/saved_model.pb"), ("curves", ""), ("augmentation_samples", "")):
        path = f"{outputs[output].uri.removeprefix('gs://bucket/')}/{file}".rstrip("/")
        assert blobs.blob(path).exists(), path
    exchange = [blob.name for blob in blobs.list_blobs(prefix="runs/checkpoints/clusters/")]
    assert exchange and not [name for name in exchange if "/tasks/" not in name]
    log = json.loads(blobs.blob(next(name for name in exchange if name.endswith("chief-0.json"))).download_as_bytes())
    assert log["lines"]


def test_a_run_that_is_cancelled_leaves_no_custom_job(pipelines, vertex, photos):
    words = ("--replicas", "3", "--spot", "--retries", "1", "--batch_size", "6", "--train_steps", "100000")
    submitted = pipelines("submit", "--run_id", "endless", *_ROOT, *_FLAGS, *words)
    assert submitted.returncode == 0, submitted.stderr
    wait_until(lambda: vertex.custom_jobs.all)
    assert vertex.custom_jobs.all["3000"].job_spec.scheduling.strategy.name == "SPOT"
    assert pipelines("runs", "cancel", "endless").returncode == 0
    wait_until(lambda: state_of(vertex, "3000") == "CANCELLED", 60)
    assert list(vertex.custom_jobs.all) == ["3000"]
