"""Work that training does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tf_image_classification.training import peer_watch


class BackgroundWorker:
    """Runs one function in a thread, never twice at a time.

    A request during a run makes it run once more afterwards, however many requests there were. The thread starts with a
    request, ends when none is left, and does not keep the process alive: `wait` before the process ends.

    `request` and `wait` are for one thread, the owner's. `_requested` and `_running` belong to whichever thread holds
    the lock; `error` is written by the worker's thread alone, and once; `_thread` is the owner's.

    Attributes:
        error: the exception that ended the work for good, or None. The function is not run any more after it.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._requested = self._running = False
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def request(self) -> None:
        """Requests a run that begins after this call. Returns at once."""
        with self._lock:
            self._requested = True
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Waits until every request is served, or `error` is set."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._requested or self.error is not None:
                    self._running = False
                    return
                self._requested = False
            try:
                with peer_watch.undisturbed():
                    self._work()
            except BaseException as error:  # whatever it is, the owner's thread has to know
                self.error = error
