"""Telling of a pipeline run that did not succeed: a POST to a webhook, or a Pub/Sub message."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import requests
from google.api_core import exceptions

from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.promotion.google_errors import api_retry, translate_api_errors

_log = logging.getLogger(__name__)

_TOPIC = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")
_JOB = re.compile(r"projects/([^/]+)/locations/([^/]+)/pipelineJobs/([^/]+)")
# Vertex AI's words, and those of Kubeflow, which calls a success COMPLETE, and in between tells whatever state it is
# in.
_FAILED = ("FAILED", "ERROR", "CANCELLED", "CANCELED", "CANCELLING", "CANCELING")
_EXPECTED = "https://HOST/PATH or projects/PROJECT/topics/TOPIC"
_SECONDS = 30


def check(destination: str) -> None:
    """Makes sure that a destination has a form that can be told.

    Raises:
        FlagError: it has not, or holds a user and password, which would stand in the compiled pipeline.
    """
    if _TOPIC.fullmatch(destination):
        return
    address = _address(destination)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise FlagError("Invalid value for --notify", received=_shown(destination), expected=_EXPECTED)
    if address.username is not None or address.password is not None:
        raise FlagError(
            "--notify holds a user or password, which would stand in the compiled pipeline",
            received=_shown(destination),
            expected=_EXPECTED,
            hint="Use a Pub/Sub topic, which the run's own account may publish to.",
        )


def notify(destination: str, status: Mapping[str, Any], run: str) -> bool:
    """Tells of a run that did not succeed.

    The JSON has `text`, which chat webhooks show, and `state`, `run`, `error`, `error_code`, `task` and `link` for
    machines; a topic gets it as the message's data, and `state` and `run` as attributes.

    Args:
        destination: https://... (or http://...), or projects/P/topics/T. PUBSUB_EMULATOR_HOST is respected.
        status: of dsl.PipelineTaskFinalStatus: `state`, `pipeline_job_resource_name`, `pipeline_task_name`,
            `error_code`, `error_message`.
        run: its name.

    Returns:
        Whether there was something to tell.

    Raises:
        FlagError: the destination has another form.
        ServiceError: it did not take the message.
    """
    check(destination)
    if status["state"] not in _FAILED:
        _log.info("The run %s ended as %s: nobody is told", run, status["state"])
        return False
    message = _message(status, run)
    if _TOPIC.fullmatch(destination):
        _publish(destination, message)
    else:
        _post(destination, message)
    _log.info("Told %s that the run %s ended as %s", _shown(destination), run, message["state"])
    return True


def _message(status: Mapping[str, Any], run: str) -> dict[str, Any]:
    job = _JOB.fullmatch(status.get("pipeline_job_resource_name") or "")
    link = (
        f"https://console.cloud.google.com/vertex-ai/locations/{job[2]}/pipelines/runs/{job[3]}?project={job[1]}"
        if job
        else ""
    )
    error = status.get("error_message") or ""
    lines = [f"The run {run} ended as {status['state']}.", error, link]
    return {
        "text": "\n".join(line for line in lines if line),
        "state": status["state"],
        "run": run,
        "task": status.get("pipeline_task_name") or "",
        "error": error,
        "error_code": status.get("error_code") or 0,
        "link": link,
    }


def _post(destination: str, message: dict[str, Any]) -> None:
    """Posts to a webhook. What is said of a failure names its host alone: path and query are its secret."""

    def post() -> None:
        # Redirects are not followed: requests would turn the POST into a GET, which tells nobody anything.
        response = requests.post(destination, json=message, timeout=_SECONDS, allow_redirects=False)
        if response.status_code >= 300:
            raise exceptions.from_http_status(response.status_code, response.reason or "refused")

    try:
        api_retry(also=(exceptions.TooManyRequests,))(post)()
    except (exceptions.GoogleAPICallError, exceptions.RetryError, requests.RequestException) as error:
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        # The address is part of what requests says.
        said = (
            f"{cause.code} {cause.message}"
            if isinstance(cause, exceptions.GoogleAPICallError)
            else type(cause).__name__
        )
        raise ServiceError(
            f"{_shown(destination)} could not be told of the run {message['run']}",
            received=said,
            hint="Check the address; the run itself is not changed by this.",
        ) from None


def _publish(topic: str, message: dict[str, Any]) -> None:
    """Publishes over REST, so that no further package is needed for one request."""
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
            response = session.post(f"{host}/v1/{topic}:publish", json=body, timeout=_SECONDS)
            if not response.ok:
                raise exceptions.from_http_response(response)

        api_retry(also=(exceptions.TooManyRequests,))(post)()


def _shown(destination: str) -> str:
    """A destination without what may be secret in it."""
    if _TOPIC.fullmatch(destination):
        return destination
    address = _address(destination)
    return (
        f"{address.scheme}://{address.hostname}" if address.scheme and address.hostname else "neither a URL nor a topic"
    )


def _address(destination: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(destination)
    except ValueError:
        return urllib.parse.SplitResult("", "", "", "", "")
