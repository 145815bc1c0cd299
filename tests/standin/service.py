"""What the stand-ins share: an HTTP server on 127.0.0.1, Google's error format, and faults on order."""

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

_STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class Refused(Exception):
    """A request is answered with an error.

    Attributes:
        code: HTTP status.
        message: what the client is told.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(slots=True)
class Fault:
    """Requests to answer with an error.

    Attributes:
        code: HTTP status.
        method: of the requests that it meets.
        path: regular expression searched in their path.
        times: how many requests it meets.
        carried_out: the request is carried out all the same, only its answer is lost.
        message: what the client is told.
    """

    code: int
    method: str = "POST"
    path: str = "."
    times: int = 1
    carried_out: bool = False
    message: str = "injected by the stand-in"

    def meets(self, request: Request) -> bool:
        return self.times > 0 and request.method == self.method and re.search(self.path, request.path) is not None


class Service(abc.ABC):
    """An HTTP service on a free port of 127.0.0.1. Subclasses give its routes: (method, werkzeug rule, handler)."""

    def __init__(self, port: int = 0) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.saw_credentials = False
        self.lock = threading.RLock()
        routes = [
            *self.routes(),
            ("POST", "/standin/faults", self._order_fault),
        ]
        self._map = Map([Rule(rule, methods=[method], endpoint=handler) for method, rule, handler in routes])
        self._server = make_server("127.0.0.1", port, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @abc.abstractmethod
    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """(method, path, what answers it) of each address that the service has."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @Request.application
    def _answer(self, request: Request) -> Response:
        try:
            with self.lock:
                self.requests.append(f"{request.method} {request.path}")
                self.saw_credentials |= "Authorization" in request.headers
                fault = next((fault for fault in self.faults if fault.meets(request)), None)
                if fault:
                    fault.times -= 1
                    if not fault.carried_out:
                        raise Refused(fault.code, fault.message)
                handler, arguments = self._map.bind_to_environ(request.environ).match()
                answer = handler(request, **arguments)
                if fault:
                    raise Refused(fault.code, fault.message)
        except Refused as error:
            return self.error(error.code, error.message)
        except HTTPException as error:
            return self.error(error.code or 500, f"{request.method} {request.path}: {error.description}")
        except Exception as error:  # a 500 would be taken for passing trouble and asked again for minutes
            traceback.print_exc()
            return self.error(501, f"{request.method} {request.path}: the stand-in failed: {error!r}")
        return Response(json.dumps(answer), mimetype="application/json")

    def error(self, code: int, message: str) -> Response:
        """An error as Google's services write it."""
        body = {"error": {"code": code, "message": message, "status": _STATUS.get(code, "UNKNOWN")}}
        return Response(json.dumps(body), status=code, mimetype="application/json")

    def _order_fault(self, request: Request) -> dict[str, Any]:
        self.faults.append(Fault(**json.loads(request.get_data())))
        return {}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass
