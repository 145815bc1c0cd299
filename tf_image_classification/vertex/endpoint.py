"""An endpoint that serves one version of a model: another version replaces it without an interruption."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from google.api_core import exceptions, retry
from google.cloud import aiplatform_v1 as vertex
from google.protobuf import field_mask_pb2

from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.promotion.google_errors import RETRY, translate_api_errors
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options, wait_for

_log = logging.getLogger(__name__)
_ATTEMPTS = 3  # to route traffic to a version that other runs undeploy


class Endpoint:
    """An existing endpoint.

    Each method is idempotent: it reads the endpoint before every attempt and changes only what is not yet as wanted,
    so that an attempt whose response was lost, or a killed process, is followed by one that continues.

    Args:
        name: projects/P/locations/L/endpoints/ID.

    Raises:
        FlagError: the name is invalid, or the endpoint was not found.
        ServiceError: the service refuses.
    """

    def __init__(self, name: str) -> None:
        if len(name.split("/")) != 6 or name.split("/")[::2] != ["projects", "locations", "endpoints"]:
            raise FlagError("Invalid endpoint name", received=name, expected="projects/P/locations/L/endpoints/ID")
        self._name = name
        with translate_api_errors(SERVICE, "sign in"):
            self._client = vertex.EndpointServiceClient(**client_options(name.split("/")[3]))
        with translate_api_errors(SERVICE, f"show the endpoint {name}", ROLE):
            self._current()

    def deploy(self, version: str, machine_type: str, check: Callable[[], None]) -> None:
        """Deploys a version, unless it is deployed, with no traffic unless it is the first. Mutates the endpoint.

        If it cannot be deployed, the endpoint keeps serving as before.

        Args:
            version: .../models/ID@VERSION.
            machine_type: of its one replica.
            check: called before each attempt; raises if the endpoint must not be changed any more.
        """

        def deploy_if_missing() -> None:
            check()
            if self._deployed_ids(version):
                return
            _log.info("Deploying %s to %s", version, self._name)
            resources = vertex.DedicatedResources(
                machine_spec=vertex.MachineSpec(machine_type=machine_type), min_replica_count=1, max_replica_count=1
            )
            deployed_model = vertex.DeployedModel(model=version, dedicated_resources=resources)
            traffic = {} if self._current().traffic_split else {"0": 100}  # "0" stands for the one being deployed
            operation = self._client.deploy_model(
                endpoint=self._name, deployed_model=deployed_model, traffic_split=traffic, timeout=60
            )
            wait_for(operation, f"deploy {version}", hours=2)

        with translate_api_errors(SERVICE, f"deploy a model to {self._name}", ROLE):
            _retry_while_busy(RETRY(deploy_if_missing))()

    def route_traffic(self, version: str, machine_type: str, check: Callable[[], None]) -> None:
        """Routes all traffic to a deployed version. Mutates the endpoint, unless it has all traffic already.

        Until it has traffic, a concurrent run that ends may undeploy it: then it is deployed once more.

        Args:
            version: .../models/ID@VERSION.
            machine_type: see `deploy`.
            check: see `deploy`.
        """

        def route_if_elsewhere() -> bool:
            check()
            deployed_ids = self._deployed_ids(version)
            if not deployed_ids:
                return False
            traffic = {deployed_ids[0]: 100}
            if dict(self._current().traffic_split) == traffic:
                return True
            try:
                self._client.update_endpoint(
                    endpoint=vertex.Endpoint(name=self._name, traffic_split=traffic),
                    update_mask=field_mask_pb2.FieldMask(paths=["traffic_split"]),
                    timeout=60,
                )
            except exceptions.BadRequest:
                if deployed_ids[0] in self._deployed_ids(version):
                    raise
                return False
            return True

        for attempt in range(_ATTEMPTS):
            if attempt:
                self.deploy(version, machine_type, check)
            with translate_api_errors(SERVICE, f"change the traffic of {self._name}", ROLE):
                if _retry_while_busy(RETRY(route_if_elsewhere))():
                    return
        raise ServiceError(
            f"{version} was undeployed before it got traffic, {_ATTEMPTS} times",
            received=self._name,
            hint="Run the step again when no other run changes the endpoint: it continues where this one stopped.",
        )

    def undeploy_without_traffic(self, version: str = "") -> None:
        """Undeploys what has no traffic, one by one. Mutates the endpoint.

        Args:
            version: .../models/ID@VERSION to undeploy; '' for all versions.
        """

        def undeploy_one() -> bool:
            endpoint = self._current()
            own_ids = self._deployed_ids(version) if version else [one.id for one in endpoint.deployed_models]
            idle = [
                one for one in endpoint.deployed_models if one.id in own_ids and not endpoint.traffic_split.get(one.id)
            ]
            if not idle:
                return False
            _log.info("Undeploying %s@%s", idle[0].model, idle[0].model_version_id)
            # Not found: another run undeployed it, or an attempt whose response was lost.
            with contextlib.suppress(exceptions.NotFound):
                operation = self._client.undeploy_model(endpoint=self._name, deployed_model_id=idle[0].id, timeout=60)
                wait_for(operation, f"undeploy {idle[0].model}")
            return True

        with translate_api_errors(SERVICE, f"undeploy a model from {self._name}", ROLE):
            while _retry_while_busy(RETRY(undeploy_one))():
                pass

    def _current(self) -> vertex.Endpoint:
        return self._client.get_endpoint(name=self._name, retry=RETRY)

    def _deployed_ids(self, version: str) -> list[str]:
        """The ids of a version's deployments: two, if the response to the first request was lost."""
        model, _, number = version.rpartition("/")[2].partition("@")
        return [
            one.id
            for one in self._current().deployed_models
            if one.model.rpartition("/")[2].partition("@")[0] == model and one.model_version_id == number
        ]


def _is_busy(error: Exception) -> bool:
    return isinstance(error, exceptions.BadRequest) and "other operations running" in str(error)


# An endpoint carries out one operation at a time. The one that is running may be this step's own, from an attempt that
# was killed or whose response was lost.
_retry_while_busy = retry.Retry(predicate=_is_busy, initial=1.0, maximum=60.0, multiplier=2.0, timeout=2 * 3600.0)
