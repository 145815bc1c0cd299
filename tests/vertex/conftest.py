"""Fixtures: Vertex AI on this machine, a bucket with models, and the arguments of `register` for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import model_folders
from tests.standin import bucket
from tf_image_classification import model_folder
from tf_image_classification.vertex.client import ENDPOINT_VARIABLE

PARENT = "projects/my-project/locations/europe-west4"
MODEL, ENDPOINT = f"{PARENT}/models/pets", f"{PARENT}/endpoints/pets"
IMAGE = "europe-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


def digest(model: str) -> str:
    """The digest of a model in the bucket."""
    return model.encode().hex().ljust(64, "0")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Model folders by name, as they are in the bucket."""
    parent = tmp_path_factory.mktemp("models")
    for name in ("one", "two", "three"):
        model_folders.write(parent / name, digest=digest(name), data_fingerprint=digest(name)[::-1])
    return parent


@pytest.fixture(scope="session")
def storage_url(models) -> Iterator[str]:
    """A storage service; gs://bucket/models/one and .../two hold a model folder."""
    with bucket.serving("bucket") as url:
        bucket.fill(url, "bucket", "models", models)
        yield url


@pytest.fixture
def vertex(tmp_path, storage_url, monkeypatch):
    """Vertex AI without models; the environment has its address, and that of the storage service, for clients."""
    from tests.standin.vertex import Vertex

    service = Vertex(tmp_path / "vertex", storage_url)
    service.start()
    monkeypatch.setenv(ENDPOINT_VARIABLE, f"{service.url}/")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")  # this machine may have the serving image
    yield service
    service.stop()


@pytest.fixture
def endpoint(vertex) -> str:
    """An endpoint that serves nothing yet."""
    from google.cloud import aiplatform_v1

    from tf_image_classification.vertex.client import client_options

    client = aiplatform_v1.EndpointServiceClient(**client_options("europe-west4"))
    client.create_endpoint(
        parent=PARENT, endpoint=aiplatform_v1.Endpoint(display_name="pets"), endpoint_id="pets"
    ).result()
    return ENDPOINT


@pytest.fixture
def arguments(models) -> Callable[..., dict[str, Any]]:
    """Returns the arguments of `register` for a model folder in the bucket; keyword arguments replace some."""

    def make(model: str, **changes: Any) -> dict[str, Any]:
        evaluated = model_folder.verify(str(models / (model if (models / model).exists() else "one")))
        return {
            "name": MODEL,
            "folder": f"gs://bucket/models/{model}",
            "machine_type": "n1-standard-2",
            "metrics": {
                "model": {"sha256": evaluated.sha256},
                "num_examples": 10,
                "loss": 0.25,
                "accuracy": 0.9,
                "macro_f1": 0.88,
                "labels": ["cat", "dog"],
                "confusion_matrix": [[5, 0], [1, 4]],
            },
            "reason": "accuracy is 0.9 (required: at least 0.8)",
            "run": "weekly-20261125",
            "serving_image": IMAGE,
            "compared_with": "",
        } | changes

    return make
