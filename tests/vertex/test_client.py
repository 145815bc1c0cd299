"""The address of Vertex AI, and waiting for its operations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from google.cloud import aiplatform_v1

from tests.vertex.conftest import MODEL, PARENT
from tf_image_classification.errors import ServiceError
from tf_image_classification.vertex.client import ENDPOINT_VARIABLE, client_options, wait_for
from tf_image_classification.vertex.registry import register

_STEP = """
from kfp import compiler, dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def find(name: str) -> str:
    from tf_image_classification.vertex.registry import in_service

    found = in_service(name)
    return found.name if found else ""


@dsl.pipeline(name="lookup")
def pipeline(name: str) -> str:
    return find(name=name).output


compiler.Compiler().compile(pipeline, __import__("sys").argv[1])
"""


def _address(**options) -> str:
    return client_options("europe-west4", **options)["client_options"]["api_endpoint"]


def test_the_address_is_the_argument_else_that_of_gcloud_else_the_regions(monkeypatch):
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    assert _address() == "europe-west4-aiplatform.googleapis.com"
    monkeypatch.setenv(ENDPOINT_VARIABLE, "https://private.example.com/")
    assert _address() == "https://private.example.com"
    assert _address(api_endpoint="http://127.0.0.1:1") == "http://127.0.0.1:1"


def test_no_credentials_go_over_plain_http(vertex, arguments):
    register(**arguments("one"))
    assert vertex.requests and not vertex.saw_credentials


def test_an_operation_that_takes_too_long_is_named(vertex):
    client = aiplatform_v1.EndpointServiceClient(**client_options("europe-west4"))
    operation = client.create_endpoint(parent=PARENT, endpoint=aiplatform_v1.Endpoint(display_name="pets"))
    with pytest.raises(
        ServiceError, match=r"takes too long to create an endpoint\. Received: projects/.*/operations/1, after"
    ):
        wait_for(operation, "create an endpoint", hours=1e-9)


def test_a_step_of_a_pipeline_finds_the_registry_that_the_pipeline_runs_on(vertex, arguments, tmp_path):
    register(**arguments("one"))
    (tmp_path / "find.py").write_text(_STEP)
    subprocess.run(
        [sys.executable, str(tmp_path / "find.py"), str(tmp_path / "find.yaml")], check=True, capture_output=True
    )
    client = aiplatform_v1.PipelineServiceClient(**client_options("europe-west4"))
    job = aiplatform_v1.PipelineJob(
        pipeline_spec=yaml.safe_load((tmp_path / "find.yaml").read_text()),
        runtime_config={"gcs_output_directory": "gs://bucket/root", "parameter_values": {"name": MODEL}},
    )
    client.create_pipeline_job(parent=PARENT, pipeline_job=job, pipeline_job_id="find")
    vertex.join()
    (task,) = vertex.jobs["find"].job_detail.task_details
    assert task.execution.metadata["output:Output"] == f"{MODEL}@1"
