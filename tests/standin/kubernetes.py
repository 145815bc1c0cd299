"""What Kubeflow Pipelines does with the Kubernetes side of a pipeline: its platform spec, and the pods of its steps."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.standin.service import ApiError

_RESOURCE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_QUANTITY = re.compile(r"[0-9.]+(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")


def pipeline_of(given: dict[str, Any]) -> dict[str, Any]:
    """The pipeline of a run's `pipeline_spec`, which beside a platform spec holds it one level deeper.

    Raises:
        ApiError: the platform spec has a field that the service or its drivers do not know.
    """
    if "pipeline_spec" not in given:
        return given
    try:
        platforms = given["platform_spec"]
        json_format.ParseDict(platforms, pipeline_spec_pb2.PlatformSpec())
        for settings in platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (KeyError, json_format.ParseError) as error:
        raise ApiError(400, f"cannot unmarshal platform specific configs to json format: {error!r}") from None
    return given["pipeline_spec"]


def tasks_without_a_pod(spec: dict[str, Any]) -> list[str]:
    """The tasks whose pods Kubernetes refuses: the type of an accelerator is used as the name of a resource, as it is,
    and memory as a quantity."""
    refused = []
    for label, executor in spec["deploymentSpec"]["executors"].items():
        limits = executor.get("container", {}).get("resources", {})
        kind = limits.get("accelerator", {}).get("resourceType", "a/b")
        memory = limits.get("resourceMemoryLimit", "1Gi")
        if not _RESOURCE_NAME.fullmatch(kind) or not _QUANTITY.fullmatch(memory):
            refused.append(label.removeprefix("exec-"))
    return refused
