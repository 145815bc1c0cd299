"""Vertex AI's long-running operations: each is carried out after a delay, and may fail then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from google.protobuf import empty_pb2
from werkzeug.wrappers import Request

from tests.standin.service import ApiError
from tests.standin.vertex_messages import to_json

_DELAY = 0.2  # seconds
_GRPC_CODES = {400: 9, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}


class Operations:
    """The operations of a project, by name. Each is carried out shortly after its start, polled or not.

    Timers' threads change the service's state; they hold its lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._all: dict[str, dict[str, Any]] = {}
        self._polled: set[str] = set()

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", f"/{api}/<path:name>", self._get)
            for api in ("v1", "ui")  # the SDK polls an operation under either
        ]

    def start(self, resource: str, carry_out: Callable[[], Any] | None = None) -> dict[str, Any]:
        """Starts an operation on a resource, and returns it as it is now.

        Args:
            resource: its name; the operation's name begins with it.
            carry_out: called when the delay is over; returns the response as a message of the SDK, or raises ApiError.
        """
        name = f"{resource}/operations/{len(self._all) + 1}"
        operation: dict[str, Any] = {"name": name, "done": False}
        self._all[name] = operation

        def end() -> None:
            with self._lock:
                try:
                    operation["response"] = _as_any(carry_out() if carry_out else None)
                except ApiError as error:
                    operation["error"] = {"code": _GRPC_CODES[error.code], "message": error.message}
                operation["done"] = True

        timer = threading.Timer(_DELAY, end)
        timer.daemon = True
        timer.start()
        return dict(operation)

    def check_free(self, kind: str, resource: str) -> None:
        """Rejects a second operation on a resource while one is running.

        Raises:
            ApiError: one is running.
        """
        running = [name for name, one in self._all.items() if name.startswith(resource + "/") and not one["done"]]
        if running:
            raise ApiError(
                400,
                f'There are other operations running on the {kind} "{resource}". '
                f"Operation(s) are: {', '.join(running)}.",
            )

    def _get(self, request: Request, name: str) -> dict[str, Any]:
        if name not in self._all:
            raise ApiError(404, f"{request.path} does not exist.")
        if name in self._polled:
            return self._all[name]
        self._polled.add(name)
        return {"name": name, "done": False}  # the first poll never finds it done


def _as_any(message: Any) -> dict[str, Any]:
    if message is None:
        return {"@type": f"type.googleapis.com/{empty_pb2.Empty.DESCRIPTOR.full_name}"}
    return {"@type": f"type.googleapis.com/{type(message).pb(message).DESCRIPTOR.full_name}"} | to_json(message)
