"""--replicas and what belongs to it: the compiled train step, schedules, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from pipelines import clusters
from tests.standin.vertex_messages import to_json
from tf_image_classification.launch.job import ClusterShape

_ROOT = ("--pipeline_root", "gs://bucket/root", "--train_metadata", "gs://bucket/photos")
_TENSORBOARD = "projects/p/locations/l/tensorboards/7"


def compiled(command, tmp_path, *words: str) -> dict:
    path = tmp_path / "pipeline.yaml"
    done = command("compile", "--output", str(path), "--image_tag", "v1", *words)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(path.read_text())


def test_a_train_step_with_replicas_has_the_same_inputs_and_outputs_in_the_image_without_tensorflow(command, tmp_path):
    one = compiled(command, tmp_path, "--cpu", "8", "--accelerator", "NVIDIA_TESLA_T4:1", "--replicas", "1")
    many = compiled(command, tmp_path, "--cpu", "8", "--accelerator", "NVIDIA_TESLA_T4:1", "--replicas", "3")
    assert clusters.of_spec(one) is None
    assert clusters.of_spec(many) == ClusterShape(
        replicas=3, image="tf-image-classification/train-gpu:v1", cpu="8", accelerator="NVIDIA_TESLA_T4:1"
    )
    before, after = one["components"]["comp-train"], many["components"]["comp-train"]
    assert after["outputDefinitions"] == before["outputDefinitions"]
    inputs = before["inputDefinitions"]["parameters"]
    added = set(after["inputDefinitions"]["parameters"]) - set(inputs)
    assert added == {"cluster", *clusters.OF_THE_RUN}
    given = many["root"]["dag"]["tasks"]["train"]
    assert {name: given["inputs"]["parameters"][name] for name in inputs} == (
        one["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]
    )
    assert given["cachingOptions"] == {"enableCache": True}
    container = many["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == "tf-image-classification/vertex:v1" and "resources" not in container
    for executor in one["deploymentSpec"]["executors"], many["deploymentSpec"]["executors"]:
        del executor["exec-train"]
    for spec in (one, many):
        del spec["components"]["comp-train"], spec["root"]["dag"]["tasks"]["train"]
    assert one == many


@pytest.mark.slow
def test_a_schedule_keeps_its_cluster_until_it_is_back_to_one_replica(pipelines, vertex):
    create = ("schedule", "create", "weekly", "--cron", "0 3 * * 1", *_ROOT)
    options = ("--replicas", "2", "--evaluator", "--spot", "--tensorboard", _TENSORBOARD, "--memory", "32G")
    assert pipelines(*create, *options, "--batch_size", "8").returncode == 0

    def updated(*words: str) -> ClusterShape | None:
        done = pipelines("schedule", "update", "weekly", *words)
        assert done.returncode == 0, done.stderr
        assert "images change" not in done.stderr
        (schedule,) = vertex.schedules.values()
        return clusters.of_spec(to_json(schedule.create_pipeline_job_request.pipeline_job)["pipelineSpec"])

    shape = updated("--replicas", "4")
    assert shape == ClusterShape(
        replicas=4, evaluator=True, spot=True, tensorboard=_TENSORBOARD, memory="32G", image=shape.image
    )
    assert updated("--memory", "").memory == ""
    assert updated("--replicas", "1") is None


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_anything_is_sent(pipelines, vertex, command):
    refusals = {
        ("--replicas", "0"): "--replicas",
        ("--parameter_servers", "-1"): "--parameter_servers",
        ("--tensorboard", "mine", "--batch_size", "2"): "projects/P/locations/L/tensorboards/ID",
        ("--replicas", "3", "--batch_size", "8"): "8 examples for 3 devices in 3 replicas",
        ("--replicas", "2", "--accelerator", "NVIDIA_TESLA_T4:2", "--batch_size", "6"): "4 devices in 2 replicas",
        ("--replicas", "2", "--accelerator", "T4:2", "--batch_size", "4"): "NVIDIA_TESLA_T4",
        ("--replicas", "2", "--cpu", "96", "--memory", "700G", "--batch_size", "2"): "has no such machine",
        ("--parameter_servers", "1", "--sync_replicas", "true"): "--sync_replicas does not go together with parameter",
        ("--parameter_servers", "1", "--jit_compile", "true"): "--jit_compile, and --parameter_servers",
        ("--spot", "--cpu", "32", "--accelerator", "NVIDIA_TESLA_T4:1"): "no such machine",
    }
    for words, message in refusals.items():
        done = pipelines("submit", *_ROOT, *words)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), (words, done.stderr)
    assert not vertex.jobs
    kubeflow = ("--backend", "kubeflow", "--output", "pipeline.yaml")
    for words in (("--spot",), ("--tensorboard", _TENSORBOARD)):
        done = command("compile", *kubeflow, *words)
        assert done.returncode == 2 and f"{words[0]} is for Vertex AI" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--replicas", "3", "--batch_size", "8"), "8 examples for 3 devices in 3 replicas"),
        (("--parameter_servers", "1", "--sync_batch_norm", "true"), "--sync_batch_norm, and --parameter_servers"),
    ],
)
def test_a_local_run_of_what_cannot_be_is_refused_before_its_first_step(command, tmp_path, words, message):
    (tmp_path / "photos").mkdir()
    runs, photos = str(tmp_path / "runs"), str(tmp_path / "photos")
    done = command("run", "--runs_dir", runs, "--train_metadata", photos, *words)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()
