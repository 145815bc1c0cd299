"""No web page can have a stand-in execute a pipeline, whether it posts to it or resolves its own name to 127.0.0.1."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from tests.standin.bucket import Buckets
from tests.standin.service import Service

JSON = {"Content-Type": "application/json"}
TARGETS = {"Pipelines": "/run", "Buckets": "/storage/v1/b?project=local"}


class Pipelines(Service):
    """As Vertex and Kubeflow."""

    def __init__(self) -> None:
        self.executed = 0
        super().__init__()

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [("POST", "/run", self._run), ("GET", "/run", self._run)]

    def _run(self, request: Any) -> dict[str, Any]:
        self.executed += 1
        return {}


@pytest.fixture(params=["Pipelines", "Buckets"])
def service(request):
    if request.param == "Buckets":
        with Buckets() as buckets:
            yield buckets
        return
    pipelines = Pipelines()
    pipelines.start()
    yield pipelines
    pipelines.stop()


def status(service: Any, method: str = "POST", *, secret: str | None = None, **headers: str) -> int:
    """Of a request to create something; a header of '' is left out."""
    address = urllib.parse.urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    given = {"Host": address.netloc, **JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
    target = (address.path if secret is None else secret) + TARGETS[type(service).__name__]
    connection.putrequest(method, target, skip_host=True)
    body = b'{"name": "bucket"}' if method == "POST" else b""
    for name, value in (given | {"Content-Length": str(len(body))}).items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(body)
    code = connection.getresponse().status
    connection.close()
    return code


REFUSED = {
    "no secret": {"secret": ""},
    "a wrong secret": {"secret": "/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
    "a name that was resolved to 127.0.0.1": {"Host": "evil.example:{port}"},
    "localhost": {"Host": "localhost:{port}"},
    "another port": {"Host": "127.0.0.1:1"},
    "no host": {"Host": ""},
    "a page's request": {"Origin": "https://evil.example"},
    "a sandboxed frame's request": {"Origin": "null"},
    "another site's request": {"Sec_Fetch_Site": "cross-site"},
    "a form": {"Content_Type": "application/x-www-form-urlencoded"},
    "a form with files": {"Content_Type": "multipart/form-data; boundary=x"},
    "text": {"Content_Type": "text/plain; application/json"},
    "no type": {"Content_Type": ""},
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_what_a_web_page_can_send_is_refused_and_not_carried_out(service, given):
    port = str(urllib.parse.urlsplit(service.url).port)
    assert status(service, **{name: value.replace("{port}", port) for name, value in given.items()}) == 403
    assert not service.requests and not getattr(service, "executed", 0)


def test_a_request_with_the_secret_and_json_is_carried_out(service):
    assert status(service) == 200
    assert status(service, "GET", Content_Type="") == 200
    assert status(service, "GET", secret="", Content_Type="") == 403


def test_it_listens_on_the_loopback_address_alone_and_each_start_has_a_secret_of_its_own(service):
    assert service._server.server_address[0] == "127.0.0.1"
    secret = urllib.parse.urlsplit(service.url).path.strip("/")
    assert len(secret) >= 43
    assert secret not in Pipelines().url
