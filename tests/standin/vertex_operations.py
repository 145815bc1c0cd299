"""Vertex AI's long-running operations: each takes a moment, and may fail when its moment comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from google.protobuf import empty_pb2
from werkzeug.wrappers import Request

from tests.standin.service import Refused
from tests.standin.vertex_messages import answer

_MOMENT = 0.2  # seconds
_GRPC_CODES = {400: 9, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}


class Operations:
    """The operations of a project, by name. Each is carried out a moment after it was begun, whether anyone asks about
    it or not."""

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
        """Begins an operation on a resource.

        Args:
            carry_out: what is done when its moment comes; returns the SDK's message of the response, or raises Refused.
        """
        name = f"{resource}/operations/{len(self._all) + 1}"
        operation: dict[str, Any] = {"name": name, "done": False}
        self._all[name] = operation

        def end() -> None:
            with self._lock:
                try:
                    operation["response"] = _as_any(carry_out() if carry_out else None)
                except Refused as error:
                    operation["error"] = {"code": _GRPC_CODES[error.code], "message": error.message}
                operation["done"] = True

        timer = threading.Timer(_MOMENT, end)
        timer.daemon = True
        timer.start()
        return dict(operation)

    def check_free(self, kind: str, resource: str) -> None:
        """Refuses a second operation on what has one under way."""
        under_way = [name for name, one in self._all.items() if name.startswith(resource + "/") and not one["done"]]
        if under_way:
            raise Refused(
                400,
                f'There are other operations running on the {kind} "{resource}". '
                f"Operation(s) are: {', '.join(under_way)}.",
            )

    def _get(self, request: Request, name: str) -> dict[str, Any]:
        if name not in self._all:
            raise Refused(404, f"{request.path} does not exist.")
        if name in self._polled:
            return self._all[name]
        self._polled.add(name)
        return {"name": name, "done": False}  # the first poll always comes too early


def _as_any(message: Any) -> dict[str, Any]:
    if message is None:
        return {"@type": f"type.googleapis.com/{empty_pb2.Empty.DESCRIPTOR.full_name}"}
    return {"@type": f"type.googleapis.com/{type(message).pb(message).DESCRIPTOR.full_name}"} | answer(message)
