"""A failed run sends one notification, for people and for programs, and no secret of a URL is logged."""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import socket
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.wrappers import Request

from tests.standin.service import Fault, Service
from tf_image_classification.errors import FlagError, ServiceError, UserError
from tf_image_classification.promotion import webhooks
from tf_image_classification.promotion.notify import check, notify

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
    assert notify(listener.url + HOOK, FAILED, "weekly-1", insecure=True)
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
    notify(listener.url + HOOK, {"state": "FAILED", "pipeline_job_resource_name": "a1b2"}, "nightly", insecure=True)
    assert listener.received[0]["text"] == "The run nightly ended as FAILED."


def test_a_run_that_succeeded_sends_no_notification(listener):
    assert not notify(listener.url + HOOK, FAILED | {"state": "SUCCEEDED"}, "weekly-1", insecure=True)
    assert not listener.requests


def test_a_state_that_tells_neither_success_nor_failure_is_reported_as_such(listener):
    assert notify(listener.url + HOOK, FAILED | {"state": "RUNNING", "error_message": ""}, "weekly-1", insecure=True)
    (received,) = listener.received
    assert received["state"] == "UNKNOWN"
    assert received["error"] == "Its status is RUNNING, which does not tell."


def test_a_run_without_a_name_has_that_of_its_resource(listener):
    notify(listener.url + HOOK, FAILED, "", insecure=True)
    assert listener.received[0]["run"] == "weekly-1"


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELED"])
def test_a_cancelled_run_sends_a_notification(listener, state):
    assert notify(listener.url + HOOK, FAILED | {"state": state}, "weekly-1", insecure=True)


@pytest.mark.parametrize("code", [503, 500, 429])
def test_a_listener_that_is_unavailable_is_notified_again(listener, code):
    listener.faults.append(Fault(code))
    assert notify(listener.url + HOOK, FAILED, "weekly-1", insecure=True)
    assert len(listener.received) == 1


@pytest.mark.parametrize("code", [400, 403, 404, 302])
def test_a_refused_notification_is_an_error_that_names_only_the_host(listener, code, caplog):
    listener.faults.append(Fault(code))
    with caplog.at_level(logging.DEBUG, "tf_image_classification"), pytest.raises(ServiceError) as failed:
        notify(listener.url + HOOK, FAILED, "weekly-1", insecure=True)
    message = str(failed.value)
    assert "Cannot notify http://127.0.0.1 of the run weekly-1" in message and str(code) in message
    assert "secret" not in message + caplog.text and "s3cret" not in message + caplog.text


def test_a_host_that_cannot_be_reached_is_an_error_that_names_only_the_host():
    with pytest.raises(ServiceError, match=r"Cannot notify http://127\.0\.0\.1 of") as failed:
        notify(f"http://127.0.0.1:1{HOOK}", FAILED, "weekly-1", insecure=True)
    assert "secret" not in str(failed.value) and failed.value.__suppress_context__


def test_a_notification_is_logged_without_the_secret(listener, caplog):
    with caplog.at_level(logging.INFO, "tf_image_classification"):
        notify(listener.url + HOOK, FAILED, "weekly-1", insecure=True)
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


METADATA = [
    "metadata.google.internal",
    "METADATA.google.internal.",
    "metadata",
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "100.100.100.200",
    "0.0.0.0",  # noqa: S104
    "0",
    "[::]",
    "224.0.0.1",
]
OWN = [
    "localhost",
    "LOCALHOST.",
    "a.localhost",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
]


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("host", METADATA)
def test_an_address_where_a_cloud_gives_out_credentials_is_refused_in_any_spelling(host, scheme):
    with pytest.raises(FlagError, match="metadata service"):
        check(f"{scheme}://{host}/computeMetadata/v1/", insecure=True)


@pytest.mark.parametrize("host", OWN)
def test_this_machine_is_no_webhook_unless_that_is_asked_for(host):
    with pytest.raises(FlagError, match="--notify_insecure allows"):
        check(f"https://{host}/hook")
    check(f"https://{host}:8443/hook", insecure=True)


@pytest.mark.parametrize(
    "host",
    ["example.com", "hooks.svc.cluster.local", "10.0.0.7", "192.168.1.2", "8.8.8.8", "[fd12::1]", "12345.example"],
)
def test_public_and_private_addresses_are_notified_over_https_and_over_http_if_that_is_asked_for(host):
    check(f"https://{host}/hook")
    with pytest.raises(FlagError, match=r"over http, .*--notify_insecure"):
        check(f"http://{host}/hook")
    check(f"http://{host}/hook", insecure=True)


@pytest.mark.parametrize("destination", [TOPIC, ""])
def test_insecure_without_a_url_is_refused(destination):
    with pytest.raises(FlagError, match="--notify_insecure has no effect"):
        check(destination, insecure=True)


def test_nothing_is_sent_to_a_name_that_resolves_to_this_machine_or_to_a_metadata_service(listener, monkeypatch):
    """Whatever it resolved to before: the address that was connected to is what counts."""
    port = urllib.parse.urlsplit(listener.url).port
    hook = listener.url.replace("http://127.0.0.1", "http://hooks.example") + HOOK

    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with webhooks.session(insecure=False) as session, pytest.raises(FlagError, match=r"hooks\.example, which is 127"):
        session.post(hook, json={})
    monkeypatch.setattr(webhooks, "_METADATA", {ipaddress.ip_address("127.0.0.1")})
    monkeypatch.setattr(ipaddress.IPv4Address, "is_loopback", False)
    with pytest.raises(FlagError, match="metadata service") as refused:
        notify(hook, FAILED, "weekly-1", insecure=True)
    assert "s3cret" not in str(refused.value)
    assert not listener.requests
