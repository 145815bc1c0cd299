"""A job of Dataflow that a step follows, and the next attempt of the step goes on with: it is found by its name.

Two jobs that have not ended cannot have one name, so no attempt starts a second one beside another.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import beam_runner
from tf_image_classification.dataflow.client import ROLE, SERVICE, Jobs, Json
from tf_image_classification.errors import FlagError, ServiceError, UnavailableError, UserError, printable_lines
from tf_image_classification.launch import stop_signal
from tf_image_classification.launch.stop_signal import StopSignal
from tf_image_classification.promotion.google_errors import translate_api_errors

_POLL_SECS = 5.0
_MAX_SILENCE_SECS = 1800.0  # of the service, while a job is followed
_MAX_CANCEL_SECS = 1800.0
_MAX_REASON_SECS = 60.0  # until a job that failed says why: Dataflow takes about half a minute
_MAX_ERRORS = 3  # that the step's error repeats

_PREFIX = "JOB_STATE_"
_DONE, _FAILED, _CANCELLED = "DONE", "FAILED", "CANCELLED"
_ENDED = {_DONE, _FAILED, _CANCELLED, "UPDATED", "DRAINED"}
_ENDING = {"CANCELLING", "DRAINING"}
_LEVELS = {"JOB_MESSAGE_ERROR": logging.ERROR, "JOB_MESSAGE_WARNING": logging.WARNING}

_log = logging.getLogger(__name__)


class DataflowJob:
    """See `beam_runner.RemoteJob`.

    Attributes:
        folder: for the workers' files.
    """

    def __init__(self, jobs: Jobs, name: str, folder: str) -> None:
        """Args:
        jobs: of the project and region.
        name: of the job: lower-case letters, digits and hyphens, a letter first.
        folder: on gs://.
        """
        self.folder = folder
        self._jobs, self._name = jobs, name
        self._id = ""  # '' until there is a job
        self._seen: set[tuple[str, str, str]] = set()  # messages that were shown; an id of theirs is deprecated
        self._since = ""  # the time of the last one
        self._errors: deque[str] = deque(maxlen=_MAX_ERRORS)

    def is_started(self) -> bool:
        """See RemoteJob. Waits for the end of a job whose results cannot be used, since none can be started before."""
        if self._id:
            return True
        job = next(iter(self._jobs.named(self._name)), None)
        if job is None:
            return False
        if _state(job) in _ENDING:
            self._wait_for_end(job["id"])
            return False
        if not storage.exists(beam_runner.marker(self.folder)):  # its results are used already, or files are lost
            if _state(job) not in _ENDED:
                _log.warning("Files of the job %s are gone", job["id"])
                self._end(job["id"])
            return False
        if _state(job) in _ENDED and _state(job) != _DONE:
            return False
        self._id = job["id"]
        _log.info("An earlier attempt of this step has started the job %s", self._id)
        return True

    def run(self, start: Callable[[], Any]) -> str:
        """See RemoteJob; `start` returns Beam's result, which has the id of the job."""
        with stop_signal.listening() as stop:
            if not self._id:
                self._id = self._create(start)
            return self._follow(stop)

    def cancel(self, runs: bool = False) -> bool:
        """Cancels the job, if it runs, and waits until it has ended.

        Args:
            runs: it is known to run, and not asked for first: a container that is stopped may have a second left.

        Returns:
            Whether no job runs any more; if that is not known, the log says why.
        """
        try:
            job_id = self._id or self._running()
            if runs or (job_id and _state(self._jobs.get(job_id)) not in _ENDED):
                self._end(job_id)
        except UserError as error:
            _log.error("The job %s may still run: %s", self._name, error)
            return False
        return True

    def _end(self, job_id: str) -> None:
        """Cancels a job that may have ended in between, and waits for its end."""
        _log.info("Cancelling the job %s", job_id)
        try:
            self._jobs.cancel(job_id)
        except FlagError:  # it has ended, or is being cancelled
            _log.info("The job is %s", _state(self._jobs.get(job_id)))
        self._wait_for_end(job_id)

    def _create(self, start: Callable[[], Any]) -> str:
        """The id of the job that `start` creates."""
        try:
            with translate_api_errors(SERVICE, "start a job", ROLE):
                return str(start().job_id())
        except Exception as error:
            if found := self._running():  # the request was carried out, only its answer was lost
                _log.info("The job %s was started all the same: %s", found, error)
                return found
            raise

    def _running(self) -> str:
        """The id of the job that has not ended; '' for none."""
        running = (job["id"] for job in self._jobs.named(self._name) if _state(job) not in _ENDED)
        return next(running, "")

    def _follow(self, stop: StopSignal) -> str:
        """Waits for the end of the job, and shows its page, its states and its messages."""
        _log.info("Dataflow job: %s", self._jobs.page(self._id))
        shown, answered = "", time.monotonic()
        while True:
            try:
                state = _state(self._jobs.get(self._id))
                self._show_messages()
                answered = time.monotonic()
            except UnavailableError as error:
                if time.monotonic() - answered > _MAX_SILENCE_SECS:
                    raise
                _log.warning("%s", error)
                state = shown
            if state != shown:
                shown = state
                _log.info("The job is %s", state)
            if state in _ENDED:
                break
            if stop.wait(_POLL_SECS):
                self.cancel(runs=True)
                raise stop.exit()
        if state == _DONE:
            return _DONE
        raise self._failure(state)

    def _show_messages(self) -> None:
        """Logs the messages that are new. Those of the last time seen are asked for again, as more may have come."""
        for message in self._jobs.messages(self._id, self._since):
            when, importance, text = (message.get(name, "") for name in ("time", "messageImportance", "messageText"))
            if (when, importance, text) in self._seen:
                continue
            self._seen.add((when, importance, text))
            self._since = max(self._since, when)
            level = _LEVELS.get(importance, logging.INFO)
            _log.log(level, "Dataflow: %s", printable_lines(text))
            if level == logging.ERROR:
                self._errors.append(_brief(text))

    def _failure(self, state: str) -> UserError:
        """The error of a job that has not succeeded."""
        page = self._jobs.page(self._id)
        if state == _CANCELLED:
            return ServiceError("The build's Dataflow job was cancelled", received=page)
        end = time.monotonic() + _MAX_REASON_SECS
        while not self._errors and time.monotonic() < end:
            time.sleep(min(1.0, _POLL_SECS))
            try:
                self._show_messages()
            except UnavailableError as error:
                _log.warning("%s", error)
        return ServiceError(
            "The build's Dataflow job failed",
            received="; ".join(self._errors) or f"the job is {state}",
            hint=f"Its page has the logs of its workers: {page}",
        )

    def _wait_for_end(self, job_id: str) -> None:
        """Waits until a job that is being cancelled has ended.

        Raises:
            UnavailableError: it takes too long.
        """
        end = time.monotonic() + _MAX_CANCEL_SECS
        shown = ""
        while time.monotonic() < end:
            state = _state(self._jobs.get(job_id))
            if state != shown:
                shown = state
                _log.info("The job is %s", state)
            if state in _ENDED:
                return
            time.sleep(min(1.0, _POLL_SECS))
        raise UnavailableError(
            "A Dataflow job that was cancelled takes too long to end", received=self._jobs.page(job_id)
        )


def _state(job: Json) -> str:
    return str(job.get("currentState", f"{_PREFIX}PENDING")).removeprefix(_PREFIX)


def _brief(message: str) -> str:
    """What a message says last: of a traceback of a worker, the exception."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if len(lines) > 1 and "Traceback" in message else " ".join(lines)
