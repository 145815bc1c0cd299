"""An HTTP server on 127.0.0.1 for stand-ins that only answer questions: nothing that is sent to them is kept or run."""

from __future__ import annotations

import abc
import json
import threading
from collections.abc import Callable
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from tests.standin.access import HOST

Route = tuple[str, str, Callable[..., Any]]


class Loopback(abc.ABC):
    """A server that runs while a `with` block does; subclasses define its routes.

    Attributes:
        host: 127.0.0.1:PORT
        url: http://127.0.0.1:PORT
        requests: `METHOD path` of each request.
        saw_credentials: whether any request had an Authorization header.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.saw_credentials = False
        self._map = Map([Rule(rule, methods=[method], endpoint=handler) for method, rule, handler in self.routes()])
        self._server = make_server(HOST, 0, self._respond, threaded=True, request_handler=_Quiet)
        self.host = f"{HOST}:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @abc.abstractmethod
    def routes(self) -> list[Route]:
        """(HTTP method, werkzeug rule, handler) of each address; a handler returns JSON or a Response."""

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @Request.application
    def _respond(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        self.saw_credentials |= "Authorization" in request.headers
        try:
            handler, arguments = self._map.bind_to_environ(request.environ).match()
            content = handler(request, **arguments)
        except HTTPException as error:
            return self.error(error.code or 500, error.description or "")
        return content if isinstance(content, Response) else Response(json.dumps(content), mimetype="application/json")

    def error(self, code: int, message: str, status: str = "") -> Response:
        """An error in the format of Google's APIs."""
        body = {"error": {"code": code, "message": message, "status": status}}
        return Response(json.dumps(body), status=code, mimetype="application/json")


class _Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log(self, *_: object) -> None:
        pass
