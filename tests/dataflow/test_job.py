"""A job of Dataflow is followed, found again and cancelled; its errors are told. The test sends what Beam would."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import google.auth
import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import AuthorizedSession

from tests.standin.dataflow import ACTIVE
from tests.standin.service import Fault
from tf_image_classification import storage
from tf_image_classification.build_tfrecords import beam_runner
from tf_image_classification.dataflow import build_step, client
from tf_image_classification.dataflow import job as job_module
from tf_image_classification.dataflow.client import Jobs
from tf_image_classification.dataflow.job import DataflowJob
from tf_image_classification.errors import FlagError, ServiceError, UnavailableError

NAME = "build-tfrecords-0123"
PAGE = "https://console.cloud.google.com/dataflow/jobs/europe-west4/{}?project=my-project"


@pytest.fixture(autouse=True)
def _fast(monkeypatch, caplog):
    monkeypatch.setattr(job_module, "_POLL_SECS", 0.02)
    caplog.set_level(logging.INFO)


@pytest.fixture
def folder() -> str:
    return f"gs://bucket/jobs/{uuid.uuid4().hex}"


@pytest.fixture
def attempt(dataflow, folder) -> Callable[[], DataflowJob]:
    """Makes the job as an attempt of the step does, which writes down its images before it starts the job."""

    def make() -> DataflowJob:
        job = DataflowJob(Jobs("my-project", "europe-west4"), NAME, folder)
        if not job.is_started():
            storage.write_text(beam_runner.marker(folder), "0" * 64)
        return job

    return make


def start(service, name: str = NAME, **changes: Any) -> SimpleNamespace:
    """Creates a job, as Beam does; returns what Beam would."""
    body = {
        "name": name,
        "type": "JOB_TYPE_BATCH",
        "clientRequestId": uuid.uuid4().hex,
        "environment": {
            "tempStoragePrefix": "storage.googleapis.com/bucket/temp",
            "sdkPipelineOptions": {"options": {"pipelineUrl": "gs://bucket/temp/pipeline.pb"}},
            "workerPools": [{"workerHarnessContainerImage": "beam:1"}],
        },
        **changes,
    }
    url = f"{service.url}/v1b3/projects/my-project/locations/europe-west4/jobs"
    answer = requests.post(url, json=body, timeout=10)
    if not answer.ok:
        raise client.exceptions.from_http_response(answer)
    return SimpleNamespace(job_id=lambda: answer.json()["id"])


def soon(function: Callable[[], object], seconds: float = 0.3) -> None:
    threading.Timer(seconds, function).start()


def newest(service) -> str:
    return list(service.jobs)[-1]


def test_a_job_is_followed_to_its_end_with_its_page_and_its_messages(dataflow, attempt, caplog):
    def create() -> SimpleNamespace:
        made = start(dataflow)
        for text in ("Starting 3 workers", "Autoscaling"):
            dataflow.say(made.job_id(), text)
        dataflow.say(made.job_id(), "a detail", "DETAILED")
        dataflow.say(made.job_id(), "slow disks", "WARNING")
        soon(lambda: dataflow.finish(made.job_id(), "DONE"))
        return made

    assert attempt().run(create) == "DONE"
    shown = [record.message for record in caplog.records]
    assert f"Dataflow job: {PAGE.format(newest(dataflow))}" in shown
    assert [text for text in shown if text.startswith("The job is")] == ["The job is RUNNING", "The job is DONE"]
    told = [(record.levelname, record.message) for record in caplog.records if record.message.startswith("Dataflow: ")]
    assert told[1:] == [
        ("INFO", "Dataflow: Starting 3 workers"),
        ("INFO", "Dataflow: Autoscaling"),
        ("WARNING", "Dataflow: slow disks"),
    ]


@pytest.mark.parametrize("state", ["RUNNING", "DONE"])
def test_the_next_attempt_goes_on_with_the_job_and_starts_none(dataflow, attempt, state, caplog):
    attempt()
    for name in ("other-1", "other-2", "other-3", NAME, f"{NAME}4"):
        start(dataflow, name)
    job_id = list(dataflow.jobs)[3]
    if state == "DONE":
        dataflow.finish(job_id, "DONE")
    else:
        soon(lambda: dataflow.finish(job_id, "DONE"))
    again = attempt()
    assert again.is_started()
    assert again.run(lambda: pytest.fail("a second job")) == "DONE"
    assert len(dataflow.jobs) == 5
    assert f"An earlier attempt of this step has started the job {job_id}" in caplog.text


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_job_without_results_is_replaced(dataflow, attempt, state):
    attempt()
    dataflow.finish(start(dataflow).job_id(), state)
    again = attempt()
    assert not again.is_started()
    soon(lambda: dataflow.finish(newest(dataflow), "DONE"))
    assert again.run(lambda: start(dataflow)) == "DONE"
    assert dataflow.states() == [state, "DONE"]


def test_a_job_whose_results_are_deleted_in_part_is_replaced(dataflow, attempt, folder):
    dataflow.finish(start(dataflow).job_id(), "DONE")
    assert not DataflowJob(Jobs("my-project", "europe-west4"), NAME, folder).is_started()


def test_a_job_that_runs_without_its_files_is_cancelled_and_replaced(dataflow, attempt, folder):
    attempt()
    start(dataflow)
    storage.delete(beam_runner.marker(folder))
    again = attempt()
    assert dataflow.states() == ["CANCELLED"]
    soon(lambda: dataflow.finish(newest(dataflow), "DONE"))
    assert again.run(lambda: start(dataflow)) == "DONE"


def test_a_job_that_is_being_cancelled_is_waited_for_since_its_name_is_taken(dataflow, attempt):
    dataflow.cancel_secs = 0.5
    Jobs("my-project", "europe-west4").cancel(start(dataflow).job_id())
    with pytest.raises(client.exceptions.Conflict, match="already an active job named"):
        start(dataflow)
    job = attempt()
    soon(lambda: dataflow.finish(newest(dataflow), "DONE"))
    assert job.run(lambda: start(dataflow)) == "DONE"
    assert dataflow.states() == ["CANCELLED", "DONE"]


def test_a_job_whose_request_got_no_answer_is_found(dataflow, attempt):
    def lose() -> SimpleNamespace:
        soon(lambda: dataflow.finish(newest(dataflow), "DONE"))
        dataflow.faults.append(Fault(503, "POST", "jobs$", carried_out=True))
        return start(dataflow)

    assert attempt().run(lose) == "DONE"
    assert dataflow.states() == ["DONE"]


def test_a_job_that_is_refused_is_an_error_that_says_why(dataflow, attempt):
    with pytest.raises(FlagError, match=r"Dataflow refuses to start a job\. Received: .*Invalid label"):
        attempt().run(lambda: start(dataflow, labels={"Team": "vision"}))
    dataflow.faults.append(Fault(403, "POST", message="Missing permission dataflow.jobs.create"))
    with pytest.raises(ServiceError, match=r"Missing permission dataflow\.jobs\.create\. Ask for roles/dataflow"):
        attempt().run(lambda: start(dataflow))


def test_a_job_that_failed_is_one_error_with_its_last_messages_and_its_page(dataflow, attempt):
    traceback = "Traceback (most recent call last):\n  File x, line 1\nOSError: disk full [while running 'Check']\n"

    def create() -> SimpleNamespace:
        made = start(dataflow)
        for number in range(4):
            dataflow.say(made.job_id(), f"Error {number}", "ERROR")
        soon(lambda: dataflow.finish(made.job_id(), "FAILED", traceback, "Workflow failed."))
        return made

    with pytest.raises(ServiceError) as failed:
        attempt().run(create)
    assert str(failed.value) == (
        "The build's Dataflow job failed. Received: Error 3; OSError: disk full [while running 'Check']; Workflow "
        f"failed. Its page has the logs of its workers: {PAGE.format(newest(dataflow))}."
    )


def test_the_reason_of_a_failure_may_come_after_it(dataflow, attempt):
    def create() -> SimpleNamespace:
        made = start(dataflow)
        dataflow.finish(made.job_id(), "FAILED")
        soon(lambda: dataflow.say(made.job_id(), "No quota for 50 workers", "ERROR"))
        return made

    with pytest.raises(ServiceError, match="Received: No quota for 50 workers"):
        attempt().run(create)


def test_a_job_that_somebody_cancels_is_an_error_that_names_it(dataflow, attempt):
    soon(lambda: Jobs("my-project", "europe-west4").cancel(newest(dataflow)))
    with pytest.raises(ServiceError, match=r"The build's Dataflow job was cancelled\. Received: https://console"):
        attempt().run(lambda: start(dataflow))


def test_a_signal_cancels_the_job_and_waits_for_its_end(dataflow, attempt):
    soon(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        attempt().run(lambda: start(dataflow))
    assert ended.value.code == 128 + signal.SIGTERM
    assert dataflow.states() == ["CANCELLED"]


def test_the_first_request_after_a_signal_cancels_the_job(dataflow, attempt, monkeypatch):
    monkeypatch.setattr(job_module, "_POLL_SECS", 60)
    asked = []

    def stop() -> None:
        asked.extend(dataflow.requests)
        os.kill(os.getpid(), signal.SIGTERM)

    soon(stop)
    with pytest.raises(SystemExit):
        attempt().run(lambda: start(dataflow))
    assert dataflow.requests[len(asked)].startswith("PUT ")


def test_a_signal_while_the_job_is_created_cancels_it_too(dataflow, attempt):
    def create() -> SimpleNamespace:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(dataflow)

    with pytest.raises(SystemExit):
        attempt().run(create)
    assert dataflow.states() == ["CANCELLED"]


def test_a_job_that_ends_before_it_is_cancelled_is_left_alone(dataflow, attempt):
    job = attempt()
    dataflow.finish(start(dataflow).job_id(), "DONE")
    assert job.cancel()
    assert dataflow.states() == ["DONE"] and not [one for one in dataflow.requests if one.startswith("PUT")]


def test_a_job_that_cannot_be_cancelled_may_still_run_and_the_log_says_so(dataflow, attempt, caplog):
    job = attempt()
    start(dataflow)
    dataflow.faults.append(Fault(403, "PUT", message="Missing permission dataflow.jobs.cancel"))
    assert not job.cancel()
    assert "may still run: Dataflow does not let this account cancel the job" in caplog.text
    assert job.cancel() and dataflow.states() == ["CANCELLED"]


def test_a_service_that_is_silent_for_a_while_is_waited_for_and_then_named(dataflow, attempt, monkeypatch, caplog):
    monkeypatch.setattr(client, "RETRY", lambda call: call)
    soon(lambda: dataflow.finish(newest(dataflow), "DONE"), 0.5)

    def create() -> SimpleNamespace:
        made = start(dataflow)
        dataflow.faults.append(Fault(503, "GET", made.job_id(), times=3))
        return made

    assert attempt().run(create) == "DONE"
    assert caplog.text.count("Dataflow did not answer") == 3

    monkeypatch.setattr(job_module, "_MAX_SILENCE_SECS", 0.1)
    dataflow.jobs[newest(dataflow)]["currentState"] = "JOB_STATE_RUNNING"
    dataflow.faults.append(Fault(503, "GET", f"{newest(dataflow)}$", times=100))
    with pytest.raises(UnavailableError, match="Dataflow did not answer; cannot show the job"):
        attempt().run(lambda: pytest.fail("a second job"))
    assert dataflow.states() == ["RUNNING"], "the next attempt goes on with it"


def test_an_answer_that_is_a_proxys_page_is_named_and_the_job_is_waited_for(dataflow, attempt, monkeypatch, caplog):
    request = requests.Session.request
    pages = iter(["<html>Sign in</html>", "[]"])

    def through_a_proxy(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        answer = request(session, method, url, **options)
        if url.endswith(newest(dataflow)) and (page := next(pages, None)) is not None:
            answer._content = page.encode()
        return answer

    def create() -> SimpleNamespace:
        made = start(dataflow)
        monkeypatch.setattr(requests.Session, "request", through_a_proxy)
        soon(lambda: dataflow.finish(made.job_id(), "DONE"))
        return made

    assert attempt().run(create) == "DONE"
    assert "The answer is not that of Dataflow; cannot show the job" in caplog.text
    assert "Received: <html>Sign in</html>. Expected: JSON. Does a proxy" in caplog.text


def test_a_request_is_repeated(dataflow):
    start(dataflow)
    dataflow.faults.append(Fault(503, "GET", "jobs$"))
    began = time.monotonic()
    (job,) = Jobs("my-project", "europe-west4").named(NAME)
    assert job["currentState"] in ACTIVE and time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", []),
        ("https://dataflow-mine.p.googleapis.com/", ["--dataflow_endpoint=https://dataflow-mine.p.googleapis.com"]),
        ("http://localhost:8080/", ["--dataflow_endpoint=http://localhost:8080", "--no_auth"]),
    ],
)
def test_beam_creates_a_job_at_the_address_where_it_is_followed(monkeypatch, address, expected):
    monkeypatch.setenv(client.ENDPOINT_VARIABLE, address)
    monkeypatch.setattr(google.auth, "default", lambda scopes: (AnonymousCredentials(), None))
    words = list(build_step._words("my-project", NAME, "gs://bucket/jobs", ""))
    assert [word for word in words if word.startswith(("--dataflow_endpoint", "--no_auth"))] == expected
    jobs = Jobs("my-project", "europe-west4")
    assert jobs._url.startswith(address or "https://dataflow.googleapis.com/")
    assert isinstance(jobs._session, AuthorizedSession) == (not address.startswith("http://"))


def test_requests_without_an_address_of_this_machine_need_credentials_and_a_project(monkeypatch):
    monkeypatch.delenv(client.ENDPOINT_VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", lambda scopes: (object(), None))
    with pytest.raises(FlagError, match=r"not known in which Google Cloud project.*GOOGLE_CLOUD_PROJECT"):
        Jobs("", "europe-west4")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (object(), "from-credentials"))
    assert Jobs("", "europe-west4").project == "from-credentials"
    assert Jobs("given", "europe-west4").project == "given"

    def none(scopes: list[str]) -> None:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(ServiceError, match="credentials"):
        Jobs("given", "europe-west4")
