"""An endpoint keeps serving while another version replaces the deployed one, whatever fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.standin.service import ApiError, Fault
from tests.vertex.conftest import ENDPOINT, MODEL
from tf_image_classification.errors import FlagError, ServiceError, UserError
from tf_image_classification.vertex.endpoint import Endpoint
from tf_image_classification.vertex.registry import ReplacedError, in_service, register


@pytest.fixture
def first(vertex, endpoint, arguments):
    """A model in service on the endpoint."""
    return register(**arguments("one", endpoint=endpoint))


@pytest.fixture
def second(first, arguments, endpoint):
    """Arguments that replace it by another model."""
    return arguments("two", compared_with=first.name, endpoint=endpoint)


def _traffic(vertex) -> dict[str, int]:
    """Version -> percent, of everything that is deployed."""
    endpoint = vertex.endpoints.all["pets"]
    return {one.model_version_id: endpoint.traffic_split.get(one.id, 0) for one in endpoint.deployed_models}


def _sent(vertex, verb: str) -> int:
    return sum(request.startswith("POST") and request.endswith(verb) for request in vertex.requests)


def _refuse(code: int, message: str) -> Callable[[], None]:
    def refuse() -> None:
        raise ApiError(code, message)

    return refuse


def _make_default(vertex, number: str) -> None:
    for version in vertex.models.versions["pets"].values():
        version.version_aliases = ["default"] if version.version_id == number else []


def test_a_model_is_deployed_on_one_machine_and_gets_all_traffic(vertex, first):
    assert _traffic(vertex) == {"1": 100}
    (deployed,) = vertex.endpoints.all["pets"].deployed_models
    assert deployed.dedicated_resources.machine_spec.machine_type == "n1-standard-2"
    assert deployed.dedicated_resources.max_replica_count == 1


def test_the_next_version_takes_the_traffic_and_the_old_one_is_undeployed(vertex, second):
    register(**second | {"machine_type": "n1-standard-4"})
    assert _traffic(vertex) == {"2": 100}
    assert (
        vertex.endpoints.all["pets"].deployed_models[0].dedicated_resources.machine_spec.machine_type == "n1-standard-4"
    )
    assert in_service(MODEL).name == f"{MODEL}@2"


def test_a_failed_deployment_leaves_the_old_version_in_service_and_a_rerun_continues(vertex, first, second):
    vertex.endpoints.on_deploy.append(_refuse(500, "Model server exited unexpectedly."))
    with pytest.raises(ServiceError, match=r"could not deploy .*pets@2\. Received: Model server exited unexpectedly"):
        register(**second)
    assert _traffic(vertex) == {"1": 100}
    assert in_service(MODEL) == first
    register(**second)
    assert _traffic(vertex) == {"2": 100}
    assert list(vertex.models.versions["pets"]) == ["1", "2"]


def test_a_quota_that_ends_the_deployment_is_named(vertex, first, second):
    vertex.endpoints.on_deploy.append(_refuse(429, "Quota exceeded for custom_model_serving_cpus"))
    with pytest.raises(ServiceError, match=r"A quota of Vertex AI is used up.*custom_model_serving_cpus"):
        register(**second)
    assert in_service(MODEL) == first


def test_a_deployed_version_is_not_deployed_again(vertex, endpoint, arguments, first):
    endpoint_now = vertex.endpoints.all["pets"]
    endpoint_now.traffic_split = {}
    assert register(**arguments("one", endpoint=endpoint)) == first
    assert _traffic(vertex) == {"1": 100}
    assert _sent(vertex, ":deployModel") == 1


@pytest.mark.parametrize("verb", ["deployModel", "undeployModel"])
def test_a_lost_response_changes_the_endpoint_once(vertex, second, verb):
    vertex.faults.append(Fault(503, path=verb, carried_out=True))
    register(**second)
    assert _traffic(vertex) == {"2": 100}


def test_a_deployment_that_a_killed_attempt_started_is_waited_for(vertex, second):
    vertex.faults.append(Fault(403, path="deployModel", carried_out=True))  # started, but this attempt ends
    with pytest.raises(ServiceError):
        register(**second)
    register(**second)
    assert _traffic(vertex) == {"2": 100}
    assert list(vertex.models.versions["pets"]) == ["1", "2"]


def test_two_concurrent_runs_leave_one_model_in_service_and_on_the_endpoint(vertex, first, arguments, endpoint):
    ended = {}

    def run(folder: str) -> None:
        try:
            ended[folder] = register(**arguments(folder, compared_with=first.name, endpoint=endpoint))
        except UserError as error:  # replaced by the other run
            ended[folder] = error

    threads = [threading.Thread(target=run, args=[folder]) for folder in ("two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serving = in_service(MODEL)
    assert len(ended) == 2 and serving in ended.values()
    assert _traffic(vertex) == {serving.name.partition("@")[2]: 100}


def _undeploy_idle(vertex) -> None:
    """What a concurrent run does at its end."""
    endpoint = vertex.endpoints.all["pets"]
    serving = [one for one in endpoint.deployed_models if endpoint.traffic_split.get(one.id)]
    del endpoint.deployed_models[:]
    endpoint.deployed_models.extend(serving)


def test_a_version_that_another_run_undeploys_before_it_has_traffic_is_deployed_again(vertex, first, arguments):
    other = register(**arguments("two", compared_with=first.name))
    endpoint = Endpoint(ENDPOINT)
    endpoint.deploy(other.name, "n1-standard-2", lambda: None)
    undeployed = []

    def check() -> None:
        if len(undeployed) < 2:
            undeployed.append(_undeploy_idle(vertex))

    endpoint.route_traffic(other.name, "n1-standard-2", check)
    assert _traffic(vertex) == {"1": 0, "2": 100}


def test_a_version_that_is_undeployed_again_and_again_ends_with_an_error(vertex, first, arguments):
    other = register(**arguments("two", compared_with=first.name))
    with pytest.raises(ServiceError, match="undeployed before it got traffic, 3 times"):
        Endpoint(ENDPOINT).route_traffic(other.name, "n1-standard-2", lambda: _undeploy_idle(vertex))
    assert _traffic(vertex) == {"1": 100}


def test_a_version_that_was_overtaken_while_it_was_deployed_is_undeployed(vertex, first, second, arguments):
    other = register(**arguments("three", compared_with=first.name))
    vertex.endpoints.on_deploy.append(lambda: _make_default(vertex, "2"))
    _make_default(vertex, "1")
    with pytest.raises(ReplacedError, match=f"Received: {other.name}"):
        register(**second)
    assert in_service(MODEL) == other
    assert _traffic(vertex) == {"1": 100}


def test_a_run_that_was_overtaken_leaves_the_deployment_of_the_other_run_alone(vertex, first, second, arguments):
    other = register(**arguments("three", compared_with=first.name))
    Endpoint(ENDPOINT).deploy(other.name, "n1-standard-2", lambda: None)
    vertex.endpoints.on_deploy.append(lambda: _make_default(vertex, "2"))
    _make_default(vertex, "1")
    with pytest.raises(ReplacedError):
        register(**second)
    assert _traffic(vertex) == {"1": 100, "2": 0}


def test_a_missing_endpoint_is_reported_before_anything_is_changed(vertex, arguments):
    with pytest.raises(FlagError, match=r"show the endpoint .*endpoints/pets: not found"):
        register(**arguments("one", endpoint=ENDPOINT))
    assert not vertex.models.versions


def test_an_invalid_endpoint_name_is_rejected(vertex, arguments):
    with pytest.raises(FlagError, match="projects/P/locations/L/endpoints/ID"):
        register(**arguments("one", endpoint="pets"))
    assert not vertex.models.versions
