"""Fixtures: Vertex AI on this machine, a bucket with models, and the arguments of `register` for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tf_image_classification.vertex.client import ENDPOINT_VARIABLE

PARENT = "projects/my-project/locations/europe-west4"
MODEL, ENDPOINT = f"{PARENT}/models/pets", f"{PARENT}/endpoints/pets"
IMAGE = "europe-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


@pytest.fixture(scope="session")
def storage_url() -> Iterator[str]:
    """A storage service; gs://bucket/models/one and .../two hold a SavedModel."""
    from tests.standin import bucket

    with bucket.serving("bucket") as url:
        for name in ("one", "two", "three"):
            bucket.client(url).bucket("bucket").blob(f"models/{name}/saved_model/saved_model.pb").upload_from_string(
                "a model"
            )
        yield url


@pytest.fixture
def vertex(tmp_path, storage_url, monkeypatch):
    """Vertex AI without models; the environment has its address for clients."""
    from tests.standin.vertex import Vertex

    service = Vertex(tmp_path / "vertex", storage_url)
    service.start()
    monkeypatch.setenv(ENDPOINT_VARIABLE, f"{service.url}/")
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
def arguments() -> Callable[..., dict[str, Any]]:
    """Returns the arguments of `register` for a model folder in the bucket; keyword arguments replace some."""

    def make(model: str, **changes: Any) -> dict[str, Any]:
        digest = model.encode().hex().ljust(64, "0")
        return {
            "name": MODEL,
            "folder": f"gs://bucket/models/{model}",
            "machine_type": "n1-standard-2",
            "facts": {
                "digest": digest,
                "data_fingerprint": digest[::-1],
                "model_name": "small",
                "flags": {},
                "warm_start": None,
            },
            "metrics": {
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
