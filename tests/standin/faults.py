"""What can go wrong between a client and a bucket: ordered one at a time, or at random."""

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

REFUSED = "refused"  # an error status instead of the answer
RESET = "reset"  # the connection is reset instead of the answer
CUT = "cut"  # the connection is reset in the middle of the answer
TRUNCATED = "truncated"  # the connection is closed in the middle of the answer
CLIPPED = "clipped"  # half of the content, said to be all of it
GARBLED = "garbled"  # a byte of the content is another one
GARBLED_UPLOAD = "garbled upload"  # a byte of what was sent is another one when it arrives
STALLED = "stalled"  # nothing more comes after the middle of the answer

_CODES = (429, 500, 502, 503, 504)
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(slots=True)
class Fault:
    """Requests that go wrong.

    Attributes:
        kind: one of the above.
        method: regular expression for the whole method.
        path: regular expression searched in path and query.
        times: how many requests it meets.
        code: HTTP status of REFUSED.
        carried_out: what is REFUSED or RESET is carried out all the same, only its answer is lost. The kinds that
            answer always are.
        seconds: STALLED says nothing for so long.
    """

    kind: str = REFUSED
    method: str = ".*"
    path: str = "."
    times: int = 1
    code: int = 503
    carried_out: bool = False
    seconds: float = 3.0

    def meets(self, method: str, path: str) -> bool:
        return (
            self.times > 0 and re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None
        )

    @property
    def loses_request(self) -> bool:
        return self.kind in (REFUSED, RESET) and not self.carried_out


@dataclass(slots=True)
class Weather:
    """Requests that go wrong at random. Whether the n-th request to an address does depends on the seed and nothing
    else.

    Attributes:
        rate: share of requests.
        seed: another one gives other faults.
        seconds: how long a stalled answer says nothing.
    """

    rate: float
    seed: int = 0
    seconds: float = 0.1
    _asked: Counter[str] = field(default_factory=Counter)

    def fault(self, method: str, path: str, is_content: bool) -> Fault | None:
        """What happens to this request.

        Args:
            is_content: an object's content is asked for, whose checksum the client knows.
        """
        address = f"{method} {re.sub(r'upload_id=[^&]*|[0-9]{15,}', '', path)}"  # without what differs from run to run
        self._asked[address] += 1
        chance = random.Random(f"{self.seed} {self._asked[address]} {address}")
        if chance.random() >= self.rate:
            return None
        kinds = [REFUSED, REFUSED, RESET, CUT, TRUNCATED, STALLED] + ([CLIPPED, GARBLED] if is_content else [])
        return Fault(
            chance.choice(kinds), code=chance.choice(_CODES), carried_out=chance.random() < 0.5, seconds=self.seconds
        )


def send(handler: BaseHTTPRequestHandler, answer: bytes, fault: Fault | None) -> None:
    """Sends an answer, or what the fault leaves of it."""
    head, _, content = answer.partition(_END_OF_HEAD)
    if fault and fault.kind == CLIPPED:
        content = content[: len(content) // 2]
        head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(content), head)
    elif fault and fault.kind == GARBLED:
        content = garbled(content)
    answer = head + _END_OF_HEAD + content
    middle = len(answer) - len(content) // 2 if len(content) > 1 else 0
    if fault and fault.kind in (CUT, TRUNCATED, STALLED):
        handler.wfile.write(answer[:middle])
        handler.close_connection = True
        if fault.kind == STALLED:
            time.sleep(fault.seconds)
    elif not (fault and fault.kind == RESET):
        handler.wfile.write(answer)
    if fault and fault.kind in (RESET, CUT):
        handler.close_connection = True
        reset(handler.connection)


def garbled(content: bytes) -> bytes:
    """Content of which the last byte is another one."""
    return content[:-1] + bytes([content[-1] ^ 1]) if content else content


def garbled_upload(body: bytes) -> bytes:
    """A multipart upload of which a byte of the content is another one."""
    end = body.rindex(b"\r\n--")
    return garbled(body[:end]) + body[end:]


def reset(connection: socket.socket) -> None:
    """Ends a connection with RST instead of FIN, as a load balancer that dies does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
