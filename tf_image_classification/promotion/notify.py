"""Notifies when a pipeline run fails: a POST to a webhook, or a Pub/Sub message."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from google.api_core import exceptions

from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.promotion import kubeflow_outcome, webhooks
from tf_image_classification.promotion.google_errors import api_retry, translate_api_errors
from tf_image_classification.storage.service_errors import last_error

_log = logging.getLogger(__name__)

_TOPIC = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")
_JOB = re.compile(r"projects/([^/]+)/locations/([^/]+)/pipelineJobs/([^/]+)")
_SUCCEEDED = "SUCCEEDED"
_FAILED = "FAILED"
_UNKNOWN = "UNKNOWN"  # whether the run succeeded or failed
_FAILED_STATES = (_FAILED, "ERROR", "CANCELLED", "CANCELED", "CANCELLING", "CANCELING")
_FORMS = "https://HOST/PATH or projects/PROJECT/topics/TOPIC"
_TIMEOUT_SECS = 30


def check(destination: str, *, insecure: bool = False) -> None:
    """Checks that a destination is the URL of a webhook or a Pub/Sub topic.

    Args:
        destination: of --notify.
        insecure: allows http:// and addresses of this machine; never metadata services.

    Raises:
        FlagError: it is neither, is not allowed, or contains a user or password, which the compiled pipeline would
            show; or `insecure` has no effect.
    """
    if _TOPIC.fullmatch(destination) or not destination:
        if insecure:
            raise FlagError(
                "--notify_insecure has no effect without a URL",
                received=f"--notify {destination}" if destination else "no --notify",
                expected="--notify http://HOST/PATH",
            )
        if destination:
            return
    url = _parse_url(destination)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise FlagError("Invalid value for --notify", received=_redact(destination), expected=_FORMS)
    if url.username is not None or url.password is not None:
        raise FlagError(
            "--notify contains a user or password, which the compiled pipeline would show",
            received=_redact(destination),
            expected=_FORMS,
            hint="Use a Pub/Sub topic that the run's service account may publish to.",
        )
    if url.scheme == "http" and not insecure:
        raise FlagError(
            "--notify would send the run's errors over http, which anyone on the way can read",
            received=_redact(destination),
            expected=_FORMS,
            hint="--notify_insecure allows it.",
        )
    webhooks.check_host(url.hostname, insecure=insecure)


def notify(destination: str, status: Mapping[str, Any], run: str, *, insecure: bool = False) -> bool:
    """Sends a notification unless the run succeeded.

    The JSON has `text`, which chat webhooks show, and `state`, `run`, `error`, `error_code`, `task` and `link` for
    programs. A Pub/Sub message has it as data, and `state` and `run` as attributes. The state is UNKNOWN where nothing
    tells whether the run succeeded; the error says why.

    Args:
        destination: https://... (with `insecure` http://... too), or projects/P/topics/T. PUBSUB_EMULATOR_HOST is
            respected.
        status: the attributes of dsl.PipelineTaskFinalStatus: `state`, `pipeline_job_resource_name`,
            `pipeline_task_name`, `error_code`, `error_message`.
        run: name of the run; '' as of scheduled runs on Kubeflow.
        insecure: see `check`.

    Returns:
        Whether a notification was sent.

    Raises:
        FlagError: the destination is invalid; also of a run that succeeded. Or its name resolves to an address that is
            not allowed.
        ServiceError: the destination refused the notification, or could not be reached.
    """
    check(destination, insecure=insecure)
    ended = _ended(status, run)
    if ended.state == _SUCCEEDED:
        _log.info("The run %s succeeded: no notification", ended.run)
        return False
    message = _message(status, ended)
    if _TOPIC.fullmatch(destination):
        _publish(destination, message)
    else:
        _post(destination, message, insecure)
    _log.info("Notified %s: the run %s ended as %s", _redact(destination), ended.run, ended.state)
    return True


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ended.

    Attributes:
        run: its name.
        state: SUCCEEDED, UNKNOWN, or one of the states of failure.
        error: why it failed, or why nothing tells; '' where nobody says.
    """

    run: str
    state: str
    error: str = ""


def _ended(status: Mapping[str, Any], run: str) -> _End:
    """How the run ended: by its status, or on Kubeflow, where that does not tell, by its workflow."""
    resource = status.get("pipeline_job_resource_name") or ""
    run = run or resource.rpartition("/")[2] or "without a name"
    state, error = status["state"], status.get("error_message") or ""
    if not _JOB.fullmatch(resource) and kubeflow_outcome.is_in_cluster():
        try:
            outcome = kubeflow_outcome.read(resource, status.get("pipeline_task_name") or "")
        except ServiceError as failed:
            return _End(run, _UNKNOWN, f"Kubeflow's status of it is {state}, which does not tell. {failed}")
        return _End(outcome.run, _FAILED if outcome.failed else _SUCCEEDED, "; ".join(outcome.errors))
    if state == _SUCCEEDED or state in _FAILED_STATES:
        return _End(run, state, error)
    return _End(run, _UNKNOWN, f"Its status is {state}, which does not tell. {error}".strip())


def _message(status: Mapping[str, Any], ended: _End) -> dict[str, Any]:
    job = _JOB.fullmatch(status.get("pipeline_job_resource_name") or "")
    link = (
        f"https://console.cloud.google.com/vertex-ai/locations/{job[2]}/pipelines/runs/{job[3]}?project={job[1]}"
        if job
        else ""
    )
    what = f"ended as {ended.state}" if ended.state != _UNKNOWN else "has ended, and may have failed"
    lines = [f"The run {ended.run} {what}.", ended.error, link]
    return {
        "text": "\n".join(line for line in lines if line),
        "state": ended.state,
        "run": ended.run,
        "task": status.get("pipeline_task_name") or "",
        "error": ended.error,
        "error_code": status.get("error_code") or 0,
        "link": link,
    }


def _post(destination: str, message: dict[str, Any], insecure: bool) -> None:
    """Posts to a webhook. Its errors name the host only: path and query are secret."""

    def post() -> None:
        # Redirects are not followed: requests would turn the POST into a GET without the message.
        with webhooks.session(insecure=insecure) as session:
            response = session.post(destination, json=message, timeout=_TIMEOUT_SECS, allow_redirects=False)
        if response.status_code >= 300:
            raise exceptions.from_http_status(response.status_code, response.reason or "refused")

    try:
        api_retry(also=(exceptions.TooManyRequests,))(post)()
    except (exceptions.GoogleAPICallError, exceptions.RetryError, requests.RequestException) as error:
        cause = last_error(error)
        # The messages of requests' own errors contain the URL.
        received = type(cause).__name__
        if isinstance(cause, exceptions.GoogleAPICallError):
            received = f"{cause.code} {cause.message}"
        raise ServiceError(
            f"Cannot notify {_redact(destination)} of the run {message['run']}",
            received=received,
            hint="Check the URL. The result of the run itself is not affected.",
        ) from None


def _publish(topic: str, message: dict[str, Any]) -> None:
    """Publishes over REST: one request needs no client library."""
    from google.auth import default
    from google.auth.transport.requests import AuthorizedSession

    data = base64.b64encode(json.dumps(message).encode()).decode()
    body = {"messages": [{"data": data, "attributes": {"state": message["state"], "run": message["run"]}}]}
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    with translate_api_errors("Pub/Sub", f"publish to {topic}", "roles/pubsub.publisher"):
        if emulator:
            session, host = requests.Session(), f"http://{emulator}"
        else:
            session = AuthorizedSession(default(scopes=["https://www.googleapis.com/auth/pubsub"])[0])
            host = "https://pubsub.googleapis.com"

        def post() -> None:
            response = session.post(f"{host}/v1/{topic}:publish", json=body, timeout=_TIMEOUT_SECS)
            if not response.ok:
                raise exceptions.from_http_response(response)

        api_retry(also=(exceptions.TooManyRequests,))(post)()


def _redact(destination: str) -> str:
    """A destination without its secret parts: of a URL, scheme and host."""
    if _TOPIC.fullmatch(destination):
        return destination
    url = _parse_url(destination)
    return f"{url.scheme}://{url.hostname}" if url.scheme and url.hostname else "neither a URL nor a topic"


def _parse_url(destination: str) -> urllib.parse.SplitResult:
    """The parts of a URL, all empty if it cannot be parsed."""
    try:
        return urllib.parse.urlsplit(destination)
    except ValueError:
        return urllib.parse.SplitResult("", "", "", "", "")
