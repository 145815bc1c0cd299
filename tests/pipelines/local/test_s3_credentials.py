"""What the containers of `--runner docker` get of the caller's access to s3://."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.local.docker_runner import access_of_steps
from tf_image_classification.errors import FlagError, ServiceError

PARAMETERS = {"model_dir": "s3://runs/checkpoints"}
KEYS = {"AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": "minio123"}


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    for name in ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://172.17.0.1:9000")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def test_steps_with_paths_on_s3_get_the_callers_keys_and_the_others_nothing(tmp_path, monkeypatch):
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates))
    said: list[str] = []
    access = access_of_steps(PARAMETERS, tmp_path)
    with access["train"].arguments(said.append) as arguments:
        assert arguments["network_mode"] == "bridge"
        assert arguments["environment"] == {
            **KEYS,
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_S3": "http://172.17.0.1:9000",
            "AWS_CA_BUNDLE": str(certificates),
        }
        assert (str(certificates), True) in [(mount["Target"], mount["ReadOnly"]) for mount in arguments["mounts"]]
    assert said == ["gets the S3 credentials of minio"]
    with access["gate"].arguments(said.append) as arguments:
        assert (arguments["network_mode"], arguments["environment"]) == ("none", {})
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    with access_of_steps(PARAMETERS, tmp_path)["train"].arguments(said.append) as arguments:
        assert "AWS_ENDPOINT_URL_S3" not in arguments["environment"]  # Amazon's own is found by the region


@pytest.mark.parametrize("address", ["http://localhost:9000", "http://127.0.0.1:9000", "http://[::1]:9000"])
def test_an_address_that_no_container_reaches_is_refused(tmp_path: Path, monkeypatch, address):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with pytest.raises(FlagError, match=r"container cannot reach.*not localhost"):
        access_of_steps(PARAMETERS, tmp_path)


def test_without_credentials_nothing_starts(tmp_path, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    with pytest.raises(ServiceError, match=r"container access to s3://.*no usable S3 credentials"):
        access_of_steps(PARAMETERS, tmp_path)
