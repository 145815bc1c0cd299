"""The Kubeflow stand-in takes a platform spec and a pod's limits no more kindly than the drivers and Kubernetes."""

from __future__ import annotations

import pytest

from tests.standin import kubernetes
from tests.standin.service import ApiError


def with_settings(settings: dict) -> dict:
    executors = {"exec-train": settings}
    platforms = {"kubernetes": {"deploymentSpec": {"executors": executors}}}
    return {"pipeline_spec": {"root": {}}, "platform_spec": {"platforms": platforms}}


def test_a_platform_spec_is_parsed_strictly():
    assert kubernetes.pipeline_of({"root": {}}) == {"root": {}}
    assert kubernetes.pipeline_of(with_settings({"imagePullPolicy": "Always"})) == {"root": {}}
    with pytest.raises(ApiError, match="imagePolicy"):
        kubernetes.pipeline_of(with_settings({"imagePolicy": "Always"}))


@pytest.mark.parametrize(
    ("kind", "memory", "refused"),
    [("nvidia.com/gpu", "32Gi", []), ("NVIDIA_TESLA_T4", "32Gi", ["train"]), ("nvidia.com/gpu", "32K", ["train"])],
)
def test_a_pod_with_vertex_ais_accelerator_or_kfps_unit_never_starts(kind, memory, refused):
    limits = {"accelerator": {"resourceType": kind, "resourceCount": "1"}, "resourceMemoryLimit": memory}
    spec = {"deploymentSpec": {"executors": {"exec-train": {"container": {"resources": limits}}, "exec-gate": {}}}}
    assert kubernetes.tasks_without_a_pod(spec) == refused
