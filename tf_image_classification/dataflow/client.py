"""Dataflow's REST API: its jobs and their messages.

Beam creates jobs itself. See https://docs.cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import google.auth
import requests
from google.api_core import exceptions
from google.auth.transport.requests import AuthorizedSession

from tf_image_classification.errors import FlagError, UnavailableError, printable
from tf_image_classification.promotion.google_errors import RETRY, translate_api_errors

SERVICE, ROLE = "Dataflow", "roles/dataflow.developer"
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW"  # as gcloud names it

_ADDRESS = "https://dataflow.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT = 60  # seconds
_SHOWN = 200  # characters of an answer that is not the service's

Json = dict[str, Any]


def endpoint() -> str:
    """The service's address that $CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW names; '' for its usual one."""
    return os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/")


def is_local(address: str) -> bool:
    """Whether an address is sent no credentials: one with http://."""
    return address.startswith("http://")


class Jobs:
    """The jobs of a project in a region.

    Attributes:
        project, region: of the jobs.
    """

    def __init__(self, project: str, region: str) -> None:
        """Signs in.

        Args:
            project: '' for that of the credentials.

        Raises:
            FlagError: the credentials name no project.
            ServiceError: there are none, or they are not valid.
        """
        address = endpoint() or _ADDRESS
        credentials = None
        if not is_local(address):
            with translate_api_errors(SERVICE, "sign in"):
                credentials, of_credentials = google.auth.default(scopes=[_SCOPE])
            project = project or of_credentials or ""
        if not project:
            raise FlagError(
                "It is not known in which Google Cloud project Dataflow is to run",
                hint="On Vertex AI it is the run's. Elsewhere the credentials name it, or the variable "
                "GOOGLE_CLOUD_PROJECT of the build step, which --kubernetes can set.",
            )
        self.project, self.region = project, region
        self._session = AuthorizedSession(credentials) if credentials else requests.Session()
        self._url = f"{address}/v1b3/projects/{project}/locations/{region}/jobs"

    def named(self, name: str) -> list[Json]:
        """The jobs of a name, of which at most one has not ended; the newest first."""
        listed = self._pages(self._url, "jobs", {"name": name, "filter": "ALL"}, "list jobs")
        found = [job for job in listed if job.get("name") == name]
        return sorted(found, key=lambda job: str(job.get("createTime", "")), reverse=True)

    def get(self, job_id: str) -> Json:
        """A job. Of one that has just been created `currentState` may be missing."""
        return self._call("GET", f"{self._url}/{job_id}", f"show the job {job_id}")

    def messages(self, job_id: str, since: str) -> list[Json]:
        """The messages of a job, without the details, in the order of their times.

        Args:
            since: time of the first one; '' for all.
        """
        query = {"minimumImportance": "JOB_MESSAGE_BASIC"} | ({"startTime": since} if since else {})
        url = f"{self._url}/{job_id}/messages"
        found = self._pages(url, "jobMessages", query, f"show the messages of the job {job_id}")
        return sorted(found, key=lambda message: str(message.get("time", "")))

    def cancel(self, job_id: str) -> None:
        """Asks for the cancellation of a job, which takes minutes.

        Raises:
            FlagError: it has ended.
        """
        wanted = {"requestedState": "JOB_STATE_CANCELLED"}
        self._call("PUT", f"{self._url}/{job_id}", f"cancel the job {job_id}", json=wanted)

    def page(self, job_id: str) -> str:
        """A job's page in the console."""
        return f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{job_id}?project={self.project}"

    def _pages(self, url: str, field: str, query: Mapping[str, str], action: str) -> Iterator[Json]:
        token = ""
        while True:
            answer = self._call("GET", url, action, params={**query, **({"pageToken": token} if token else {})})
            yield from answer.get(field, [])
            token = answer.get("nextPageToken", "")
            if not token:
                return

    def _call(self, method: str, url: str, action: str, **options: Any) -> Json:
        """A request, which is repeated for a while if the service does not answer.

        Raises:
            UnavailableError: the answer is not the service's, but a proxy's.
            UserError: as of `translate_api_errors`.
        """

        def call() -> Json:
            answer = self._session.request(method, url, timeout=_TIMEOUT, **options)
            if answer.status_code >= 400:
                raise exceptions.from_http_response(answer)
            try:
                return dict(answer.json())
            except (TypeError, ValueError):
                raise UnavailableError(
                    f"The answer is not that of {SERVICE}; cannot {action}",
                    received=printable(answer.text[:_SHOWN]),
                    expected="JSON",
                    hint=f"Does a proxy, or ${ENDPOINT_VARIABLE}, lead elsewhere?",
                ) from None

        with translate_api_errors(SERVICE, action, ROLE):
            return RETRY(call)()
