"""The build step as its container runs it, with Beam and a job that is executed on this machine: `make test-beam`."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.build_tfrecords.support import digests
from tests.conftest import REPOSITORY
from tests.standin.dataflow import Dataflow
from tests.standin.service import Fault
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.dataflow.client import ENDPOINT_VARIABLE
from tf_image_classification.dataflow.options import DataflowOptions

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test-beam installs it")

OPTIONS = DataflowOptions(
    image="registry.test/team/beam:1",
    region="europe-west4",
    max_workers=7,
    machine_type="n2-standard-4",
    network="builders",
    subnetwork="regions/europe-west4/subnetworks/builders",
)
FINGERPRINT = "f" * 64
RUN = {
    "project": "my-project",
    "location": "us-central1",
    "service_account": "trainer@my-project.iam.gserviceaccount.com",
    "encryption_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
}
# Beam takes no address with a port; the service's own has none.
_STEP = """
import json, sys
from apache_beam.options import pipeline_options_validator
pipeline_options_validator.PipelineOptionsValidator.validate_endpoint_url = lambda *_: True
from kfp import dsl
from components.build_dataflow.component import build_tfrecords
from tf_image_classification.dataflow import job
given = json.loads(sys.argv[1])
job._POLL_SECS = given.pop("poll_secs")
data = dsl.Dataset(uri=given.pop("uri"))
build_tfrecords.python_func(data=data, statistics=dsl.HTML(uri=given.pop("page")), **given)
print(json.dumps(data.metadata))
"""


@pytest.fixture(scope="module")
def photos(storage_url) -> str:
    """60 pictures and one that cannot be read, in the bucket."""
    os.environ["STORAGE_EMULATOR_HOST"] = storage_url
    for number in range(60):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 4, 0, 0)).save(file, "PNG")
        storage.write_bytes(f"gs://bucket/photos/{'cat' if number % 2 else 'dog'}/{number}.png", file.getvalue())
    storage.write_bytes("gs://bucket/photos/cat/bad.png", b"no image")
    return "gs://bucket/photos"


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory) -> dict[str, str]:
    """What this machine builds."""
    folder = tmp_path_factory.mktemp("expected") / "data"
    build_tfrecords.build(photos, str(folder), fingerprint=FINGERPRINT)
    return digests(folder)


@pytest.fixture
def service(tmp_path, storage_url, monkeypatch) -> Iterator[Dataflow]:
    """Dataflow, which executes jobs."""
    started = Dataflow(tmp_path, storage_url, executes=True)
    started.start()
    monkeypatch.setenv(ENDPOINT_VARIABLE, started.url)
    yield started
    started.stop()


class Step:
    """Starts attempts of one step of one run, whose outputs Kubeflow gives a folder for each attempt."""

    def __init__(self, photos: str, folder: Path) -> None:
        self.task = f"gs://bucket/runs/{uuid.uuid4().hex}/build-tfrecords"
        self._photos, self._folder = photos, folder

    def start(self, run: Mapping[str, str] = RUN, poll_secs: float = 0.1, **changes: object) -> subprocess.Popen:
        """Starts an attempt, with changed inputs of the step; the attribute `uri` is where its data set goes."""
        self.uri = f"{self.task}/{uuid.uuid4()}/data"
        given = {
            "uri": self.uri,
            "page": str(self._folder / "page.html"),
            "poll_secs": poll_secs,
            "train_metadata": self._photos,
            "fingerprint": FINGERPRINT,
            "dataflow": OPTIONS.to_json(),
            **run,
            **changes,
        }
        return subprocess.Popen(
            [sys.executable, "-c", _STEP, json.dumps(given)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "VERTEX_AI_PIPELINES_RUN_LABELS": '{"team": "vision"}'},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def written(self, folder: Path) -> dict[str, str]:
        """The digests of the data set of the last attempt."""
        storage.fetch_dir(self.uri, str(folder))
        return digests(folder)

    def left(self) -> list[str]:
        """The files of the step that are not in the data set of the last attempt."""
        found = (file.path for file in storage.walk(self.task))
        return [path for path in found if not path.startswith(f"{self.uri}/")]


@pytest.fixture
def step(photos, tmp_path) -> Step:
    return Step(photos, tmp_path)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def end_of(process: subprocess.Popen) -> tuple[int, str, str]:
    """The exit code, what was printed, and the log."""
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def test_the_job_is_what_the_options_say_and_its_data_set_that_of_one_machine(service, step, expected, tmp_path):
    code, stdout, log = end_of(step.start())
    assert code == 0, log
    assert step.written(tmp_path / "data") == expected
    assert json.loads(stdout.splitlines()[-1]) == {
        "train_examples": 47, "eval_examples": 13, "duplicates_across_splits": 0, "duplicates_with_other_labels": 0,
        "fingerprint": FINGERPRINT, "rejected": 1,
    }  # fmt: skip
    assert (tmp_path / "page.html").read_text() == storage.read_text(f"{step.uri}/statistics.html")
    assert step.left() == []
    ((job_id, job),) = service.jobs.items()
    environment, (pool,) = job["environment"], job["environment"]["workerPools"]
    options = environment["sdkPipelineOptions"]["options"]
    assert pool["workerHarnessContainerImage"] == OPTIONS.image
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [OPTIONS.image]
    assert (pool["machineType"], pool["autoscalingSettings"]["maxNumWorkers"]) == ("n2-standard-4", 7)
    assert (pool["network"], pool["subnetwork"]) == (OPTIONS.network, OPTIONS.subnetwork)
    assert (environment["serviceAccountEmail"], environment["serviceKmsKeyName"]) == (
        RUN["service_account"],
        RUN["encryption_key"],
    )
    assert not pool.get("packages"), "the image has all that the workers need"
    folder = f"{step.task}/dataflow/{job['name']}"
    assert options["pipelineUrl"].startswith(f"{folder}/temp/")
    assert environment["tempStoragePrefix"].startswith(f"storage.googleapis.com/{folder.removeprefix('gs://')}/temp/")
    assert (job["projectId"], job["location"], job["labels"]) == ("my-project", "europe-west4", {"team": "vision"})
    assert f"https://console.cloud.google.com/dataflow/jobs/europe-west4/{job_id}?project=my-project" in log
    assert "Dataflow: Worker configuration" in log


@pytest.mark.parametrize("when", ["while it runs", "after its end"])
def test_a_step_that_is_killed_and_retried_goes_on_with_its_job(service, step, expected, tmp_path, when, monkeypatch):
    runs = threading.Event()
    if when == "while it runs":
        execute = service._execute
        monkeypatch.setattr(service, "_execute", lambda job_id: (runs.wait(60), execute(job_id)))
    first = step.start(poll_secs=60)
    wait_until(lambda: service.states() == (["RUNNING"] if when == "while it runs" else ["DONE"]))
    time.sleep(0.3)  # the step follows it
    first.kill()
    end_of(first)
    second = step.start()
    time.sleep(1)
    runs.set()
    code, _, log = end_of(second)
    assert code == 0, log
    assert "An earlier attempt of this step has started the job" in log
    assert service.states() == ["DONE"]
    assert step.written(tmp_path / "data") == expected
    assert step.left() == []


@pytest.mark.parametrize("seconds", [0.3, 0.0])
def test_a_step_that_is_stopped_cancels_its_job(service, step, seconds, monkeypatch):
    monkeypatch.setattr(service, "_execute", lambda job_id: None)
    process = step.start()
    wait_until(lambda: service.states() == ["RUNNING"])
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    code, _, log = end_of(process)
    assert code == 128 + signal.SIGTERM, log
    assert service.states() == ["CANCELLED"]
    assert step.left() == [] and not storage.exists(f"{step.uri}/manifest.json")


def test_a_retried_step_that_is_stopped_while_it_lists_the_images_cancels_the_job(service, step, monkeypatch):
    monkeypatch.setattr(service, "_execute", lambda job_id: None)
    first = step.start()
    wait_until(lambda: service.states() == ["RUNNING"])
    first.kill()
    end_of(first)
    second = step.start(poll_secs=60)
    for line in second.stderr:
        if "An earlier attempt" in line:
            break
    second.send_signal(signal.SIGTERM)
    end_of(second)
    assert second.returncode == 128 + signal.SIGTERM and service.states() == ["CANCELLED"]


def test_a_job_that_fails_is_one_error_and_the_next_attempt_starts_another(service, step, monkeypatch):
    execute = service._execute
    monkeypatch.setattr(service, "_execute", lambda job_id: service.finish(job_id, "FAILED", "No quota for 7 workers"))
    code, _, log = end_of(step.start())
    assert code == 1
    assert "The build's Dataflow job failed. Received: No quota for 7 workers. Its page has the logs" in log
    assert "Traceback" not in log and step.left() == []
    monkeypatch.setattr(service, "_execute", execute)
    code, _, log = end_of(step.start())
    assert code == 0, log
    assert service.states() == ["FAILED", "DONE"]


def test_images_that_changed_since_the_job_was_started_end_it(service, step, monkeypatch):
    monkeypatch.setattr(service, "_execute", lambda job_id: None)
    first = step.start(poll_secs=60)
    wait_until(lambda: service.states() == ["RUNNING"])
    first.kill()
    end_of(first)
    storage.write_bytes("gs://bucket/photos/cat/new.png", b"no image")
    code, _, log = end_of(step.start())
    storage.delete("gs://bucket/photos/cat/new.png")
    assert code == 1 and "The images are others than those of the job that an earlier attempt has started" in log
    assert service.states() == ["CANCELLED"]


def test_a_job_that_cannot_be_cancelled_keeps_its_files_and_the_next_attempt_goes_on_with_it(
    service, step, expected, tmp_path, monkeypatch
):
    runs = threading.Event()
    execute = service._execute
    monkeypatch.setattr(service, "_execute", lambda job_id: (runs.wait(60), execute(job_id)))
    service.faults += [
        Fault(403, "GET", "/jobs/[^/]+$", message="No permission for a while"),
        Fault(403, "PUT", message="No permission for a while"),
    ]
    code, _, log = end_of(step.start())
    assert code == 1 and "may still run: Dataflow does not let this account cancel the job" in log
    assert service.states() == ["RUNNING"] and step.left()
    second = step.start()
    runs.set()
    code, _, log = end_of(second)
    assert code == 0, log
    assert service.states() == ["DONE"]
    assert step.written(tmp_path / "data") == expected
    assert step.left() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uri": "minio://mlpipeline/runs/data"}, "Expected: a pipeline root on gs://"),
        ({"run": RUN | {"location": "{{$.pipeline_google_cloud_location}}"}, "dataflow": '{"image": "a"}'}, "region"),
        ({"train_metadata": str(REPOSITORY / "tests")}, "Dataflow's workers do not have the disk of this machine"),
    ],
)
def test_what_dataflow_cannot_do_is_refused_before_a_job_is_started(service, step, changes, message):
    code, _, log = end_of(step.start(**changes))
    assert code == 2 and message in " ".join(log.split()), log
    assert not service.jobs
