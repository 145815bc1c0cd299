"""Work that training does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does one piece of work in a thread, again when asked again meanwhile; never twice at a time.

    The thread does not keep the process alive.

    Attributes:
        error: what ended the work for good; nothing is done after it.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._asked = self._running = False
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def ask(self) -> None:
        """Asks for the work to be done from its beginning."""
        with self._lock:
            self._asked = True
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Waits until what was asked for is done, or has failed."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._asked or self.error is not None:
                    self._running = False
                    return
                self._asked = False
            try:
                self._work()
            except BaseException as error:  # whatever it is: the thread that asked has to know
                self.error = error
