"""A failed run sends one notification, for people and for programs, and no secret of a URL is logged."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.wrappers import Request

from tests.standin.service import Fault, Service
from tf_image_classification.errors import FlagError, ServiceError, UserError
from tf_image_classification.promotion.notify import notify

HOOK = "/hooks/T0-secret?key=s3cret"
TOPIC = "projects/my-project/topics/failed-runs"
FAILED = {
    "state": "FAILED",
    "pipeline_job_resource_name": "projects/123/locations/europe-west4/pipelineJobs/weekly-1",
    "pipeline_task_name": "train",
    "error_code": 9,
    "error_message": "The DAG failed because some tasks failed. The failed tasks are: [train].",
}
LINK = "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/weekly-1?project=123"


class Listener(Service):
    """A webhook and Pub/Sub's publish method, which keep the notifications."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        super().__init__()

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("POST", "/hooks/<name>", self._keep),
            ("POST", "/v1/projects/<project>/topics/<topic>:publish", self._keep),
        ]

    def _keep(self, request: Request, **_: str) -> dict[str, Any]:
        self.received.append(json.loads(request.data))
        return {}


@pytest.fixture
def listener():
    service = Listener()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def topic(listener, monkeypatch) -> str:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", listener.url.removeprefix("http://"))
    return TOPIC


def test_a_webhook_is_notified_of_a_failed_run(listener):
    assert notify(listener.url + HOOK, FAILED, "weekly-1")
    (received,) = listener.received
    assert received == {
        "text": f"The run weekly-1 ended as FAILED.\n{FAILED['error_message']}\n{LINK}",
        "state": "FAILED",
        "run": "weekly-1",
        "task": "train",
        "error": FAILED["error_message"],
        "error_code": 9,
        "link": LINK,
    }


def test_an_emulated_topic_is_notified_of_a_failed_run_without_credentials(listener, topic):
    assert notify(topic, FAILED, "weekly-1")
    (message,) = listener.received[0]["messages"]
    assert message["attributes"] == {"state": "FAILED", "run": "weekly-1"}
    assert json.loads(base64.b64decode(message["data"]))["error"] == FAILED["error_message"]
    assert not listener.saw_credentials


def test_a_run_of_another_service_has_no_link(listener):
    notify(listener.url + HOOK, {"state": "FAILED", "pipeline_job_resource_name": "a1b2"}, "nightly")
    assert listener.received[0]["text"] == "The run nightly ended as FAILED."


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE", "CACHED", "RUNNING"])
def test_a_run_that_succeeded_in_the_terms_of_any_service_sends_no_notification(listener, state):
    assert not notify(listener.url + HOOK, FAILED | {"state": state}, "weekly-1")
    assert not listener.requests


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELED"])
def test_a_cancelled_run_sends_a_notification(listener, state):
    assert notify(listener.url + HOOK, FAILED | {"state": state}, "weekly-1")


@pytest.mark.parametrize("code", [503, 500, 429])
def test_a_listener_that_is_unavailable_is_notified_again(listener, code):
    listener.faults.append(Fault(code))
    assert notify(listener.url + HOOK, FAILED, "weekly-1")
    assert len(listener.received) == 1


@pytest.mark.parametrize("code", [400, 403, 404, 302])
def test_a_refused_notification_is_an_error_that_names_only_the_host(listener, code, caplog):
    listener.faults.append(Fault(code))
    with caplog.at_level(logging.DEBUG, "tf_image_classification"), pytest.raises(ServiceError) as failed:
        notify(listener.url + HOOK, FAILED, "weekly-1")
    message = str(failed.value)
    assert "Cannot notify http://127.0.0.1 of the run weekly-1" in message and str(code) in message
    assert "secret" not in message + caplog.text and "s3cret" not in message + caplog.text


def test_a_host_that_cannot_be_reached_is_an_error_that_names_only_the_host():
    with pytest.raises(ServiceError, match=r"Cannot notify http://127\.0\.0\.1 of") as failed:
        notify(f"http://127.0.0.1:1{HOOK}", FAILED, "weekly-1")
    assert "secret" not in str(failed.value) and failed.value.__suppress_context__


def test_a_notification_is_logged_without_the_secret(listener, caplog):
    with caplog.at_level(logging.INFO, "tf_image_classification"):
        notify(listener.url + HOOK, FAILED, "weekly-1")
    assert "http://127.0.0.1" in caplog.text and "secret" not in caplog.text


def test_a_topic_that_is_missing_or_forbidden_is_an_error_that_names_it(listener, topic):
    for code, message in ((404, "not found"), (403, r"roles/pubsub\.publisher")):
        listener.faults.append(Fault(code))
        with pytest.raises(UserError, match=f"publish to {TOPIC}.*{message}"):
            notify(topic, FAILED, "weekly-1")


def test_a_topic_cannot_be_notified_without_credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ServiceError, match="no usable Google Cloud credentials"):
        notify(TOPIC, FAILED, "weekly-1")


WRONG = [
    "https://user:password@example.com/hook",
    "ftp://example.com",
    "failed-runs",
    "projects/p/topics/",
    "https:///hook",
    "http://[",
    "",
]


@pytest.mark.parametrize("destination", WRONG)
def test_an_invalid_destination_is_refused_even_when_there_is_nothing_to_notify_of(destination):
    with pytest.raises(FlagError, match="projects/PROJECT/topics/TOPIC") as refused:
        notify(destination, FAILED | {"state": "SUCCEEDED"}, "weekly-1")
    assert "password@" not in str(refused.value)
