"""The high-level classes of the SDK work against the stand-in, unpatched."""

from __future__ import annotations

import json
import time

import pytest
from google.auth.credentials import AnonymousCredentials

from tests.vertex.conftest import IMAGE, PARENT


@pytest.fixture
def aiplatform(vertex, monkeypatch, storage_url):
    from google.cloud import aiplatform

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    aiplatform.init(
        project="my-project",
        location="europe-west4",
        api_endpoint=vertex.url,
        api_transport="rest",
        credentials=AnonymousCredentials(),
        staging_bucket="gs://bucket/staging",
    )
    return aiplatform


def _upload(aiplatform, folder: str, **options):
    return aiplatform.Model.upload(
        display_name="pets",
        serving_container_image_uri=IMAGE,
        artifact_uri=f"gs://bucket/models/{folder}/saved_model",
        **options,
    )


def test_models_have_versions_and_aliases(aiplatform):
    first = _upload(aiplatform, "one", model_id="pets", labels={"team": "vision"})
    second = _upload(
        aiplatform, "two", parent_model=first.resource_name, is_default_version=False, version_aliases=["candidate"]
    )
    assert (first.version_id, second.version_id) == ("1", "2")
    registry = first.versioning_registry
    assert [(one.version_id, list(one.version_aliases)) for one in registry.list_versions()] == [
        ("1", ["default"]),
        ("2", ["candidate"]),
    ]
    registry.add_version_aliases(["default"], version="2")
    assert aiplatform.Model("pets").version_id == "2"
    assert aiplatform.Model("pets@candidate").uri == "gs://bucket/models/two/saved_model"
    registry.delete_version("1")
    assert [one.version_id for one in registry.list_versions()] == ["2"]


def test_models_are_found_by_labels_changed_and_deleted(aiplatform):
    model = _upload(aiplatform, "one", labels={"team": "vision"})
    assert [one.resource_name for one in aiplatform.Model.list(filter='labels.team="vision"')] == [model.resource_name]
    assert not aiplatform.Model.list(filter='labels.team="sales"')
    assert model.update(description="cats and dogs").description == "cats and dogs"
    model.delete()
    assert not aiplatform.Model.list()


def test_a_version_has_evaluations(aiplatform):
    model = _upload(aiplatform, "one")
    from google.cloud import aiplatform_v1

    from tf_image_classification.vertex.client import client_options

    client = aiplatform_v1.ModelServiceClient(**client_options("europe-west4"))
    schema = "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
    evaluation = aiplatform_v1.ModelEvaluation(display_name="test", metrics_schema_uri=schema, metrics={"logLoss": 0.5})
    client.import_model_evaluation(parent=model.resource_name, model_evaluation=evaluation)
    (found,) = model.list_model_evaluations()
    assert found.metrics["logLoss"] == 0.5


def test_a_model_is_deployed_to_an_endpoint_and_undeployed(aiplatform):
    model = _upload(aiplatform, "one")
    endpoint = aiplatform.Endpoint.create(display_name="pets", endpoint_id="pets")
    endpoint.deploy(model, machine_type="n1-standard-2")
    (deployed,) = endpoint.list_models()
    assert endpoint.traffic_split == {deployed.id: 100}
    assert [one.name for one in aiplatform.Endpoint.list(filter='display_name="pets"')] == ["pets"]
    endpoint.undeploy_all()
    assert not endpoint.list_models()
    endpoint.delete()
    assert not aiplatform.Endpoint.list()


def _pool(command: list[str], replicas: int = 1):
    return {
        "machine_spec": {"machine_type": "n1-standard-4"},
        "replica_count": replicas,
        "container_spec": {"image_uri": "trainer:1", "command": command, "env": [{"name": "COLOUR", "value": "red"}]},
    }


_REPLICA = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / f".{os.getpid()}").write_text(os.environ["TF_CONFIG"] + os.environ["COLOUR"])
(folder / f".{os.getpid()}").rename(folder / str(os.getpid()))
while '"type": "worker"' in os.environ["TF_CONFIG"] or len(list(folder.glob("[0-9]*"))) < 3:
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_a_custom_job_runs_its_replicas_until_the_chief_has_ended(aiplatform, tmp_path):
    (tmp_path / "tf_configs").mkdir()
    command = ["python", "-c", _REPLICA, str(tmp_path / "tf_configs")]
    job = aiplatform.CustomJob(display_name="train", worker_pool_specs=[_pool(command), _pool(command, 2)])
    job.run()
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    tf_configs = [json.loads(file.read_text().removesuffix("red")) for file in (tmp_path / "tf_configs").iterdir()]
    tasks = sorted((one["task"]["type"], one["task"]["index"]) for one in tf_configs)
    assert tasks == [("chief", 0), ("worker", 0), ("worker", 1)]
    assert [len(tf_configs[0]["cluster"][role]) for role in ("chief", "worker")] == [1, 2]


def test_a_failed_custom_job_has_an_error(aiplatform):
    job = aiplatform.CustomJob(display_name="train", worker_pool_specs=[_pool(["python", "-c", "raise SystemExit(3)"])])
    with pytest.raises(RuntimeError, match="non-zero status of 3"):
        job.run()


def test_a_custom_job_can_be_cancelled(aiplatform, vertex):
    job = aiplatform.CustomJob(
        display_name="train", worker_pool_specs=[_pool(["python", "-c", "import time; time.sleep(600)"])]
    )
    job.submit()
    job.cancel()
    while job.state.name == "JOB_STATE_CANCELLING":
        time.sleep(0.05)
    assert job.state.name == "JOB_STATE_CANCELLED"
    assert [one.display_name for one in aiplatform.CustomJob.list()] == ["train"]


def test_an_unknown_field_and_a_missing_model_are_rejected(vertex):
    import requests

    base = f"{vertex.url}/v1/{PARENT}"
    unknown = requests.post(f"{base}/models:upload", json={"model": {"displayNam": "pets"}}, timeout=10)
    assert unknown.status_code == 400 and "displayNam" in unknown.text
    assert requests.get(f"{base}/models/pets%402", timeout=10).status_code == 404
    image = {"imageUri": IMAGE}
    model = {"displayName": "pets", "artifactUri": "gs://bucket/models/one/saved_model", "containerSpec": image}
    parent = {"parentModel": f"{PARENT}/models/pets", "model": model}
    assert requests.post(f"{base}/models:upload", json=parent, timeout=10).status_code == 404
