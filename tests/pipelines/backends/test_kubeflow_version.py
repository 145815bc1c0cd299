"""What an older Kubeflow Pipelines would accept and not do is refused, or said."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from pipelines.backends import kubeflow_version
from tf_image_classification.errors import FlagError

RETRIES = {"root": {"dag": {"tasks": {"train": {"retryPolicy": {"maxRetryCount": 2}}}}}}
STATUS = {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
NOTIFY = {"components": {"comp-a": {"dag": {"tasks": {"notify": {"inputs": {"parameters": {"status": STATUS}}}}}}}}
PLAIN = {"root": {"dag": {"tasks": {"train": {"inputs": {"parameters": {"steps": {"componentInputParameter": "n"}}}}}}}}


@pytest.fixture
def kubeflow(tmp_path):
    from tests.standin.kubeflow import Kubeflow

    service = Kubeflow(tmp_path / "kubeflow")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def check(kubeflow):
    """Checks a pipeline against the service, which has this version."""
    from kfp import client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connected = client.Client(host=kubeflow.url)

    def check(version: str, spec: dict[str, Any]) -> None:
        kubeflow.version = version
        kubeflow.requests.clear()
        kubeflow_version.check(connected, spec)

    return check


@pytest.mark.parametrize("version", ["2.0.5", "2.5.0", "2.13.1", "v2.13.0"])
def test_notify_is_refused_where_the_step_that_notifies_would_fail(check, version):
    with pytest.raises(FlagError, match=f"--notify .* Received: version {version}. Expected: 2.14 or newer"):
        check(version, NOTIFY)


@pytest.mark.parametrize(
    ("version", "spec"), [("2.14.0", NOTIFY), ("2.17.0", NOTIFY), ("3.0.0-rc.1", NOTIFY), ("2.5.0", RETRIES)]
)
def test_a_version_that_does_what_the_pipeline_says_gets_it(check, version, spec, caplog):
    check(version, spec)
    assert not caplog.records


def test_a_version_that_ignores_retries_is_named(check, caplog):
    check("2.4.1", RETRIES)
    assert "Kubeflow Pipelines 2.4.1 ignores --retries, which need 2.5 or newer" in caplog.text


@pytest.mark.parametrize("version", ["unknown", ""])
def test_a_service_that_does_not_name_its_version_gets_the_pipeline_and_the_caller_a_warning(check, version, caplog):
    check(version, NOTIFY)
    assert "does not name its version (unknown): --notify needs 2.14" in caplog.text


def test_a_pipeline_without_either_asks_for_no_version(check, kubeflow):
    check("2.0.0", PLAIN)
    assert not kubeflow.requests


@pytest.mark.parametrize("verb", [["submit"], ["schedule", "create", "weekly", "--cron", "0 3 * * 1"]])
def test_nothing_is_sent_to_a_version_that_is_refused(kubeflow, command, storage_url, verb):
    kubeflow.version = "2.13.0"
    words = ["--backend", "kubeflow", "--host", kubeflow.url, "--pipeline_root", "gs://bucket/root"]
    words += ["--train_metadata", "gs://bucket/photos", "--image_size", "16"]
    done = command(*verb, *words, "--notify", "projects/p/topics/t")
    assert done.returncode == 2 and "2.14 or newer" in done.stderr
    assert not [request for request in kubeflow.requests if request.startswith("POST ")]
