"""The machines of Vertex AI's training jobs, by what they have: a custom job names one, where a pipeline has limits.

See https://docs.cloud.google.com/vertex-ai/docs/training/configure-compute. Left out are those with GB200, which need a
reservation and have Arm processors, for which there are no images. Imports no SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tf_image_classification.errors import FlagError

DEFAULT = "e2-standard-4"  # as of a pipeline's step without limits

_GB = {"": 1e-9, "K": 1e-6, "M": 1e-3, "G": 1.0}
_QUANTITY = re.compile(r"([0-9.]+)([a-zA-Z]*)")


class _Machine(NamedTuple):
    """A machine type.

    Attributes:
        cpu: number of virtual CPUs.
        memory: in GB.
        counts: numbers of the accelerators in question that it has, or can have.
    """

    name: str
    cpu: int
    memory: float
    counts: tuple[int, ...] = ()


# Attached to N1: their number -> the most CPUs that go with it.
_ATTACHED = {
    "NVIDIA_TESLA_P4": {1: 16, 2: 32, 4: 96},
    "NVIDIA_TESLA_P100": {1: 16, 2: 32, 4: 32},
    "NVIDIA_TESLA_T4": {1: 16, 2: 32, 4: 96},
    "NVIDIA_TESLA_V100": {1: 8, 2: 16, 4: 32, 8: 96},
}
# With their accelerators: name, CPUs, memory in GB, their number.
_WITH_GPU: dict[str, tuple[tuple[str, int, float, int], ...]] = {
    "NVIDIA_TESLA_A100": (
        ("a2-highgpu-1g", 12, 85, 1),
        ("a2-highgpu-2g", 24, 170, 2),
        ("a2-highgpu-4g", 48, 340, 4),
        ("a2-highgpu-8g", 96, 680, 8),
        ("a2-megagpu-16g", 96, 1360, 16),
    ),
    "NVIDIA_A100_80GB": (
        ("a2-ultragpu-1g", 12, 170, 1),
        ("a2-ultragpu-2g", 24, 340, 2),
        ("a2-ultragpu-4g", 48, 680, 4),
        ("a2-ultragpu-8g", 96, 1360, 8),
    ),
    "NVIDIA_L4": (
        ("g2-standard-4", 4, 16, 1),
        ("g2-standard-8", 8, 32, 1),
        ("g2-standard-12", 12, 48, 1),
        ("g2-standard-16", 16, 64, 1),
        ("g2-standard-24", 24, 96, 2),
        ("g2-standard-32", 32, 128, 1),
        ("g2-standard-48", 48, 192, 4),
        ("g2-standard-96", 96, 384, 8),
    ),
    "NVIDIA_H100_80GB": (
        ("a3-highgpu-1g", 26, 234, 1),
        ("a3-highgpu-2g", 52, 468, 2),
        ("a3-highgpu-4g", 104, 936, 4),
        ("a3-highgpu-8g", 208, 1872, 8),
    ),
    "NVIDIA_H100_MEGA_80GB": (("a3-megagpu-8g", 208, 1872, 8),),
    "NVIDIA_H200_141GB": (("a3-ultragpu-8g", 224, 2952, 8),),
    "NVIDIA_B200": (("a4-highgpu-8g", 224, 3968, 8),),
    "NVIDIA_RTX_PRO_6000": (
        ("g4-standard-48", 48, 180, 1),
        ("g4-standard-96", 96, 360, 2),
        ("g4-standard-192", 192, 720, 4),
        ("g4-standard-384", 384, 1440, 8),
    ),
}


def machine_type(cpu: str = "", memory: str = "", accelerator: str = "") -> str:
    """The smallest machine that has what is asked for.

    Args:
        cpu: number, as KFP writes a limit: '8', '500m'; '' for at least 4.
        memory: amount in K, M or G, as '32G'; '' for any.
        accelerator: type and count, as 'NVIDIA_TESLA_T4:1'; '' for none.

    Raises:
        FlagError: no machine has as much.
    """
    if not (cpu or memory or accelerator):
        return DEFAULT
    kind, _, count = accelerator.partition(":")
    cores, gigabytes = _cores(cpu or "4"), _gigabytes(memory)
    able = []
    for machine in _machines(kind):
        enough = machine.cpu >= cores and machine.memory >= gigabytes
        if enough and (not kind or int(count or 1) in machine.counts):
            able.append(machine)
    if not able:
        asked = {"CPUs": cpu, "memory": memory, "accelerators": accelerator}
        raise FlagError(
            "Vertex AI has no such machine for the tasks of a cluster",
            received=", ".join(f"{what} {value}" for what, value in asked.items() if value),
            hint="docs/distributed.md lists the machines.",
        )
    return min(able, key=lambda machine: machine.cpu).name  # of equal ones the first, which is the cheapest


def _machines(gpu: str) -> Iterator[_Machine]:
    if gpu in _WITH_GPU:
        for name, cpu, memory, count in _WITH_GPU[gpu]:
            yield _Machine(name, cpu, memory, (count,))
    elif gpu in _ATTACHED:
        most = _ATTACHED[gpu]
        for machine in _n1():
            yield machine._replace(counts=tuple(n for n, cpu in most.items() if machine.cpu <= cpu))
    elif not gpu:
        for cpu in (4, 8, 16, 32):
            yield _Machine(f"e2-standard-{cpu}", cpu, cpu * 4)
        for cpu in (2, 4, 8, 16):
            yield _Machine(f"e2-highmem-{cpu}", cpu, cpu * 8)
        yield from _n1()


def _n1() -> Iterator[_Machine]:
    for cpu in (4, 8, 16, 32, 64, 96):
        yield _Machine(f"n1-standard-{cpu}", cpu, cpu * 3.75)
    for cpu in (2, 4, 8, 16, 32, 64, 96):
        yield _Machine(f"n1-highmem-{cpu}", cpu, cpu * 6.5)


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu or 0)


def _gigabytes(memory: str) -> float:
    found = _QUANTITY.fullmatch(memory or "0")
    return float(found[1]) * _GB.get(found[2], float("inf")) if found else float("inf")
