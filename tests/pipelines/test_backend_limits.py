"""Hardware is checked by backend, before anything is sent: Vertex AI and Kubernetes name and limit it differently."""

from __future__ import annotations

import json

import pytest
import yaml

from pipelines import backend_limits
from pipelines.backend_limits import VERTEX_GPUS
from tf_image_classification.errors import FlagError


def spec(**resources) -> dict:
    return {"deploymentSpec": {"executors": {"exec-train": {"container": {"image": "i", "resources": resources}}}}}


def gpu(kind: str, count: str = "1") -> dict:
    return spec(accelerator={"resourceType": kind, "resourceCount": count})


def refusal(pipeline: dict, backend: str) -> str:
    with pytest.raises(FlagError) as refused:
        backend_limits.check(pipeline, {}, backend)
    return str(refused.value)


def test_the_gpus_are_those_of_vertex_ais_sdk():
    from google.cloud import aiplatform_v1

    names = {kind.name for kind in aiplatform_v1.AcceleratorType}
    assert set(VERTEX_GPUS) == {name for name in names if not name.startswith(("TPU", "ACCELERATOR_TYPE"))}


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("T4", "Did you mean NVIDIA_TESLA_T4?"),
        ("nvidia-l4", "Did you mean NVIDIA_L4?"),
        ("NVIDIA_TESLA_T5", "Did you mean NVIDIA_TESLA_T4?"),
        ("A100", "Did you mean NVIDIA_TESLA_A100?"),
        ("nvidia.com/gpu", "--backend kubeflow"),
        ("TPU_V3", "no TensorFlow for TPUs"),
    ],
)
def test_vertex_ai_takes_the_accelerators_of_its_enum(kind, hint):
    message = refusal(gpu(kind), "vertex")
    assert "the step train" in message and kind in message and hint in message
    assert "NVIDIA_TESLA_V100" in message or "TPU" in kind


def test_vertex_ai_has_machines_with_a_power_of_two_of_gpus():
    backend_limits.check(gpu("NVIDIA_TESLA_T4", "4"), {}, "vertex")
    assert "1, 2, 4, 8, 16" in refusal(gpu("NVIDIA_TESLA_T4", "3"), "vertex")


@pytest.mark.parametrize("kind", ["NVIDIA_TESLA_T4", "T4", "gpu", "nvidia.com/"])
def test_kubeflow_takes_the_name_of_a_kubernetes_resource(kind):
    message = refusal(gpu(kind), "kubeflow")
    assert kind in message and "nvidia.com/gpu" in message and "nodeSelector" in message
    for name in ("nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb"):
        backend_limits.check(gpu(name), {}, "kubeflow")
    assert "TPU" in refusal(gpu("google.com/tpu"), "kubeflow")


@pytest.mark.parametrize(
    ("memory", "vertex", "kubeflow"),
    [
        ("32G", "", ""),
        ("32000M", "", ""),
        ("32Gi", "K, M or G", ""),
        ("1T", "K, M or G", ""),
        ("32", "without a unit it is bytes", "without a unit it is bytes"),
        ("32K", "bytes", "Mi or Gi"),
        ("624G", "", ""),
        ("625G", "at most 624 GB", ""),
    ],
)
def test_memory_has_the_units_and_the_maximum_of_the_backend(memory, vertex, kubeflow):
    for backend, expected in (("vertex", vertex), ("kubeflow", kubeflow)):
        if expected:
            assert expected in refusal(spec(resourceMemoryLimit=memory), backend)
        else:
            backend_limits.check(spec(resourceMemoryLimit=memory), {}, backend)


def test_vertex_ai_has_at_most_96_cpus():
    for cpu in ("96", "96000m", "0.5"):
        backend_limits.check(spec(resourceCpuLimit=cpu), {}, "vertex")
    for cpu in ("97", "96001m"):
        assert "at most 96 CPUs" in refusal(spec(resourceCpuLimit=cpu), "vertex")
        backend_limits.check(spec(resourceCpuLimit=cpu), {}, "kubeflow")


def test_the_tasks_of_a_cluster_have_machines_that_a_step_cannot_have():
    shape = {"replicas": 2, "cpu": "208", "memory": "1800G", "accelerator": "NVIDIA_H100_80GB:8"}
    task = {"inputs": {"parameters": {"cluster": {"runtimeValue": {"constant": json.dumps(shape)}}}}}
    pipeline = spec() | {"root": {"dag": {"tasks": {"train": task}}}}
    backend_limits.check(pipeline, {}, "vertex")
    shape["cpu"] = "209"
    task["inputs"]["parameters"]["cluster"]["runtimeValue"]["constant"] = json.dumps(shape)
    assert "has no such machine" in refusal(pipeline, "vertex")


def test_the_limits_of_older_compilers_are_checked_too_and_those_of_parameters_are_not():
    old = spec(cpuLimit=128.0, memoryLimit=700.0, accelerator={"type": "T4", "count": "1"})
    assert "at most 96 CPUs" in refusal(old, "vertex")
    assert "nvidia.com/gpu" in refusal(old, "kubeflow")
    runtime = "{{$.inputs.parameters['pipelinechannel--memory']}}"
    backend_limits.check(spec(resourceMemoryLimit=runtime, accelerator={"resourceType": runtime}), {}, "vertex")


@pytest.mark.parametrize(
    "platforms",
    [
        {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": {"nodeSelectors": {}}}}}},
        {"kubernetes": {"deploymentSpec": {"executor": {}}}},
        {"kubernetes": []},
        {"nomad": {}},
    ],
)
def test_a_platform_spec_that_the_drivers_would_refuse_is_refused(platforms):
    with pytest.raises(FlagError, match=r"settings are invalid|Unknown platform"):
        backend_limits.check(spec(), platforms, "kubeflow")


def test_an_account_is_an_e_mail_address_on_vertex_ai_and_a_name_on_kubeflow():
    for backend, account, other in (
        ("vertex", "trainer@p.iam.gserviceaccount.com", "pipeline-runner"),
        ("kubeflow", "pipeline-runner", "trainer@p.iam.gserviceaccount.com"),
    ):
        for valid in ("", account):
            backend_limits.check_service_account(valid, backend)
        with pytest.raises(FlagError, match="--service_account"):
            backend_limits.check_service_account(other, backend)


def compiled(command, tmp_path, *words):
    output = tmp_path / "pipeline.yaml"
    return command("compile", "--output", str(output), *words), output


def test_a_compiled_file_says_which_backend_alone_takes_it(command, tmp_path):
    for words, name in (
        (["--accelerator", "NVIDIA_TESLA_T4:1"], "Vertex AI"),
        (["--accelerator", "nvidia.com/gpu:1"], "Kubeflow"),
        (["--memory", "32Gi"], "Kubeflow"),
    ):
        done, output = compiled(command, tmp_path, *words)
        assert done.returncode == 0 and done.stdout.strip() == str(output)
        assert done.stderr.startswith(f"For {name} alone: ")
        assert output.read_text().startswith(f"# {done.stderr.strip()}\n")
        assert yaml.safe_load(output.read_text())["pipelineInfo"]
    done, output = compiled(command, tmp_path, "--memory", "32G", "--cpu", "8")
    assert not done.stderr and " alone: " not in output.read_text()


def test_options_of_no_backend_and_of_another_than_the_given_one_are_refused(command, tmp_path):
    for words, expected in (
        (["--accelerator", "T4:1"], "Did you mean NVIDIA_TESLA_T4"),
        (["--accelerator", "nvidia.com/gpu:1", "--backend", "vertex"], "resource of Kubernetes"),
        (["--accelerator", "NVIDIA_TESLA_T4:1", "--backend", "kubeflow"], "nodeSelector"),
        (["--memory", "32"], "bytes"),
    ):
        done, output = compiled(command, tmp_path, *words)
        assert done.returncode == 2 and expected in " ".join(done.stderr.split())
        assert not output.exists()
