"""Which tasks of a cluster are there: something listens at their address for as long as their process lives.

A task of a training listens with TensorFlow's server; `listening` does so while there is none. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence

from tf_image_classification import cluster
from tf_image_classification.cluster import PeerError, Role, Task

LOST_SECONDS = 20.0  # a task that nobody could connect to for so long counts as lost
_CONNECT_SECONDS = 2.0
_POLL_SECONDS = 1.0
_REMIND_SECONDS = 30.0  # who waits says so again

_log = logging.getLogger(__name__)


class Presence:
    """When each of some tasks was last seen.

    Args:
        names: address, HOST:PORT -> the task's name in messages. They count as seen now.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._seen = dict.fromkeys(names, time.monotonic())
        self._absent: set[str] = set()

    def look(self) -> None:
        """Tries to connect to every task, and logs which ones went and which ones came back."""
        for address, name in self._names.items():
            if is_there(address):
                self._seen[address] = time.monotonic()
                if address in self._absent:
                    self._absent.remove(address)
                    _log.info("%s at %s is there again", name, address)
            elif address not in self._absent:
                self._absent.add(address)
                _log.warning("%s at %s does not answer", name, address)

    def absent(self, seconds: float) -> list[str]:
        """Name and address of the tasks that have not been there for so long."""
        now = time.monotonic()
        return [f"{self._names[address]} at {address}" for address, seen in self._seen.items() if now - seen > seconds]


class ChiefWatch:
    """Whether the chief is there: it may take its time to come, and must not go."""

    def __init__(self, task: Task) -> None:
        self.address = chief_address(task)
        self.is_there = False  # when `check` was last called
        self._has_come = False
        self._limit = time.monotonic() + cluster.join_seconds()

    def check(self) -> None:
        """Tries to connect to the chief.

        Raises:
            PeerError: it has not come in `cluster.join_seconds()`, or has been gone for `LOST_SECONDS`.
        """
        self.is_there = is_there(self.address)
        now = time.monotonic()
        if self.is_there:
            self._has_come, self._limit = True, now + LOST_SECONDS
        elif now > self._limit:
            raise PeerError(
                "The chief is lost" if self._has_come else "The chief did not come",
                received=f"no answer at {self.address} for "
                + f"{LOST_SECONDS if self._has_come else cluster.join_seconds():g} s",
                hint="This task ends, to be restarted with the chief: the training continues from its last checkpoint.",
            )


def chief_address(task: Task) -> str:
    """HOST:PORT of the chief; without a chief or master, of worker 0."""
    return task.worker_addresses[0]


def is_there(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def wait_for(names: dict[str, str]) -> None:
    """Waits until each of some tasks has been there, and says whom it waits for.

    Args:
        names: as of `Presence`.

    Raises:
        PeerError: they did not all come in `cluster.join_seconds()`.
    """
    started = time.monotonic()
    reminded: tuple[list[str], float] = ([], started)
    missing = names
    while missing := {address: name for address, name in missing.items() if not is_there(address)}:
        listed = [f"{name} at {address}" for address, name in missing.items()]
        now = time.monotonic()
        if now - started > cluster.join_seconds():
            raise PeerError(
                f"Not all tasks of the cluster were there within {cluster.join_seconds():g} s",
                received="no answer of " + ", ".join(listed),
                hint="The log of the missing task says why it ended or did not start.",
            )
        if listed != reminded[0] or now - reminded[1] > _REMIND_SECONDS:
            _log.info("Waiting for %s, %.0f of %g s", ", ".join(listed), now - started, cluster.join_seconds())
            reminded = listed, now
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def announced(task: Task) -> Iterator[None]:
    """The chief listens at its address in the block, for the tasks that wait for it; others do nothing."""
    if task.is_chief and task.worker_addresses:
        with listening(chief_address(task)):
            yield
    else:
        yield


@contextlib.contextmanager
def listening(address: str) -> Iterator[None]:
    """Listens at the port of HOST:PORT, this task's own, in the block."""
    port = int(address.rpartition(":")[2])
    try:
        server = _Server(("", port), socketserver.BaseRequestHandler)
    except OSError as error:
        _log.warning("Cannot listen on port %d, which TF_CONFIG gives this task: %s", port, error.strerror)
        yield
        return
    with server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def names_of(task: Task, roles: Sequence[Role]) -> dict[str, str]:
    """Address -> name, as of `Presence`, of the tasks of some roles; not of the chief."""
    return {
        address: f"{role} {index}"
        for role in roles
        for index, address in enumerate(task.cluster.get(role, ()))
        if address != chief_address(task)
    }


class _Server(socketserver.TCPServer):
    allow_reuse_address = True  # TensorFlow's server listens there next
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET  # as TensorFlow's does

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
