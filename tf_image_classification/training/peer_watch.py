"""No worker waits for one that is gone: each ends by itself, so that the platform restarts it.

TensorFlow's coordination service, which runs in the chief, knows who sends heartbeats, from threads that need neither
Python nor the main thread: slow work (an evaluation, the compilation of the first step, an upload) is no loss. Once a
task is lost, collective operations end with an error; but a task may be far from its next one, or TensorFlow may not
return. So a thread asks the service: the chief who is lost, the others whether the chief still answers.

A signal, too, reaches Python only when TensorFlow returns. The thread is told of it through a file descriptor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from types import FrameType

import tensorflow as tf
from tensorflow.python.eager import context

from tf_image_classification.cluster import EXIT_RETRYABLE, PeerError, Role, Task

_log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_SILENCE_SECONDS = 15.0  # after which a chief that does not answer is lost
_ANSWER_MS = 500  # to wait for the chief's answer: TensorFlow keeps the interpreter's lock meanwhile
_LEAVING_SECONDS = 5.0  # for the main thread to end by itself, with the error of its collective operation
STOP_SECONDS = 20.0  # from a signal to the end: Kubernetes and spot machines kill after 30 s
_BARRIER_MS = 30_000
_INCARNATION, _END = "peer_watch/incarnation", "peer_watch/end"
_CLOSE = 0  # no signal's number
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# As messages of TensorFlow name a task: "Error reported from /job:worker/task:1", "... /job:worker/replica:0/task:1".
_TASK = re.compile(r"/job:(\w+)(?:/replica:0)?/task:(\d+)")
_ABORTED = "Collective ops is aborted by: "

_writing = threading.Condition()
_writers = 0  # threads that are `undisturbed`; under `_writing`
_watches: list[_Watch] = []  # the one of this process, in `watching`


@contextlib.contextmanager
def watching(task: Task) -> Iterator[None]:
    """Ends this process when another task of its synchronous cluster is lost in the block; nested, does nothing.

    Entered by all tasks, after the strategy was made. All leave it together.

    If the main thread does not return from TensorFlow, or is at other work, the process exits without unwinding: with
    138 after a loss, and with 143 or 130 when `STOP_SECONDS` have passed since SIGTERM or Ctrl-C. Not while it is
    `undisturbed`.

    Raises:
        PeerError: a task was lost, whatever error that has caused in the block.
    """
    if not task.is_synchronous or _watches:
        yield
        return
    watch = _Watch(task)
    _watches.append(watch)
    try:
        yield
        watch.close()
        with contextlib.suppress(tf.errors.OpError):  # all have done their work
            context.context().wait_at_barrier(_END, _BARRIER_MS)
    except Exception as error:
        lost = watch.lost or _loss_behind(error)
        if lost is None or isinstance(error, PeerError):
            raise
        raise _peer_error(lost) from error
    finally:
        watch.close()
        _watches.remove(watch)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C end the process at once: the block keeps the interpreter's lock, so that no handler could run."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """While any thread is in the block, nothing here ends the process: a checkpoint is being written or uploaded."""
    global _writers
    with _writing:
        _writers += 1
    try:
        yield
    finally:
        with _writing:
            _writers -= 1
            _writing.notify_all()


class _Watch:
    """The thread, and what it has found out.

    Attributes:
        lost: which task, and the reason; None while none is.
    """

    def __init__(self, task: Task) -> None:
        self.lost: str | None = None
        self._task = task
        self._jobs = [
            (str(role), len(task.cluster[role])) for role in (Role.CHIEF, Role.WORKER) if role in task.cluster
        ]
        self._incarnation = ""  # of the chief's process
        self._answered_at = time.monotonic()
        self._stop: tuple[float, int] | None = None  # when to end, and the signal
        self._left = threading.Event()
        if task.is_chief:
            with contextlib.suppress(tf.errors.AlreadyExistsError):  # an earlier training of this process
                context.context().set_config_key_value(_INCARNATION, uuid.uuid4().hex)
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._previous = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
            # Joining a cluster, TensorFlow installs a handler of its own, which Python does not know of: it only makes
            # a note. A training's replaces this one while it makes steps.
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _terminate)
        self._thread = threading.Thread(target=self._run, name="peer-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; the main thread has left the block."""
        if self._left.is_set():
            return
        self._left.set()
        if self._is_main:
            signal.set_wakeup_fd(self._previous)
            if signal.getsignal(signal.SIGTERM) == _terminate:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._sender.send(bytes([_CLOSE]))
        self._thread.join()
        self._sender.close()
        self._receiver.close()

    def _run(self) -> None:
        while not self._left.is_set():
            self._receive()
            if self._left.is_set():
                return
            self.lost = self._lost_task()
            if self.lost:
                if not self._left.wait(_LEAVING_SECONDS):
                    self._exit(EXIT_RETRYABLE, str(_peer_error(self.lost)))
            elif self._stop and time.monotonic() > self._stop[0]:
                name = signal.Signals(self._stop[1]).name
                self._exit(
                    128 + self._stop[1],
                    f"Stopped by {name} without a checkpoint: for {STOP_SECONDS:g} s this task waited for another, or "
                    "for the end of a step. Run again to continue from the last checkpoint.",
                )

    def _receive(self) -> None:
        """Waits for a signal, or for the next look at the others."""
        if not select.select([self._receiver], [], [], _POLL_SECONDS)[0]:
            return
        for number in self._receiver.recv(64):
            if number in _SIGNALS and self._stop is None:
                self._stop = time.monotonic() + STOP_SECONDS, number

    def _lost_task(self) -> str | None:
        try:
            if self._task.is_chief:
                return self._first_lost()
            # Not the states of all: the chief's own service answers at once, but that of a machine that is gone never.
            incarnation = context.context().get_config_key_value(_INCARNATION, _ANSWER_MS)
        except tf.errors.OpError as error:
            if time.monotonic() - self._answered_at < _SILENCE_SECONDS:
                return None
            return f"the chief: {str(error).splitlines()[0]}"
        self._answered_at = time.monotonic()
        if self._incarnation not in ("", incarnation):
            return "the chief: it was started again"
        self._incarnation = incarnation
        return None

    def _first_lost(self) -> str | None:
        states = context.context().get_task_states(self._jobs)
        names = [f"{role} {index}" for role, count in self._jobs for index in range(count)]
        for name, state in zip(names, states, strict=True):
            if state is not None:
                return f"{name}: {str(state).splitlines()[0]}"
        return None

    def _exit(self, code: int, message: str) -> None:
        with _writing:
            _writing.wait_for(lambda: _writers == 0)
            if self._left.is_set():
                return
            backstop = threading.Timer(5.0, os._exit, [code])  # whoever reads our output may have stopped to
            backstop.daemon = True
            backstop.start()
            _log.error(message)
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _peer_error(lost: str) -> PeerError:
    return PeerError(
        "Another task of the cluster was lost",
        received=lost,
        hint=f"Its log says why. This task ends with {EXIT_RETRYABLE}, so that the platform starts it again: the "
        "training then goes on from the last checkpoint.",
    )


def _loss_behind(error: BaseException | None) -> str | None:
    """The lost task that an error, or one that it was raised from, is about."""
    while error is not None:
        if isinstance(error, tf.errors.OpError) and _ABORTED in str(error):
            reason = str(error).rpartition(_ABORTED)[2]  # the innermost, where one task quotes another
            match = _TASK.search(reason)
            # Without a name: the service did not answer, which is the chief's.
            return f"{f'{match[1]} {match[2]}' if match else 'the chief'}: {reason.splitlines()[0]}"
        error = error.__cause__ or error.__context__
    return None
