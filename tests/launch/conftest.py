"""A pod of a run on Kubernetes, where Kubeflow's training operator is installed."""

from __future__ import annotations

import pytest

from tests.standin.kubernetes_api import KubernetesApi
from tf_image_classification.launch import kubernetes_api


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The stand-in of the cluster; this process is in the pod of a step."""
    (tmp_path / "account").mkdir()
    api = KubernetesApi(tmp_path / "account")
    monkeypatch.setattr(kubernetes_api, "_ACCOUNT", api.account)
    for name, value in api.environment.items():
        monkeypatch.setenv(name, value)
    yield api
    api.stop()
