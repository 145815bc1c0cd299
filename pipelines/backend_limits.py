"""What each backend takes: names and amounts of hardware, Kubernetes settings, and accounts.

KFP compiles any text as the type of an accelerator and leaves it to the service, which finds out when a step starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipelines import build_runner, clusters
from tf_image_classification.errors import FlagError, UserError, did_you_mean
from tf_image_classification.flag_types import TRAIN_STEP
from tf_image_classification.launch.job import ClusterShape
from tf_image_classification.vertex import machines

BACKENDS = {"vertex": "Vertex AI", "kubeflow": "Kubeflow"}

# google.cloud.aiplatform_v1.AcceleratorType without its TPUs, for which the images have no TensorFlow.
VERTEX_GPUS = (
    "NVIDIA_TESLA_K80",
    "NVIDIA_TESLA_P100",
    "NVIDIA_TESLA_V100",
    "NVIDIA_TESLA_P4",
    "NVIDIA_TESLA_T4",
    "NVIDIA_TESLA_A100",
    "NVIDIA_A100_80GB",
    "NVIDIA_L4",
    "NVIDIA_H100_80GB",
    "NVIDIA_H100_MEGA_80GB",
    "NVIDIA_H200_141GB",
    "NVIDIA_B200",
    "NVIDIA_GB200",
    "NVIDIA_RTX_PRO_6000",
)
_VERTEX_COUNTS = (1, 2, 4, 8, 16)  # of the GPUs of one machine
# Of a pipeline's task: https://docs.cloud.google.com/vertex-ai/docs/pipelines/machine-types
_VERTEX_MAX_CPU, _VERTEX_MAX_GB = 96, 624

_UNITS = {"": 1, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", start=1)}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_LEAST_MEMORY = 2**24  # bytes, in which no interpreter starts
_RESOURCE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

_ACCOUNTS = {
    "vertex": (re.compile(r"[^@\s]+@[^@\s]+"), "an e-mail address, as trainer@PROJECT.iam.gserviceaccount.com"),
    "kubeflow": (
        re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"),
        "the name of a Kubernetes service account in the namespace of the run, as pipeline-runner",
    ),
}


class _Hardware(NamedTuple):
    """The limits of one step's container, or of each task of the cluster that it launches; '' where there is none."""

    step: str
    cpu: str
    memory: str
    gpu: str
    gpu_count: str
    in_cluster: bool = False


def check(spec: Mapping[str, Any], platforms: Mapping[str, Any], backend: str) -> None:
    """Checks that a backend takes the pipeline's hardware and Kubernetes settings.

    Args:
        spec: the compiled pipeline.
        platforms: of its platform spec, by name.
        backend: vertex or kubeflow.

    Raises:
        FlagError: it does not.
    """
    if backend == "vertex" and platforms:
        raise FlagError(
            "Vertex AI takes no Kubernetes settings",
            received=f"a pipeline with settings for {', '.join(platforms)}, as --kubernetes makes them",
            hint="They are for --backend kubeflow; compile the pipeline without them for Vertex AI.",
        )
    if platforms:
        _check_platforms(platforms)
    for hardware in _hardware(spec):
        _check_amounts(hardware, backend)
        if hardware.gpu:
            (_check_vertex_gpu if backend == "vertex" else _check_kubernetes_gpu)(hardware)
    if cluster := clusters.of_spec(spec):
        _check_cluster(cluster, backend)
    if dataflow := build_runner.of_spec(spec):
        build_runner.check_backend(dataflow, backend)


def check_service_account(account: str, backend: str) -> None:
    """Checks that the account of a run is one of the backend's; '' is its default.

    Raises:
        FlagError: it is another backend's.
    """
    form, expected = _ACCOUNTS[backend]
    if account and not form.fullmatch(account):
        raise FlagError(f"Invalid --service_account for {BACKENDS[backend]}", received=account, expected=expected)


def only_backend(spec: Mapping[str, Any], platforms: Mapping[str, Any]) -> str:
    """Which backend alone takes a pipeline, and why, as a sentence; '' when both do.

    Raises:
        FlagError: none does.
    """
    refusals = {}
    for backend in BACKENDS:
        try:
            check(spec, platforms, backend)
        except FlagError as error:
            refusals[backend] = error
    if len(refusals) == len(BACKENDS):
        vertex, kubeflow = refusals["vertex"], refusals["kubeflow"]
        if vertex.problem == kubeflow.problem:
            raise vertex
        raise FlagError(
            "Neither Vertex AI nor Kubeflow takes this pipeline",
            received=kubeflow.received if platforms else vertex.received,
            expected=f"for Vertex AI, {vertex.expected or vertex.hint}; for Kubeflow, {kubeflow.expected}",
            hint="" if platforms else vertex.hint,
        )
    for backend, refusal in refusals.items():
        (other,) = set(BACKENDS) - {backend}
        return f"For {BACKENDS[other]} alone: {refusal.problem} ({refusal.received})"
    return ""


def _hardware(spec: Mapping[str, Any]) -> Iterator[_Hardware]:
    """The limits of each step, also as kfp before 2.11 wrote them, as numbers; those that a pipeline parameter sets
    are left out."""
    for label, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        limits = executor.get("container", {}).get("resources", {})
        gpu = limits.get("accelerator", {})
        memory = limits.get("resourceMemoryLimit") or (f"{limits['memoryLimit']}G" if "memoryLimit" in limits else "")
        values = (
            limits.get("resourceCpuLimit") or limits.get("cpuLimit") or "",
            memory,
            gpu.get("resourceType") or gpu.get("type") or "",
            gpu.get("resourceCount") or gpu.get("count") or "1",
        )
        cpu, memory, kind, count = ("" if str(value).startswith("{{") else str(value) for value in values)
        yield _Hardware(label.removeprefix("exec-").replace("-", "_"), cpu, memory, kind, count)
    if cluster := clusters.of_spec(spec):
        kind, _, count = cluster.accelerator.partition(":")
        yield _Hardware(TRAIN_STEP, cluster.cpu, cluster.memory, kind, count or "1", in_cluster=True)


def _check_cluster(cluster: ClusterShape, backend: str) -> None:
    if backend == "vertex":
        machines.machine_type(cluster.cpu, cluster.memory, cluster.accelerator)
        return
    for option, value in (("spot", cluster.spot), ("tensorboard", cluster.tensorboard)):
        if value:
            hint = "On Kubeflow, --kubernetes selects the nodes." if option == "spot" else ""
            raise FlagError(f"--{option} is for Vertex AI", received=value, hint=hint)


def _check_amounts(hardware: _Hardware, backend: str) -> None:
    step, cpu, memory = hardware[:3]
    name = BACKENDS[backend]
    is_limited = backend == "vertex" and not hardware.in_cluster  # whose machines are named, see `machines`
    if cpu and is_limited and _amount(cpu.replace("m", "")) / (1000 if "m" in cpu else 1) > _VERTEX_MAX_CPU:
        raise _refused(step, "CPUs", cpu, f"{name} has at most {_VERTEX_MAX_CPU} CPUs for a step of a pipeline")
    if not memory:
        return
    unit = memory.lstrip("0123456789.")
    # KFP compiles K, which Kubernetes does not know: it writes k.
    units = ("K", "M", "G") if backend == "vertex" else tuple(set(_UNITS) - {"K", ""})
    shown = "K, M or G, as 32G" if backend == "vertex" else "M, G, Mi or Gi, as 32Gi"
    if unit and unit not in units:
        raise _refused(step, "memory", memory, f"{name} reads a whole number and {shown}")
    if _amount(memory) < _LEAST_MEMORY:
        expected = f"a whole number and a unit, {shown}: without a unit it is bytes"
        raise FlagError(f"The memory of the step {step} is too little", received=memory, expected=expected)
    if is_limited and _amount(memory) > _VERTEX_MAX_GB * 1e9:
        raise _refused(step, "memory", memory, f"{name} has at most {_VERTEX_MAX_GB} GB for a step of a pipeline")


def _amount(quantity: str) -> float:
    """A quantity as a number; infinite where it is none."""
    found = _QUANTITY.fullmatch(quantity)
    return float(found[1]) * _UNITS.get(found[2], float("inf")) if found else float("inf")


def _check_vertex_gpu(hardware: _Hardware) -> None:
    step, kind, count = hardware.step, hardware.gpu, hardware.gpu_count
    if kind.upper().startswith("TPU"):
        raise _no_tpu(step, kind)
    if kind not in VERTEX_GPUS:
        hint = _nearest_gpu(kind)
        if "/" in kind:
            hint = "That is a resource of Kubernetes, for --backend kubeflow."
        raise _refused(step, "accelerator", kind, f"Vertex AI has {', '.join(VERTEX_GPUS)}", hint)
    if count not in map(str, _VERTEX_COUNTS):
        counts = ", ".join(map(str, _VERTEX_COUNTS))
        raise _refused(step, "number of accelerators", f"{kind}:{count}", f"Vertex AI has machines with {counts}")


def _nearest_gpu(kind: str) -> str:
    """A hint at the name of Vertex AI that has a word of `kind`, or is most similar to it: T4 -> NVIDIA_TESLA_T4."""
    words = set(re.split("[^A-Z0-9]+", kind.upper())) - {"NVIDIA", "TESLA"}
    for name in VERTEX_GPUS:
        if words & set(name.split("_")):
            return f"Did you mean {name}?"
    return did_you_mean(kind.upper(), VERTEX_GPUS)


def _check_kubernetes_gpu(hardware: _Hardware) -> None:
    step, kind = hardware.step, hardware.gpu
    if "tpu" in kind.lower():
        raise _no_tpu(step, kind)
    if not _RESOURCE_NAME.fullmatch(kind):
        raise _refused(
            step,
            "accelerator",
            kind,
            "Kubeflow takes the name of a Kubernetes resource, as nvidia.com/gpu or amd.com/gpu",
            "The kind of GPU is chosen by a nodeSelector in the file of --kubernetes, as "
            "cloud.google.com/gke-accelerator: nvidia-tesla-t4.",
        )


def _no_tpu(step: str, kind: str) -> UserError:
    return _refused(step, "accelerator", kind, "a GPU: the images have no TensorFlow for TPUs")


def _refused(step: str, what: str, value: str, expected: str, hint: str = "") -> FlagError:
    return FlagError(f"Invalid {what} for the step {step}", received=value, expected=expected, hint=hint)


def _check_platforms(platforms: Mapping[str, Any]) -> None:
    """Checks a platform spec as the drivers read it: unknown fields are errors, of which a step dies."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    expected = "the second YAML document as kfp-kubernetes writes it"
    if set(platforms) != {"kubernetes"}:
        raise FlagError("Unknown platform", received=", ".join(platforms), expected="kubernetes")
    try:
        json_format.ParseDict({"platforms": dict(platforms)}, pipeline_spec_pb2.PlatformSpec())
        for settings in platforms["kubernetes"]["deploymentSpec"]["executors"].values():
            json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (json_format.ParseError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FlagError("The pipeline's Kubernetes settings are invalid", received=reason, expected=expected) from None
