"""Vertex AI's endpoints: the models deployed to them, and their traffic split. Predictions are not served."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1 import types
from werkzeug.wrappers import Request

from tests.standin.clock import Clock
from tests.standin.service import ApiError
from tests.standin.vertex_messages import LOCATION, PROJECT_NUMBER, copy_message, page, parse, to_json, update_mask
from tests.standin.vertex_models import Models
from tests.standin.vertex_operations import Operations

_ID = re.compile(r"[0-9]{1,10}|[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


class Endpoints:
    """The endpoints of a project.

    Attributes:
        all: by id.
        on_deploy: callbacks; each deployment takes one and calls it before it is done. It may raise ApiError: then the
            deployment fails.
    """

    def __init__(self, clock: Clock, operations: Operations, models: Models) -> None:
        self.all: dict[str, types.Endpoint] = {}
        self.on_deploy: list[Callable[[], None]] = []
        self._clock, self._operations, self._models = clock, operations, models
        self._deployments = 0

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        endpoints = f"{LOCATION}/endpoints"
        return [
            ("POST", endpoints, self._create),
            ("GET", endpoints, self._list),
            ("GET", f"{endpoints}/<name>", self._get),
            ("PATCH", f"{endpoints}/<name>", self._update),
            ("DELETE", f"{endpoints}/<name>", self._delete),
            ("POST", f"{endpoints}/<name>:deployModel", self._deploy),
            ("POST", f"{endpoints}/<name>:undeployModel", self._undeploy),
        ]

    def _create(self, request: Request, project: str, location: str) -> dict[str, Any]:
        endpoint = parse(types.Endpoint, request.data)
        name = request.args.get("endpointId") or str(5000 + len(self.all))
        if not endpoint.display_name or not _ID.fullmatch(name):
            raise ApiError(
                400,
                "An endpoint needs a display_name, and an id of digits, or of lower-case letters, digits and hyphens.",
            )
        if name in self.all:
            raise ApiError(409, f"The Endpoint {name} already exists.")
        endpoint.name = f"projects/{PROJECT_NUMBER}/locations/{location}/endpoints/{name}"

        def carry_out() -> types.Endpoint:
            endpoint.create_time = endpoint.update_time = self._clock.now()
            self.all[name] = endpoint
            return endpoint

        return self._operations.start(endpoint.name, carry_out)

    def _find(self, name: str) -> types.Endpoint:
        if name not in self.all:
            raise ApiError(404, f"The Endpoint {name} does not exist.")
        return self.all[name]

    def _get(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        return to_json(self._find(name))

    def _list(self, request: Request, project: str, location: str) -> dict[str, Any]:
        return page(request, list(self.all.values()), "endpoints")

    def _update(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        endpoint, given = self._find(name), parse(types.Endpoint, request.data)
        self._operations.check_free("Endpoint", endpoint.name)
        for path in update_mask(request):
            if path not in ("display_name", "description", "labels", "traffic_split"):
                raise ApiError(400, f"{path} cannot be updated.")
            if path == "traffic_split":
                _check_split(dict(given.traffic_split), {one.id for one in endpoint.deployed_models})
            setattr(endpoint, path, getattr(given, path))
        return to_json(endpoint)

    def _delete(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        endpoint = self._find(name)
        if endpoint.deployed_models:
            raise ApiError(400, f"The Endpoint {name} has deployed models.")
        del self.all[name]
        return self._operations.start(endpoint.name)

    def _deploy(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        endpoint, given = self._find(name), parse(types.DeployModelRequest, request.data)
        requested, split = given.deployed_model, dict(given.traffic_split)
        version = self._models.find(requested.model.rpartition("/")[2])
        if (
            not requested.dedicated_resources.machine_spec.machine_type
            or requested.dedicated_resources.min_replica_count < 1
        ):
            raise ApiError(400, "dedicated_resources needs a machine_type and a min_replica_count.")
        self._operations.check_free("Endpoint", endpoint.name)
        _check_split(split, {"0", *(one.id for one in endpoint.deployed_models)})
        self._deployments += 1
        deployed = copy_message(requested)
        deployed.id = requested.id or str(600000 + self._deployments)
        deployed.model, deployed.model_version_id = version.name, version.version_id

        def carry_out() -> types.DeployModelResponse:
            if self.on_deploy:
                self.on_deploy.pop()()
            deployed.create_time = self._clock.now()
            endpoint.deployed_models.append(deployed)
            version.deployed_models.append(
                types.DeployedModelRef(endpoint=endpoint.name, deployed_model_id=deployed.id)
            )
            if split:
                endpoint.traffic_split = {deployed.id if one == "0" else one: share for one, share in split.items()}
            return types.DeployModelResponse(deployed_model=deployed)

        return self._operations.start(endpoint.name, carry_out)

    def _undeploy(self, request: Request, project: str, location: str, name: str) -> dict[str, Any]:
        endpoint, given = self._find(name), parse(types.UndeployModelRequest, request.data)
        removed = next((one for one in endpoint.deployed_models if one.id == given.deployed_model_id), None)
        if not removed:
            raise ApiError(404, f"The DeployedModel {given.deployed_model_id} does not exist.")
        self._operations.check_free("Endpoint", endpoint.name)
        others = [one for one in endpoint.deployed_models if one.id != removed.id]
        split = dict(given.traffic_split) or dict(endpoint.traffic_split)
        if others and split.get(removed.id):
            raise ApiError(400, f"The DeployedModel {removed.id} has traffic.")

        def carry_out() -> types.UndeployModelResponse:
            endpoint.deployed_models = others
            endpoint.traffic_split = split if others else {}
            version = self._models.find(f"{removed.model.rpartition('/')[2]}@{removed.model_version_id}")
            version.deployed_models = [one for one in version.deployed_models if one.deployed_model_id != removed.id]
            return types.UndeployModelResponse()

        return self._operations.start(endpoint.name, carry_out)


def _check_split(split: dict[str, int], known: set[str]) -> None:
    if split and (sum(split.values()) != 100 or set(split) - known):
        raise ApiError(400, f"traffic_split must be of deployed models, and add up to 100: {split}.")
