"""Roots and paths on s3://: Kubeflow takes them, checked as far as this machine sees them; Vertex AI refuses them."""

from __future__ import annotations

import pytest

from pipelines import template
from pipelines.backends import bucket, kubeflow_bucket
from tests.standin import s3
from tf_image_classification.errors import FlagError, ServiceError


@pytest.fixture
def service(monkeypatch):
    with s3.S3("mlpipeline") as service:
        for name, value in s3.environment(service.url).items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_root_on_s3_is_checked_with_this_machines_credentials(service, scheme, monkeypatch):
    kubeflow_bucket.check(f"{scheme}://mlpipeline/runs")
    assert service.requests
    with pytest.raises(FlagError, match=r"not found.*://none/runs.*aws s3 mb s3://none"):
        kubeflow_bucket.check(f"{scheme}://none/runs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    with pytest.raises(ServiceError, match="InvalidAccessKeyId"):
        kubeflow_bucket.check(f"{scheme}://mlpipeline/runs")


def test_a_root_in_a_store_that_this_machine_does_not_know_is_not_checked(service, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert not kubeflow_bucket.check("minio://mlpipeline/runs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    assert not kubeflow_bucket.check("s3://mlpipeline/runs")
    assert not service.requests
    with pytest.raises(FlagError, match=r"no folder in a bucket.*s3://BUCKET/FOLDER"):
        kubeflow_bucket.check("/mnt/runs")
    with pytest.raises(FlagError, match="Invalid bucket name"):
        kubeflow_bucket.check("s3:///runs")


def test_a_run_whose_root_is_not_checked_says_so(instant, submit):
    done = submit("--pipeline_root", "minio://mlpipeline/runs")
    assert done.returncode == 0, done.stderr
    assert "minio://mlpipeline/runs is not checked" in done.stderr


def test_only_kubeflow_takes_paths_and_roots_on_s3():
    paths = {"train_metadata": "s3://b/photos,minio://b/more", "model_dir": "s3://b/runs", "champion": "s3://b/best"}
    template.check_paths(paths, "kubeflow")
    for name, value in paths.items():
        with pytest.raises(FlagError, match=r"s3://b/.*gs://BUCKET/PATH.*Vertex AI's machines read"):
            template.check_paths({name: value}, "vertex")
    with pytest.raises(FlagError, match=r"s3://b/runs.*gs://BUCKET/FOLDER"):
        bucket.check("s3://b/runs")
