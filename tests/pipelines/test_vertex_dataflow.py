"""A pipeline compiled with --build_runner dataflow on Vertex AI: its build step launches a job, and takes it along.

What the job builds is tested with Apache Beam, in tests/dataflow.
"""

from __future__ import annotations

import pytest

from tests.pipelines.test_vertex_cluster import logs, photos, steps_of, wait_until
from tests.standin.dataflow import Dataflow
from tf_image_classification.dataflow.client import ENDPOINT_VARIABLE

__all__ = ["photos"]
pytestmark = pytest.mark.slow
_ACCOUNT = "trainer@my-project.iam.gserviceaccount.com"


@pytest.fixture
def dataflow(vertex, tmp_path):
    """Dataflow, to which the steps of Vertex AI's runs find their way."""
    service = Dataflow(tmp_path)
    service.start()
    vertex.pipeline_jobs.accounts = {_ACCOUNT}
    vertex.runner.environment[ENDPOINT_VARIABLE] = service.url
    vertex.runner.first_lines = ["from tests.dataflow import without_beam", "without_beam.install()"]
    yield service
    service.stop()


def test_a_build_step_that_is_killed_goes_on_with_its_job_which_ends_with_the_run(pipelines, vertex, dataflow, photos):
    words = ("--pipeline_root", "gs://bucket/runs", "--train_metadata", "gs://bucket/photos", "--retries", "1")
    words += ("--build_runner", "dataflow", "--service_account", _ACCOUNT)
    submitted = pipelines("submit", "--run_id", "first", *words)
    assert submitted.returncode == 0, submitted.stderr
    log = vertex.runner.folder / "logs" / "first.log"
    wait_until(lambda: "The job is RUNNING" in log.read_text(), 100)
    (step,) = steps_of(vertex, "first")
    step.kill()
    wait_until(lambda: log.read_text().count("The job is RUNNING") == 2)
    assert "An earlier attempt of this step has started the job" in log.read_text()
    assert pipelines("runs", "cancel", "first").returncode == 0
    wait_until(lambda: dataflow.states() == ["CANCELLED"], 60)
    vertex.join()
    ((job_id, job),) = dataflow.jobs.items()
    assert (job["projectId"], job["location"]) == ("my-project", "europe-west4"), logs(vertex, "first")
    assert job["environment"]["serviceAccountEmail"] == _ACCOUNT
    (pool,) = job["environment"]["workerPools"]
    assert "/team/beam:" in pool["workerHarnessContainerImage"]
    assert job["environment"]["tempStoragePrefix"].startswith("storage.googleapis.com/bucket/runs/")
    assert f"https://console.cloud.google.com/dataflow/jobs/europe-west4/{job_id}?project=my-project" in log.read_text()
