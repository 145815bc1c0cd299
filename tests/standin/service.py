"""What the stand-ins of APIs share: an HTTP server on 127.0.0.1, Google's error format, and injected faults."""

from __future__ import annotations

import abc
import json
import re
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from tests.standin.access import HOST, Access, AccessError

_STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class ApiError(Exception):
    """The response to a request is an error.

    Attributes:
        code: HTTP status.
        message: of the error.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(slots=True)
class Fault:
    """An error, and the requests that get it as their response.

    Attributes:
        code: HTTP status.
        method: of the requests.
        path: regular expression searched in their path.
        times: for how many requests.
        carried_out: the request is carried out, only its response is lost.
        message: of the error.
    """

    code: int
    method: str = "POST"
    path: str = "."
    times: int = 1
    carried_out: bool = False
    message: str = "injected by the stand-in"

    def matches(self, request: Request) -> bool:
        """Whether it is to be injected into this request."""
        return self.times > 0 and request.method == self.method and re.search(self.path, request.path) is not None


class Service(abc.ABC):
    """An HTTP service on 127.0.0.1, by default on a free port; subclasses define its routes.

    Only requests to its `url`, of which a secret is a part, are carried out, and none of web pages; see `access`. They
    are handled in threads, one at a time under `lock`. POST /standin/faults adds a fault: a JSON object with the
    attributes of Fault.

    Attributes:
        faults: to inject; of several that match a request, the first.
        requests: `METHOD path` of each request, without the secret.
        saw_credentials: whether any request had an Authorization header.
        lock: held while a request is handled; threads of a service take it before they change its state.
    """

    def __init__(self, port: int = 0) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.saw_credentials = False
        self.lock = threading.RLock()
        routes = [
            *self.routes(),
            ("POST", "/standin/faults", self._add_fault),
        ]
        self._map = Map([Rule(rule, methods=[method], endpoint=handler) for method, rule, handler in routes])
        self._server = make_server(HOST, port, self._respond, threaded=True, request_handler=QuietHandler)
        self._access = Access(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @abc.abstractmethod
    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """(HTTP method, werkzeug rule, handler) of each address; a handler returns the JSON of the response."""

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT/SECRET"""
        return self._access.url

    def start(self) -> None:
        """Starts serving, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and closes the port."""
        self._server.shutdown()
        self._server.server_close()

    @Request.application
    def _respond(self, request: Request) -> Response:
        try:
            request.environ["PATH_INFO"] = request.path = self._access.check(
                request.method, request.path, request.headers
            )
            with self.lock:
                self.requests.append(f"{request.method} {request.path}")
                self.saw_credentials |= "Authorization" in request.headers
                fault = next((fault for fault in self.faults if fault.matches(request)), None)
                if fault:
                    fault.times -= 1
                    if not fault.carried_out:
                        raise ApiError(fault.code, fault.message)
                handler, arguments = self._map.bind_to_environ(request.environ).match()
                content = handler(request, **arguments)
                if fault:
                    raise ApiError(fault.code, fault.message)
        except AccessError as refused:
            return self.error(403, f"The stand-in refuses this request: {refused}")
        except ApiError as error:
            return self.error(error.code, error.message)
        except HTTPException as error:
            return self.error(error.code or 500, f"{request.method} {request.path}: {error.description}")
        except Exception as error:  # a 500 would be retried for minutes
            traceback.print_exc()
            return self.error(501, f"{request.method} {request.path}: the stand-in failed: {error!r}")
        return Response(json.dumps(content), mimetype="application/json")

    def error(self, code: int, message: str) -> Response:
        """An error in the format of Google's APIs."""
        body = {"error": {"code": code, "message": message, "status": _STATUS.get(code, "UNKNOWN")}}
        return Response(json.dumps(body), status=code, mimetype="application/json")

    def _add_fault(self, request: Request) -> dict[str, Any]:
        self.faults.append(Fault(**json.loads(request.get_data())))
        return {}


class QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log(self, *_: object) -> None:
        pass
