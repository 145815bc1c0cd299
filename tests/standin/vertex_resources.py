"""The hardware that Vertex AI has for a step of a pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.cloud.aiplatform_v1 import types

from tests.standin.service import ApiError

_MAX_CPU, _MAX_GB = 96, 624
_GB = {"": 1e-9, "K": 1e-6, "M": 1e-3, "G": 1.0}


def check_resources(spec: Mapping[str, Any]) -> None:
    """Checks the limits of all steps.

    Raises:
        ApiError: an accelerator is not in the enum AcceleratorType, memory has a unit other than K, M or G, or no
            machine has as much.
    """
    for label, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        limits = executor.get("container", {}).get("resources", {})
        kind = limits.get("accelerator", {}).get("resourceType")
        if kind and kind not in types.AcceleratorType.__members__:
            raise ApiError(400, f"{label}: {kind} is not a valid accelerator type.")
        memory = re.fullmatch(r"([0-9.]+)([KMG]?)", limits.get("resourceMemoryLimit", "1G"))
        if not memory or float(memory[1]) * _GB[memory[2]] > _MAX_GB:
            raise ApiError(400, f"{label}: memory_limit {limits['resourceMemoryLimit']} is not supported.")
        cpu = limits.get("resourceCpuLimit") or limits.get("cpuLimit", 1)  # before kfp 2.11, a number
        if float(str(cpu).removesuffix("m")) / (1000 if str(cpu).endswith("m") else 1) > _MAX_CPU:
            raise ApiError(400, f"{label}: cpu_limit {cpu} is not supported.")
