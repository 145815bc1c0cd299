"""Vertex AI's Model Registry: models, their versions and aliases, and the evaluations of a version."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin import bucket
from tests.standin.clock import Clock
from tests.standin.service import ApiError
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, copy_message, page, parse, to_json, update_mask
from tests.standin.vertex_operations import Operations

_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_JOB = re.compile(r"projects/[^/]+/locations/[^/]+/pipelineJobs/[^/]+")
_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/{}_metrics_1.0.0.yaml"
_FIELDS = {
    _SCHEMA.format("classification"): {"auPrc", "auRoc", "logLoss", "confidenceMetrics", "confusionMatrix"},
    _SCHEMA.format("regression"): {
        "rootMeanSquaredError",
        "meanAbsoluteError",
        "meanAbsolutePercentageError",
        "rSquared",
        "rootMeanSquaredLogError",
    },
}


class Models:
    """The models of a project.

    Attributes:
        versions: id -> version id -> version, oldest first.
        evaluations: (id, version id) -> evaluations.
    """

    def __init__(self, clock: Clock, operations: Operations, storage_url: str) -> None:
        self.versions: dict[str, dict[str, types.Model]] = {}
        self.evaluations: dict[tuple[str, str], list[types.ModelEvaluation]] = {}
        self._clock, self._operations, self._storage_url = clock, operations, storage_url
        self._created: dict[str, int] = {}  # id -> number of versions ever created, or being created

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        models = f"{LOCATION}/models"
        return [
            ("POST", f"{models}:upload", self._upload),
            ("GET", models, self._list),
            ("GET", f"{models}/<name>", self._get),
            ("PATCH", f"{models}/<name>", self._update),
            ("DELETE", f"{models}/<name>", self._delete),
            ("GET", f"{models}/<name>:listVersions", self._list_versions),
            ("DELETE", f"{models}/<name>:deleteVersion", self._delete_version),
            ("POST", f"{models}/<name>:mergeVersionAliases", self._merge_aliases),
            ("POST", f"{models}/<name>/evaluations:import", self._import_evaluation),
            ("GET", f"{models}/<name>/evaluations", self._list_evaluations),
        ]

    def find(self, name: str) -> types.Model:
        """The version that `ID`, `ID@VERSION` or `ID@ALIAS` names.

        Raises:
            ApiError: not found.
        """
        model, _, version = name.partition("@")
        for one in self.versions.get(model, {}).values():
            if one.version_id == version or (version or "default") in one.version_aliases:
                return one
        raise ApiError(404, f"The Model {name} does not exist.")

    def _upload(self, request: Request, project: str, location: str) -> dict[str, Any]:
        given = parse(types.UploadModelRequest, request.data)
        self._check(given.model)
        if given.parent_model:
            name = given.parent_model.rpartition("/")[2].partition("@")[0]
            self.find(name)
        else:
            name = given.model_id or str(7000 + len(self._created))
            if given.model_id and not _ID.fullmatch(given.model_id):
                raise ApiError(400, f"Invalid model_id {given.model_id!r}.")
            if name in self._created:
                raise ApiError(409, f"The Model {name} already exists.")
        resource = f"projects/{PROJECT_NUMBER}/locations/{location}/models/{name}"
        number = self._created[name] = self._created.get(name, 0) + 1

        def carry_out() -> types.UploadModelResponse:
            now = self._clock.now()
            version = copy_message(given.model)
            version.name, version.version_id = resource, str(number)
            version.create_time = version.update_time = version.version_create_time = version.version_update_time = now
            version.supported_deployment_resources_types = [types.Model.DeploymentResourcesType.DEDICATED_RESOURCES]
            version.version_aliases = []
            first = not self.versions.get(name)
            self.versions.setdefault(name, {})[version.version_id] = version
            self._alias(name, version, [*given.model.version_aliases, *(["default"] if first else [])])
            return types.UploadModelResponse(model=resource, model_version_id=version.version_id)

        return self._operations.start(resource, carry_out)

    def _check(self, model: types.Model) -> None:
        if not model.display_name:
            raise ApiError(400, "model.display_name is required.")
        if not model.container_spec.image_uri:
            raise ApiError(400, "model.container_spec.image_uri is required.")
        if model.pipeline_job and not _JOB.fullmatch(model.pipeline_job):
            raise ApiError(400, f"Invalid pipeline_job {model.pipeline_job!r}.")
        for key, value in model.labels.items():
            if not key or not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
                raise ApiError(400, f"Invalid label {key}={value}.")
        if not model.artifact_uri.startswith("gs://"):
            raise ApiError(400, "model.artifact_uri must be a Cloud Storage path.")
        if self._storage_url:
            bucket_name, _, folder = model.artifact_uri.removeprefix("gs://").partition("/")
            if (
                not bucket.client(self._storage_url)
                .bucket(bucket_name)
                .blob(f"{folder.rstrip('/')}/saved_model.pb")
                .exists()
            ):
                raise ApiError(400, f"{model.artifact_uri} holds no saved_model.pb.")

    def _get(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return to_json(self.find(name))

    def _list(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return page(request, [self.find(name) for name in self.versions], "models")

    def _list_versions(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        model = self.find(name.partition("@")[0]).name
        versions = [copy_message(one) for one in self.versions[model.rpartition("/")[2]].values()]
        for one in versions:
            one.name = f"{model}@{one.version_id}"
        return page(request, versions, "models")

    def _update(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        version, given = self.find(name), parse(types.Model, request.data)
        for path in update_mask(request):
            if path not in ("display_name", "description", "version_description", "labels"):
                raise ApiError(400, f"{path} cannot be updated.")
            setattr(version, path, getattr(given, path))
        version.update_time = self._clock.now()
        return to_json(version)

    def _merge_aliases(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        model, _, number = name.partition("@")
        if not number.isdigit():
            raise ApiError(400, "A version ID is required.")
        version = self.find(name)
        given = list(parse(types.MergeVersionAliasesRequest, request.data).version_aliases)
        if not given or any(not _ALIAS.fullmatch(alias.removeprefix("-")) for alias in given) or "-default" in given:
            raise ApiError(400, f"Invalid version_aliases {given}.")
        self._alias(model, version, [alias for alias in given if not alias.startswith("-")])
        removed = {alias[1:] for alias in given if alias.startswith("-")}
        version.version_aliases = [alias for alias in version.version_aliases if alias not in removed]
        return to_json(version)

    def _alias(self, model: str, version: types.Model, aliases: list[str]) -> None:
        """Moves aliases to a version: each belongs to one version of a model."""
        for other in self.versions[model].values():
            other.version_aliases = [alias for alias in other.version_aliases if alias not in aliases]
        version.version_aliases = [*version.version_aliases, *dict.fromkeys(aliases)]

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        resource = self.find(name).name
        if any(one.deployed_models for one in self.versions[name].values()):
            raise ApiError(400, f"The Model {name} is deployed.")
        del self.versions[name], self._created[name]
        return self._operations.start(resource)

    def _delete_version(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        version = self.find(name)
        if version.deployed_models or "default" in version.version_aliases:
            raise ApiError(400, f"The version {name} is the default, or deployed.")
        del self.versions[name.partition("@")[0]][version.version_id]
        return self._operations.start(version.name)

    def _import_evaluation(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        version, evaluation = self.find(name), parse(types.ImportModelEvaluationRequest, request.data).model_evaluation
        metrics = to_json(evaluation).get("metrics", {})
        known = _FIELDS.get(evaluation.metrics_schema_uri)
        if known is None or not metrics or set(metrics) - known:
            raise ApiError(
                400, f"The metrics do not match {evaluation.metrics_schema_uri or 'any schema'}: {', '.join(metrics)}."
            )
        matrix = metrics.get("confusionMatrix", {"annotationSpecs": [], "rows": []})
        if {len(matrix["annotationSpecs"])} != {len(matrix["rows"]), *map(len, matrix["rows"])}:
            raise ApiError(400, "confusionMatrix must have a row and a column for each of its annotationSpecs.")
        there = self.evaluations.setdefault((name.partition("@")[0], version.version_id), [])
        evaluation.name = f"{version.name}/evaluations/{9000 + len(there)}"
        evaluation.create_time = self._clock.now()
        there.append(evaluation)
        return to_json(evaluation)

    def _list_evaluations(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return page(
            request, self.evaluations.get((name.partition("@")[0], self.find(name).version_id), []), "modelEvaluations"
        )
