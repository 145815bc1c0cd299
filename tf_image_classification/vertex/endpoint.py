"""An endpoint that serves one version of a model: another version takes its place without a gap."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from google.api_core import exceptions, retry
from google.cloud import aiplatform_v1 as vertex
from google.protobuf import field_mask_pb2

from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.promotion.google_errors import RETRY, translate_api_errors
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options, result_of

_log = logging.getLogger(__name__)


class Endpoint:
    """An endpoint that is there.

    Args:
        name: projects/P/locations/L/endpoints/ID.

    Raises:
        FlagError: it is no such name, or there is no such endpoint.
        ServiceError: the service refuses.
    """

    def __init__(self, name: str) -> None:
        if len(name.split("/")) != 6 or name.split("/")[::2] != ["projects", "locations", "endpoints"]:
            raise FlagError(
                "This is not the name of an endpoint", received=name, expected="projects/P/locations/L/endpoints/ID"
            )
        self._name = name
        with translate_api_errors(SERVICE, "sign in"):
            self._client = vertex.EndpointServiceClient(**client_options(name.split("/")[3]))
        with translate_api_errors(SERVICE, f"show the endpoint {name}", ROLE):
            self._now()

    def deploy(self, version: str, machine_type: str, allowed: Callable[[], None]) -> None:
        """Deploys a version unless it is deployed; what serves goes on, for good when it cannot be deployed.

        Args:
            version: .../models/ID@VERSION.
            machine_type: of its one replica.
            allowed: called before the endpoint is changed; raises when it must not be.
        """

        def deploy() -> None:
            allowed()
            if self._deployed(version):
                return
            _log.info("Deploying %s to %s", version, self._name)
            resources = vertex.DedicatedResources(
                machine_spec=vertex.MachineSpec(machine_type=machine_type), min_replica_count=1, max_replica_count=1
            )
            wanted = vertex.DeployedModel(model=version, dedicated_resources=resources)
            split = {} if self._now().traffic_split else {"0": 100}  # "0" is the one that is being deployed
            operation = self._client.deploy_model(
                endpoint=self._name, deployed_model=wanted, traffic_split=split, timeout=60
            )
            result_of(operation, f"deploy {version}", hours=2)

        with translate_api_errors(SERVICE, f"deploy a model to {self._name}", ROLE):
            _when_free(RETRY(deploy))()

    def serve(self, version: str, allowed: Callable[[], None]) -> None:
        """Gives all traffic to a version that is deployed; `allowed` as of `deploy`."""

        def lead_traffic() -> None:
            allowed()
            deployed = self._deployed(version)
            if not deployed:
                raise ServiceError(
                    f"{version} was undeployed before it could serve",
                    received=self._name,
                    hint="Run again: it goes on.",
                )
            split = {deployed[0]: 100}
            if dict(self._now().traffic_split) != split:
                wanted = vertex.Endpoint(name=self._name, traffic_split=split)
                self._client.update_endpoint(
                    endpoint=wanted, update_mask=field_mask_pb2.FieldMask(paths=["traffic_split"]), timeout=60
                )

        with translate_api_errors(SERVICE, f"change the traffic of {self._name}", ROLE):
            _when_free(RETRY(lead_traffic))()

    def undeploy_idle(self) -> None:
        """Undeploys what has no traffic."""

        def undeploy_one() -> bool:
            now = self._now()
            idle = [one for one in now.deployed_models if not now.traffic_split.get(one.id)]
            if not idle:
                return False
            _log.info("Undeploying %s@%s", idle[0].model, idle[0].model_version_id)
            with contextlib.suppress(exceptions.NotFound):  # another run, or a try whose answer was lost, was faster
                operation = self._client.undeploy_model(endpoint=self._name, deployed_model_id=idle[0].id, timeout=60)
                result_of(operation, f"undeploy {idle[0].model}")
            return True

        with translate_api_errors(SERVICE, f"undeploy a model from {self._name}", ROLE):
            while _when_free(RETRY(undeploy_one))():
                pass

    def _now(self) -> vertex.Endpoint:
        return self._client.get_endpoint(name=self._name, retry=RETRY)

    def _deployed(self, version: str) -> list[str]:
        """The ids under which a version is deployed: two, when the answer to the first request was lost."""
        model, _, number = version.rpartition("/")[2].partition("@")
        return [
            one.id
            for one in self._now().deployed_models
            if one.model.rpartition("/")[2].partition("@")[0] == model and one.model_version_id == number
        ]


def _busy(error: Exception) -> bool:
    return isinstance(error, exceptions.BadRequest) and "other operations running" in str(error)


# An endpoint carries out one operation at a time. The one under way may be this step's own, of a try that was killed or
# not answered.
_when_free = retry.Retry(predicate=_busy, initial=1.0, maximum=60.0, multiplier=2.0, timeout=2 * 3600.0)
