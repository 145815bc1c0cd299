"""Faults of the network and of Cloud Storage that the stand-in injects: requested one by one, or at random."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

REFUSED = "refused"  # an error status instead of the response
RESET = "reset"  # the connection is reset instead of the response
RESET_IN_BODY = "reset in body"  # the connection is reset in the middle of the response
TRUNCATED = "truncated"  # the connection is closed in the middle of the response
CLIPPED = "clipped"  # half of the content, with a matching Content-Length
CORRUPTED = "corrupted"  # one byte of the content is changed
CORRUPTED_UPLOAD = "corrupted upload"  # one byte of the request's content is changed
STALLED = "stalled"  # nothing is sent after the middle of the response

_CODES = (429, 500, 502, 503, 504)
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(slots=True)
class Fault:
    """A fault, and the requests into which it is injected.

    Attributes:
        kind: one of the above.
        method: regular expression for the whole method.
        path: regular expression searched in path and query.
        times: for how many requests.
        code: HTTP status of REFUSED.
        carried_out: a request that is REFUSED or RESET is carried out, only its response is lost. With all other kinds
            it always is.
        seconds: how long a STALLED response sends nothing.
    """

    kind: str = REFUSED
    method: str = ".*"
    path: str = "."
    times: int = 1
    code: int = 503
    carried_out: bool = False
    seconds: float = 3.0

    def matches(self, method: str, path: str) -> bool:
        """Whether it is to be injected into this request."""
        return (
            self.times > 0 and re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None
        )

    @property
    def loses_request(self) -> bool:
        """Whether the request is not carried out."""
        return self.kind in (REFUSED, RESET) and not self.carried_out


@dataclass(slots=True)
class RandomFaults:
    """Faults at random. Whether the n-th request to an address gets one depends on the seed only.

    Attributes:
        rate: share of requests that get a fault, 0 to 1.
        seed: of the random numbers.
        seconds: how long a STALLED response sends nothing.
    """

    rate: float
    seed: int = 0
    seconds: float = 0.1
    _counts: Counter[str] = field(default_factory=Counter)

    def draw(self, method: str, path: str, is_content: bool) -> Fault | None:
        """The fault of a request, if it gets one. Counts the request.

        Args:
            is_content: whether the response is an object's content, whose checksum the client verifies.
        """
        address = f"{method} {re.sub(r'upload_id=[^&]*|[0-9]{15,}', '', path)}"  # without ids that are random
        self._counts[address] += 1
        generator = random.Random(f"{self.seed} {self._counts[address]} {address}")
        if generator.random() >= self.rate:
            return None
        kinds = [REFUSED, REFUSED, RESET, RESET_IN_BODY, TRUNCATED, STALLED]
        if is_content:
            kinds += [CLIPPED, CORRUPTED]
        return Fault(
            kind=generator.choice(kinds),
            code=generator.choice(_CODES),
            carried_out=generator.random() < 0.5,
            seconds=self.seconds,
        )


def send(handler: BaseHTTPRequestHandler, response: bytes, fault: Fault | None) -> None:
    """Sends an HTTP response, or what the fault leaves of it."""
    head, _, content = response.partition(_END_OF_HEAD)
    if fault and fault.kind == CLIPPED:
        content = content[: len(content) // 2]
        head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(content), head)
    elif fault and fault.kind == CORRUPTED:
        content = corrupted(content)
    response = head + _END_OF_HEAD + content
    middle = len(response) - len(content) // 2 if len(content) > 1 else 0
    if fault and fault.kind in (RESET_IN_BODY, TRUNCATED, STALLED):
        handler.wfile.write(response[:middle])
        handler.close_connection = True
        if fault.kind == STALLED:
            time.sleep(fault.seconds)
    elif not (fault and fault.kind == RESET):
        handler.wfile.write(response)
    if fault and fault.kind in (RESET, RESET_IN_BODY):
        handler.close_connection = True
        reset(handler.connection)


def corrupted(content: bytes) -> bytes:
    """Content of which the last byte is changed."""
    return content[:-1] + bytes([content[-1] ^ 1]) if content else content


def corrupted_upload(body: bytes) -> bytes:
    """The body of a multipart upload, with one byte of its content changed."""
    end = body.rindex(b"\r\n--")
    return corrupted(body[:end]) + body[end:]


def reset(connection: socket.socket) -> None:
    """Closes a connection with RST instead of FIN, as a load balancer that is killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
