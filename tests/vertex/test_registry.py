"""A model is promoted once, and only in place of the version that it was compared with."""

from __future__ import annotations

import pytest

from tests import model_folders
from tests.standin import bucket
from tests.standin.service import Fault
from tests.vertex.conftest import MODEL, digest
from tf_image_classification import storage
from tf_image_classification.errors import DataError, FlagError, ServiceError
from tf_image_classification.promotion.champion import InService
from tf_image_classification.vertex import infra_validation
from tf_image_classification.vertex.registry import ReplacedError, in_service, register


@pytest.fixture
def first(vertex, arguments) -> InService:
    """A model in service, which is not deployed."""
    return register(**arguments("one"))


def _versions(vertex) -> dict[str, list[str]]:
    return {number: list(version.version_aliases) for number, version in vertex.models.versions["pets"].items()}


def _posts(vertex, verb: str) -> list[str]:
    return [request for request in vertex.requests if request.startswith("POST") and request.endswith(verb)]


def test_nothing_is_in_service_before_the_first_model(vertex):
    assert in_service(MODEL) is None


def test_the_first_model_is_in_service(vertex, arguments):
    registered = register(**arguments("one"))
    assert registered == InService(f"{MODEL}@1", "gs://bucket/models/one") == in_service(MODEL)


def test_a_version_has_labels_for_its_model_its_data_and_its_run(vertex, arguments):
    job = "projects/123/locations/europe-west4/pipelineJobs/weekly-20261125"
    given = arguments("one", run=job)
    register(**given)
    version = vertex.models.versions["pets"]["1"]
    assert dict(version.labels) == {
        "digest": digest("one")[:63],
        "sha256": given["metrics"]["model"]["sha256"][:63],
        "data": digest("one")[::-1][:63],
        "run": "weekly-20261125",
        "tensorflow": "",
        "infra-validation": "not-asked",
    }
    assert version.version_description == given["reason"]
    assert version.artifact_uri == "gs://bucket/models/one/saved_model"
    assert version.pipeline_job == job


def test_a_model_without_a_digest_is_refused_before_anything_is_uploaded(vertex, arguments, tmp_path, storage_url):
    bucket.fill(storage_url, "bucket", "no-digest", model_folders.write(tmp_path / "model", digest=""))
    with pytest.raises(DataError, match=r"gs://bucket/no-digest .*the digest '' in model\.json"):
        register(**arguments("one", folder="gs://bucket/no-digest"))
    assert not _posts(vertex, "models:upload")


def test_a_folder_under_the_mount_is_registered_by_its_address(vertex, arguments):
    assert register(**arguments("one", folder="/gcs/bucket/models/one/")).folder == "gs://bucket/models/one"


def test_a_folder_on_this_machine_is_refused(vertex, arguments, tmp_path):
    with pytest.raises(FlagError, match="Cloud Storage only"):
        register(**arguments("one", folder=str(tmp_path)))
    assert not vertex.requests


def test_the_next_model_replaces_the_one_it_was_compared_with(vertex, arguments, first):
    second = register(**arguments("two", compared_with=first.name))
    assert second.name == f"{MODEL}@2"
    assert in_service(MODEL) == second
    assert _versions(vertex) == {"1": [], "2": ["default"]}


def test_registering_again_changes_nothing(vertex, arguments, first):
    assert register(**arguments("one")) == first
    assert register(**arguments("one", compared_with=f"{MODEL}@7")) == first
    assert _versions(vertex) == {"1": ["default"]}
    assert len(vertex.models.evaluations["pets", "1"]) == 1


def test_a_model_that_was_promoted_meanwhile_is_kept(vertex, arguments, first):
    register(**arguments("two", compared_with=first.name))
    with pytest.raises(ReplacedError, match=r"Received: .*pets@2\. Expected: .*pets@1\."):
        register(**arguments("three", compared_with=first.name))
    assert _versions(vertex) == {"1": [], "2": ["default"]}


def test_a_first_model_is_no_longer_the_first_when_another_came_before_it(vertex, arguments, first):
    with pytest.raises(ReplacedError, match="Expected: no model"):
        register(**arguments("two"))


def test_the_default_alias_moves_last_and_a_rerun_continues(vertex, arguments, first):
    vertex.faults.append(Fault(403, path="mergeVersionAliases"))
    with pytest.raises(ServiceError, match=r"roles/aiplatform\.user"):
        register(**arguments("two", compared_with=first.name))
    assert in_service(MODEL) == first
    register(**arguments("two", compared_with=first.name))
    assert _versions(vertex) == {"1": [], "2": ["default"]}
    assert len(_posts(vertex, "models:upload")) == 2


@pytest.mark.parametrize("verb", ["models:upload", "evaluations:import", "mergeVersionAliases"])
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_request_to_an_unavailable_service_is_retried_and_nothing_is_created_twice(
    vertex, arguments, first, verb, carried_out
):
    vertex.faults.append(Fault(503, path=verb, carried_out=carried_out))
    second = register(**arguments("two", compared_with=first.name))
    assert in_service(MODEL) == second
    artifacts = [version.artifact_uri for version in vertex.models.versions["pets"].values()]
    assert artifacts.count("gs://bucket/models/two/saved_model") == 1
    assert len(vertex.models.evaluations["pets", second.name.partition("@")[2]]) == 1


def test_a_lost_response_to_the_first_upload_creates_no_second_model(vertex, arguments):
    vertex.faults.append(Fault(503, path="models:upload", carried_out=True))
    assert register(**arguments("one")).name == f"{MODEL}@1"
    assert _versions(vertex) == {"1": ["default"]}


def test_a_poll_of_an_unavailable_service_is_retried(vertex, arguments):
    vertex.faults.append(Fault(503, method="GET", path="operations/", times=2))
    assert register(**arguments("one")).name == f"{MODEL}@1"
    assert len(_posts(vertex, "models:upload")) == 1


def test_a_used_up_quota_is_one_paragraph(vertex, arguments):
    vertex.faults.append(Fault(429, path="models:upload", message="Quota exceeded for uploads"))
    with pytest.raises(ServiceError, match="A quota of Vertex AI is used up"):
        register(**arguments("one"))


def test_an_account_without_valid_credentials_gets_the_command_to_sign_in(vertex, arguments):
    vertex.faults.append(Fault(401, path="models:upload", message="Request had invalid authentication credentials."))
    with pytest.raises(ServiceError, match=r"no usable Google Cloud credentials.*gcloud auth"):
        register(**arguments("one"))


def test_a_folder_without_a_model_is_refused(vertex, arguments):
    with pytest.raises(
        DataError, match=r"Not a model folder: model\.json not found. Received: gs://bucket/models/none"
    ):
        register(**arguments("none"))
    assert not vertex.models.versions


def test_a_model_that_is_not_as_it_was_exported_is_not_registered(vertex, arguments, models, storage_url):
    bucket.fill(storage_url, "bucket", "changed", models / "one")
    storage.write_bytes("gs://bucket/changed/saved_model/assets/words.txt", b"added")
    with pytest.raises(DataError, match=r"words\.txt, which model\.json does not list"):
        register(**arguments("one", folder="gs://bucket/changed"))
    assert not vertex.models.versions


def test_a_model_that_was_not_the_one_evaluated_is_not_registered(vertex, arguments):
    with pytest.raises(DataError, match="not the one that was evaluated"):
        register(**arguments("one", folder="gs://bucket/models/two"))
    assert not vertex.models.versions


def test_a_folder_that_is_changed_while_it_is_registered_is_not_promoted(
    vertex, arguments, first, models, storage_url, monkeypatch
):
    bucket.fill(storage_url, "bucket", "busy", models / "two")

    def change(*_: object) -> str:
        storage.write_bytes("gs://bucket/busy/saved_model/saved_model.pb", b"other graph")
        return infra_validation.PASSED

    monkeypatch.setattr(infra_validation, "check", change)
    with pytest.raises(DataError, match=r"was changed while it was registered.*Delete .*pets@2"):
        register(**arguments("two", folder="gs://bucket/busy", compared_with=first.name))
    assert in_service(MODEL) == first


def test_a_version_that_another_project_registered_is_no_champion(vertex, arguments, first):
    vertex.models.versions["pets"]["1"].artifact_uri = "gs://bucket/elsewhere"
    with pytest.raises(FlagError, match="gs://bucket/elsewhere"):
        in_service(MODEL)


def test_a_model_without_permission_to_read_it_is_not_taken_for_a_missing_one(vertex):
    vertex.faults.append(Fault(403, method="GET", path="models/pets"))
    with pytest.raises(ServiceError, match=r"look up the model .*roles/aiplatform\.user"):
        in_service(MODEL)


@pytest.mark.parametrize("name", ["pets", "models/pets", f"{MODEL}@1"])
def test_an_invalid_model_name_is_rejected(name):
    with pytest.raises(FlagError, match="projects/P/locations/L/models/ID"):
        in_service(name)
