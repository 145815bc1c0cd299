"""The Vertex AI stand-in has no hardware that Vertex AI has not."""

from __future__ import annotations

import pytest

from tests.standin.service import ApiError
from tests.standin.vertex_resources import check_resources


def spec(**limits) -> dict:
    return {"deploymentSpec": {"executors": {"exec-train": {"container": {"resources": limits}}}}}


@pytest.mark.parametrize(
    "limits",
    [
        {"accelerator": {"resourceType": "T4"}},
        {"accelerator": {"resourceType": "nvidia.com/gpu"}},
        {"resourceMemoryLimit": "32Gi"},
        {"resourceMemoryLimit": "625G"},
        {"cpuLimit": 97.0},
        {"resourceCpuLimit": "97"},
    ],
)
def test_other_names_units_and_larger_machines_are_refused(limits):
    with pytest.raises(ApiError):
        check_resources(spec(**limits))
    check_resources(spec(accelerator={"resourceType": "NVIDIA_TESLA_T4"}, resourceMemoryLimit="624G", cpuLimit=96.0))
    check_resources(spec(resourceCpuLimit="96000m"))
