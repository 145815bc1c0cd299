"""Google Cloud's REST APIs, with the caller's credentials: requests that read."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import google.auth
import requests
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2.credentials import Credentials as UserCredentials

from pipelines.checks.lines import Unknown
from pipelines.registry import cause_of
from tf_image_classification.storage.service_errors import server_message

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT = 20  # seconds
# The role that lets an account read what is asked here of a service.
_READER = {"iam": "roles/iam.serviceAccountViewer", "serviceusage": "roles/serviceusage.serviceUsageConsumer"}
UNNAMED = "user:YOU"  # the caller, in commands, where nobody says who that is


class ApiError(Unknown):
    """A service answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, found: str, mend: str = "") -> None:
        super().__init__(found, mend)
        self.status = status


class GoogleApi:
    """Requests for a project.

    The variable CLOUDSDK_API_ENDPOINT_OVERRIDES_SERVICE, gcloud's, names another address of a service. One with http://
    is sent no credentials.
    """

    def __init__(self, project: str) -> None:
        self._project = project

    @property
    def credentials(self) -> Credentials:
        """The caller's Application Default Credentials.

        Raises:
            google.auth.exceptions.GoogleAuthError: there are none, or they are no longer valid.
        """
        if isinstance(self._credentials, GoogleAuthError):
            raise self._credentials
        return self._credentials

    @functools.cached_property
    def _credentials(self) -> Credentials | GoogleAuthError:
        # Looked for once: without any, a search asks for the metadata service of a machine of Google's for seconds.
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
            credentials.refresh(Request())
        except GoogleAuthError as error:
            return error
        if isinstance(credentials, UserCredentials) and self._project and not credentials.quota_project_id:
            # Some APIs refuse a person's credentials without the project that the requests count for.
            credentials = credentials.with_quota_project(self._project)
        return credentials

    @functools.cached_property
    def member(self) -> str:
        """The caller, as roles are given to: user:EMAIL or serviceAccount:EMAIL; UNNAMED if the name is not known."""
        try:
            if email := getattr(self.credentials, "service_account_email", ""):
                return f"serviceAccount:{email}"
            return (
                f"user:{getattr(self.credentials, 'account', '') or self.get('openidconnect', 'v1/userinfo')['email']}"
            )
        except (GoogleAuthError, ApiError, KeyError):
            return UNNAMED

    def get(self, service: str, path: str, **parameters: Any) -> dict[str, Any]:
        """The JSON of a resource.

        Args:
            service: first part of its address, as serviceusage.

        Raises:
            ApiError: the service refuses, or cannot be reached (status 0).
        """
        return self._call("GET", service, path, params=parameters)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question that Google's APIs take as a POST, such as testIamPermissions; changes nothing.

        Raises:
            ApiError: as of `get`.
        """
        return self._call("POST", service, path, json=body)

    def _call(self, method: str, service: str, path: str, **options: Any) -> dict[str, Any]:
        override = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", "").rstrip("/")
        url = f"{override or f'https://{service}.googleapis.com'}/{path}"
        session = requests.Session() if url.startswith("http://") else AuthorizedSession(self.credentials)
        with session:
            try:
                answer = session.request(method, url, timeout=_TIMEOUT, **options)
            except requests.RequestException as error:
                raise ApiError(0, f"{service} cannot be reached: {cause_of(error)}", "Check the network.") from None
        if answer.ok:
            return dict(answer.json())
        message = server_message(requests.HTTPError(answer.reason, response=answer))
        if "SERVICE_DISABLED" in answer.text:
            mend = f"gcloud services enable {service}.googleapis.com --project {self._project}"
            raise ApiError(answer.status_code, f"the API that tells is disabled: {message}", mend)
        mend = ""
        if answer.status_code == 403 and service in _READER:
            mend = (
                f"gcloud projects add-iam-policy-binding {self._project} --member {self.member} "
                f"--role {_READER[service]} --condition None"
            )
        raise ApiError(answer.status_code, f"{answer.status_code}: {message}", mend)
