"""Clusters as custom jobs: worker pools, re-attachment, restarts, cancellation, with processes that train nothing."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import signal
import threading

import pytest
from google.cloud import aiplatform_v1 as vertex_api

from tests.standin.service import Fault
from tests.vertex.conftest import PARENT
from tf_image_classification import cluster, task_log
from tf_image_classification.errors import FlagError, ServiceError, TrainingError, UnavailableError
from tf_image_classification.launch import restarts
from tf_image_classification.launch.job import ClusterShape, Job
from tf_image_classification.storage import paths
from tf_image_classification.vertex import custom_job, machines
from tf_image_classification.vertex.custom_job import CustomJobs

ACCOUNT = "trainer@my-project.iam.gserviceaccount.com"
_RECORD = """
import json, os, pathlib, sys, time
config = json.loads(os.environ.get("TF_CONFIG", '{"task": {"type": "chief", "index": 0}}'))
folder, task = pathlib.Path(sys.argv[1]), config["task"]
(folder / f".{task['type']}-{task['index']}").write_text(json.dumps(config))
(folder / f".{task['type']}-{task['index']}").rename(folder / f"{task['type']}-{task['index']}")
while task["type"] != "chief" or len(list(folder.glob("[a-z]*"))) < int(sys.argv[2]):
    time.sleep(0.02)
"""
# Fails the first time, with the exit code, and succeeds after that.
_FAIL_ONCE = """
import os, pathlib, sys
done = pathlib.Path(sys.argv[1]) / "failed"
if not done.exists():
    done.touch()
    os._exit(int(sys.argv[2]))
"""


@pytest.fixture
def jobs(vertex, monkeypatch) -> CustomJobs:
    monkeypatch.setattr(custom_job, "_POLL_SECS", 0.05)
    monkeypatch.setattr(restarts, "_MAX_PAUSE_SECS", 0.0)
    return CustomJobs("my-project", "europe-west4")


def job_of(folder, source: str, *arguments: object, **shape: object) -> Job:
    command = ["python", "-c", source, str(folder), *map(str, arguments)]
    return Job("train-0123", command, ClusterShape(**{"replicas": 1, "image": "trainer:1", **shape}), str(folder))


def _at(minute: int) -> dt.datetime:
    return dt.datetime(2026, 1, 1, 0, minute, tzinfo=dt.UTC)


def states(vertex) -> list[str]:
    return [job.state.name.removeprefix("JOB_STATE_") for job in vertex.custom_jobs.all.values()]


@pytest.mark.parametrize(
    ("shape", "tasks"),
    [
        ({"replicas": 3}, {"chief-0", "worker-0", "worker-1"}),
        ({"replicas": 1, "parameter_servers": 1}, {"chief-0", "worker-0", "ps-0"}),
        ({"replicas": 2, "evaluator": True}, {"chief-0", "worker-0", "evaluator-0"}),
        ({"replicas": 1, "spot": True}, {"chief-0"}),
    ],
)
def test_each_task_is_told_its_role(jobs, vertex, tmp_path, shape, tasks):
    (folder := tmp_path / "tasks").mkdir()
    jobs.run(job_of(folder, _RECORD, len(tasks), **shape))
    assert {file.name for file in folder.glob("[a-z]*-*")} == tasks
    assert states(vertex) == ["SUCCEEDED"]


def test_a_retried_step_goes_on_with_the_job_that_it_has_started(jobs, vertex, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    job = job_of(tmp_path, _RECORD, 2, replicas=2)
    (tmp_path / "worker-0").touch()
    jobs._create(custom_job.to_message(job))
    jobs.run(job)
    jobs.run(job)
    assert states(vertex) == ["SUCCEEDED"]
    assert "An earlier attempt of this step has started" in caplog.text
    assert "https://console.cloud.google.com/vertex-ai/locations/europe-west4/training/3000?project=my-project" in (
        caplog.text
    )


def test_a_job_whose_accepted_request_got_no_answer_is_not_started_twice(jobs, vertex, tmp_path):
    vertex.faults.append(Fault(503, "POST", "customJobs$", carried_out=True))
    jobs.run(job_of(tmp_path, "pass"))
    assert states(vertex) == ["SUCCEEDED"]


@pytest.mark.parametrize("code", [138, 137])
def test_a_training_that_lost_a_task_goes_on_in_another_job(jobs, vertex, tmp_path, code):
    jobs.run(job_of(tmp_path, _FAIL_ONCE, code))
    assert states(vertex) == ["FAILED", "SUCCEEDED"]


def test_vertex_ai_restarts_all_tasks_when_one_was_lost(jobs, vertex, tmp_path):
    vertex.custom_jobs.restarts = 1
    jobs.run(job_of(tmp_path, _FAIL_ONCE, 139))
    assert states(vertex) == ["SUCCEEDED"]


def test_tasks_wait_longer_for_each_others_machines_than_those_that_are_restarted_one_by_one():
    message = custom_job.to_message(job_of("gs://bucket/clusters/train-0123", "pass", replicas=2))
    for pool in message.job_spec.worker_pool_specs:
        assert {one.name: one.value for one in pool.container_spec.env} == {cluster.JOIN_SECONDS_VARIABLE: "1800"}


@pytest.mark.parametrize(("servers", "all_tasks"), [(0, True), (1, False)])
def test_with_parameter_servers_the_others_go_on_when_a_worker_is_restarted(servers, all_tasks):
    shape = ClusterShape(replicas=2, parameter_servers=servers, image="trainer:1")
    message = custom_job.to_message(Job("train-0123", ["python"], shape, "gs://bucket/clusters/train-0123"))
    assert message.job_spec.scheduling.restart_job_on_worker_restart is all_tasks


def test_the_folder_of_a_tensorboard_is_an_address_also_where_the_training_names_the_mount(monkeypatch):
    monkeypatch.setattr(paths, "_is_mounted", lambda bucket: True)
    shape = ClusterShape(replicas=2, image="trainer:1", tensorboard=f"{PARENT}/tensorboards/7")
    message = custom_job.to_message(Job("train-0123", ["python"], shape, "/gcs/bucket/clusters/train-0123"))
    assert message.job_spec.base_output_directory.output_uri_prefix == "gs://bucket/clusters/train-0123"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ("The replica workerpool1-0 exited with a non-zero status of 138. Termination reason: Error.", True),
        ("Resources are insufficient in region: europe-west4. Try a different region.", True),  # Spot machines too
        ("The replica workerpool0-0 ran out of memory and exited with a non-zero status of 137.", False),
        ("The replica workerpool0-0 exited with a non-zero status of 2.", False),
        ("Internal error occurred for the current attempt", False),
    ],
)
def test_a_training_goes_on_after_what_a_lost_machine_causes(error, retryable):
    assert custom_job.is_retryable(error) is retryable


@pytest.mark.parametrize(("start", "end", "minutes"), [(None, 50, 0), (40, 50, 0), (0, 50, 20)])
def test_the_wait_for_machines_and_for_each_other_is_no_time_in_which_a_job_ran(start, end, minutes):
    started = {} if start is None else {"start_time": _at(start)}
    ended = vertex_api.CustomJob(create_time=_at(0), end_time=_at(end), **started)
    assert custom_job.ran_secs(ended) == 60 * minutes


def test_a_job_that_failed_for_good_is_not_started_again(jobs, vertex, tmp_path, caplog):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "chief-0.json").write_text(
        json.dumps({"start": 1.0, "first": 0, "lines": ["The loss is nan"]})
    )
    with pytest.raises(TrainingError, match=r"custom job failed.*workerpool0-0 exited with a non-zero status of 1"):
        jobs.run(job_of(tmp_path, _FAIL_ONCE, 1))
    assert states(vertex) == ["FAILED"]
    assert "chief-0: The loss is nan" in caplog.text


def test_a_training_that_loses_tasks_again_and_again_fails(jobs, vertex, tmp_path):
    with pytest.raises(TrainingError, match="status of 138"):
        jobs.run(job_of(tmp_path, "raise SystemExit(138)"))
    assert states(vertex) == ["FAILED"] * 11


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_stopped_cancels_its_job(jobs, vertex, tmp_path, number):
    timer = threading.Timer(0.5, os.kill, [os.getpid(), number])
    timer.start()
    with pytest.raises(SystemExit) as ended:
        jobs.run(job_of(tmp_path, "import time; time.sleep(600)", replicas=2))
    assert ended.value.code == 128 + number
    assert states(vertex) == ["CANCELLED"]
    jobs.run(job_of(tmp_path, "pass"))  # it is not re-attached to
    assert states(vertex) == ["CANCELLED", "SUCCEEDED"]


def test_a_job_that_somebody_else_cancels_fails_the_step(jobs, vertex, tmp_path):
    timer = threading.Timer(0.5, jobs._client.cancel_custom_job, kwargs={"name": f"{PARENT}/customJobs/3000"})
    timer.start()
    with pytest.raises(ServiceError, match="was cancelled"):
        jobs.run(job_of(tmp_path, "import time; time.sleep(600)"))


def test_refusals_say_what_is_missing(jobs, vertex, tmp_path):
    job = job_of(tmp_path, "pass")
    message = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus"
    vertex.faults.append(Fault(429, "POST", "customJobs$", message=message))
    with pytest.raises(UnavailableError, match=r"A quota of Vertex AI is used up.*custom_model_training_cpus"):
        jobs.run(job)
    message = "Permission 'aiplatform.customJobs.create' denied"
    vertex.faults.append(Fault(403, "POST", "customJobs$", message=message))
    with pytest.raises(ServiceError, match=r"customJobs\.create.*roles/aiplatform\.user"):
        jobs.run(job)
    assert not states(vertex)


def test_a_job_has_what_its_run_has(monkeypatch):
    monkeypatch.setenv("VERTEX_AI_PIPELINES_RUN_LABELS", '{"team": "vision"}')
    shape = ClusterShape(
        replicas=2,
        parameter_servers=1,
        image="trainer:1",
        cpu="8",
        memory="32G",
        accelerator="NVIDIA_TESLA_T4:2",
        spot=True,
        service_account=ACCOUNT,
        network="projects/1/global/networks/n",
        encryption_key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
        tensorboard=f"{PARENT}/tensorboards/7",
    )
    message = custom_job.to_message(Job("train-0123", ["python"], shape, "gs://bucket/clusters/train-0123"))
    spec = message.job_spec
    assert dict(message.labels) == {"team": "vision", "training": "train-0123"}
    assert (spec.service_account, spec.network, spec.tensorboard) == (ACCOUNT, shape.network, shape.tensorboard)
    assert spec.base_output_directory.output_uri_prefix == "gs://bucket/clusters/train-0123"
    assert message.encryption_spec.kms_key_name == shape.encryption_key
    assert spec.scheduling.strategy.name == "SPOT"
    machines_of_pools = [
        (pool.replica_count, pool.machine_spec.machine_type, pool.machine_spec.accelerator_count)
        for pool in spec.worker_pool_specs
    ]
    # The chief only coordinates, and parameter servers compute nothing: neither gets the accelerators.
    assert machines_of_pools == [(1, "e2-standard-8", 0), (2, "n1-highmem-8", 2), (1, "e2-standard-8", 0)]


@pytest.mark.parametrize(
    ("asked", "machine"),
    [
        ((), "e2-standard-4"),
        (("8",), "e2-standard-8"),
        (("500m", "20G"), "e2-highmem-4"),
        (("96", "624G"), "n1-highmem-96"),
        (("", "", "NVIDIA_TESLA_T4:1"), "n1-standard-4"),
        (("32", "", "NVIDIA_TESLA_T4:2"), "n1-standard-32"),
        (("", "", "NVIDIA_L4:2"), "g2-standard-24"),
        (("", "", "NVIDIA_TESLA_A100:8"), "a2-highgpu-8g"),
        (("208", "1800G", "NVIDIA_H100_80GB:8"), "a3-highgpu-8g"),
    ],
)
def test_a_task_gets_the_smallest_machine_that_has_what_is_asked_for(asked, machine):
    assert machines.machine_type(*asked) == machine


@pytest.mark.parametrize(
    "asked",
    [
        ("97",),
        ("", "700G"),
        ("32", "", "NVIDIA_TESLA_T4:1"),
        ("", "", "NVIDIA_L4:3"),
        ("64", "", "NVIDIA_TESLA_P100:4"),
        ("", "", "NVIDIA_TESLA_K80:1"),
        ("", "", "NVIDIA_GB200:4"),
    ],
)
def test_a_machine_that_there_is_not_is_refused(asked):
    with pytest.raises(FlagError, match="has no such machine"):
        machines.machine_type(*asked)


def test_the_end_of_a_tasks_log_is_shown_line_by_line(tmp_path):
    reader = task_log.Reader(str(tmp_path), "chief-0")
    log = logging.getLogger("task")
    assert reader.new_lines() == []
    with pytest.raises(FlagError), task_log.keeping(str(tmp_path), "chief-0"):
        for number in range(150):
            log.warning("step %d", number)
        raise FlagError("Something is wrong")
    lines = reader.new_lines()
    assert len(lines) == 100 and "step 149" in lines[-2] and "Something is wrong" in lines[-1]
    assert reader.new_lines() == []
    with task_log.keeping(str(tmp_path), "chief-0"):  # the task was started again
        log.warning("step 0")
    assert [line.partition(" W ")[2] for line in reader.new_lines()] == ["step 0"]
