"""A failed run is reported by the notify step, the exit handler."""

from __future__ import annotations

import http.server
import json
import threading

import pytest


@pytest.fixture
def hook():
    """The URL of a webhook, and the messages that it received."""
    received: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


@pytest.fixture
def submit(pipelines):
    root = ["--pipeline_root", "gs://bucket/root", "--train_metadata", "gs://bucket/photos", "--image_size", "16"]
    return lambda *words: pipelines("submit", *root, *words)


def test_a_failed_run_is_reported_once(submit, vertex, hook):
    address, received = hook
    vertex.runner.fail_once = ["resolve"]
    done = submit("--run_id", "first", "--notify", address, "--notify_insecure", "--wait")
    assert done.returncode == 1
    (message,) = received
    assert message["state"] == "FAILED"
    assert message["run"] == "first"
    assert "first" in message["text"]
    assert vertex.jobs["first"].state.name == "PIPELINE_STATE_FAILED"


def test_an_address_of_this_machine_or_over_http_never_gets_into_a_pipeline_unless_that_is_asked_for(submit, vertex):
    for address in ("http://example.com/hook", "https://127.0.0.1/hook", "https://169.254.169.254/hook"):
        assert submit("--notify", address).returncode == 2
    assert submit("--notify_insecure").returncode == 2
    assert not vertex.requests


def test_a_destination_with_a_password_never_gets_into_a_pipeline(submit, vertex):
    done = submit("--notify", "https://user:pass1234@example.com/hook")
    assert done.returncode == 2
    assert "--notify" in done.stderr and "pass1234" not in done.stderr
    assert not vertex.requests
