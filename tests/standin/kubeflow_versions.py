"""Uploaded pipelines and their versions, of the Kubeflow stand-in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from werkzeug.wrappers import Request

from tests.standin.service import ApiError

Resource = dict[str, Any]
Page = Callable[[Request, dict[str, Resource], str], Resource]


class PipelineVersions:
    """Versions of pipelines, as people upload them in the UI.

    Attributes:
        all: by id.
    """

    def __init__(self, now: Callable[[], str], page: Page) -> None:
        self.all: dict[str, Resource] = {}
        self._now, self._page = now, page

    def routes(self, api: str) -> list[tuple[str, str, Callable[..., Any]]]:
        """As `Service.routes`; `api` precedes each."""
        versions = f"{api}/pipelines/<pipeline>/versions"
        return [
            ("GET", versions, self._list),
            ("GET", f"{versions}/<version>", self._get),
            ("DELETE", f"{versions}/<version>", self._delete),
        ]

    def upload(self, name: str, spec: Resource, pipeline_id: str = "") -> tuple[str, str]:
        """Adds a version, of a new pipeline unless one is given; returns the ids of the pipeline and the version."""
        version = {
            "pipeline_id": pipeline_id or str(uuid.uuid4()),
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": name,
            "created_at": self._now(),
            "pipeline_spec": spec,
        }
        self.all[version["pipeline_version_id"]] = version
        return version["pipeline_id"], version["pipeline_version_id"]

    def find(self, reference: Resource) -> Resource:
        """The version that a run refers to: without an id of one, the latest of its pipeline."""
        if name := reference.get("pipeline_version_id"):
            return self._find(name)
        latest = [one for one in self.all.values() if one["pipeline_id"] == reference.get("pipeline_id")]
        if not latest:
            raise ApiError(404, "ResourceNotFound: the pipeline has no version.")
        return latest[-1]

    def _find(self, name: str) -> Resource:
        if name not in self.all:
            raise ApiError(404, f"ResourceNotFound: PipelineVersion {name} not found.")
        return self.all[name]

    def _list(self, request: Request, pipeline: str) -> Resource:
        found = {name: one for name, one in self.all.items() if one["pipeline_id"] == pipeline}
        return self._page(request, found, "pipeline_versions")

    def _get(self, request: Request, pipeline: str, version: str) -> Resource:
        return self._find(version)

    def _delete(self, request: Request, pipeline: str, version: str) -> Resource:
        self._find(version)
        del self.all[version]
        return {}
