"""Kubernetes settings of a pipeline: sent to Kubeflow, kept by reruns and schedules, and never sent to Vertex AI."""

from __future__ import annotations

import threading

import pytest

from pipelines import template
from tests.standin.kubeflow import Kubeflow
from tf_image_classification.errors import FlagError

SETTINGS = """
volumes:
  - {name: photos, persistentVolumeClaim: {claimName: photos}}
  - {name: key, secret: {secretName: trainer-key}}
env:
  - {name: GOOGLE_APPLICATION_CREDENTIALS, value: /key/key.json}
  - {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: minio, key: accesskey}}}
volumeMounts:
  - {name: photos, mountPath: /mnt/photos, subPath: animals}
  - {name: key, mountPath: /key}
nodeSelector: {disk: ssd}
tolerations:
  - {key: pool, value: training, effect: NoExecute, tolerationSeconds: 60}
imagePullSecrets: [{name: registry}]
imagePullPolicy: IfNotPresent
activeDeadlineSeconds: 86400
"""
ALL_OPTIONS = ["--cpu", "8", "--memory", "32G", "--retries", "2", "--notify", "projects/p/topics/t"]
IMAGES = ["--image_registry", "registry.test/team", "--image_tag", "7"]


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "kubernetes.yaml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture
def kubeflow(tmp_path, storage_url):
    service = Kubeflow(tmp_path / "kubeflow", storage_url)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def call(kubeflow, command):
    return lambda *words: command(*words, "--backend", "kubeflow", "--host", kubeflow.url)


def test_with_every_option_the_pipeline_is_accepted_by_the_loaders_of_kfp_and_kfp_kubernetes(
    command, settings, tmp_path
):
    from google.protobuf import json_format
    from kfp import components
    from kfp.kubernetes import kubernetes_executor_config_pb2

    output = str(tmp_path / "pipeline.yaml")
    options = ["--accelerator", "nvidia.com/gpu:1", "--kubernetes", settings, "--backend", "kubeflow", *ALL_OPTIONS]
    done = command("compile", "--output", output, *IMAGES, *options)
    assert done.returncode == 0, done.stderr
    loaded = components.load_component_from_file(output)
    executors = loaded.platform_spec.platforms["kubernetes"].deployment_spec.executors
    assert set(executors) == set(loaded.pipeline_spec.deployment_spec["executors"])
    for executor in executors.values():
        config = json_format.MessageToDict(executor)
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_with_every_option_the_pipeline_is_accepted_by_vertex_ais_pipeline_job(command, tmp_path, vertex):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    output = str(tmp_path / "pipeline.yaml")
    done = command("compile", "--output", output, *IMAGES, "--accelerator", "NVIDIA_TESLA_T4:1", *ALL_OPTIONS)
    assert done.returncode == 0, done.stderr
    aiplatform.init(
        project="my-project",
        location="europe-west4",
        api_endpoint=vertex.url,
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    job = aiplatform.PipelineJob(
        display_name="all",
        template_path=output,
        pipeline_root="gs://bucket/root",
        parameter_values={"train_metadata": "gs://bucket/photos"},
    )
    limits = job.to_dict()["pipelineSpec"]["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert limits["accelerator"]["resourceType"] == "NVIDIA_TESLA_T4"


def fail_at_once(*arguments, **_):
    """In the place of a stand-in's runner, which would start the steps."""
    thread = threading.Thread(target=arguments[-1], args=(False,))
    thread.start()
    return thread


def test_settings_are_sent_with_a_run_and_a_schedule_and_kept_by_a_rerun_and_an_update(
    call, kubeflow, settings, monkeypatch
):
    monkeypatch.setattr(kubeflow.runner, "start", fail_at_once)
    paths = [
        "--train_metadata",
        "/mnt/photos/cats",
        "--model_dir",
        "/mnt/photos/runs",
        "--champion",
        "/mnt/photos/best",
    ]
    words = [*paths, *IMAGES, "--kubernetes", settings]
    submitted = call("submit", "--run_id", "first", *words)
    assert submitted.returncode == 0, submitted.stderr
    (first,) = kubeflow.runs.values()
    platforms = first["pipeline_spec"]["platform_spec"]["platforms"]
    assert platforms["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["pvcMount"][0]["constant"] == "photos"
    kubeflow.join()
    shown = call("runs", "show", "first")
    assert "train_metadata" in shown.stdout, shown.stderr
    rerun = call("runs", "rerun", "first", "--run_id", "second")
    assert rerun.returncode == 0, rerun.stderr
    assert list(kubeflow.runs.values())[1]["pipeline_spec"] == first["pipeline_spec"]
    created = call("schedule", "create", "weekly", "--cron", "0 3 * * 1", *words)
    assert created.returncode == 0, created.stderr
    updated = call("schedule", "update", "weekly", "--train_steps", "40")
    assert updated.returncode == 0, updated.stderr
    (schedule,) = kubeflow.recurring.values()
    assert schedule["pipeline_spec"]["platform_spec"] == first["pipeline_spec"]["platform_spec"]
    assert schedule["runtime_config"]["parameters"]["train_steps"] == 40


def test_nothing_is_sent_to_the_backend_that_does_not_take_it(command, call, pipelines, kubeflow, vertex, settings):
    """Also not a template, which may have been written by hand."""
    template_of = {}
    for name, *options in (
        ("kubernetes", "--kubernetes", settings),
        ("kubeflow", "--accelerator", "nvidia.com/gpu:1"),
        ("vertex", "--accelerator", "NVIDIA_TESLA_T4:1"),
    ):
        template_of[name] = f"{settings}.{name}.yaml"
        assert command("compile", "--output", template_of[name], *IMAGES, *options).returncode == 0
    data = ["--train_metadata", "gs://bucket/photos", "--pipeline_root", "gs://bucket/root"]
    schedule = ("schedule", "create", "weekly", "--cron", "0 3 * * 1")
    for backend, verb, options, expected in (
        (pipelines, ["submit"], ["--template", template_of["kubernetes"]], "Vertex AI takes no Kubernetes settings"),
        (pipelines, schedule, ["--template", template_of["kubernetes"]], "Vertex AI takes no Kubernetes settings"),
        (pipelines, ["submit"], ["--kubernetes", settings], "--kubernetes is for Kubeflow"),
        (pipelines, ["submit"], ["--template", template_of["kubeflow"]], "a resource of Kubernetes"),
        (pipelines, ["submit"], ["--accelerator", "T4:1"], "Did you mean NVIDIA_TESLA_T4?"),
        (call, ["submit"], ["--template", template_of["vertex"]], "nvidia.com/gpu"),
        (call, schedule, ["--accelerator", "NVIDIA_TESLA_T4:1"], "nvidia.com/gpu"),
        (call, ["submit"], ["--memory", "32"], "without a unit it is bytes"),
        (call, ["submit"], ["--template", template_of["kubeflow"], "--kubernetes", settings], "--template"),
    ):
        done = backend(*verb, *data, *options)
        assert done.returncode == 2 and expected in " ".join(done.stderr.split()), done.stderr
    assert not vertex.requests and not kubeflow.requests


MOUNTED = {step: ["/mnt/photos"] for step in ("resolve", "build_tfrecords", "train", "evaluate", "register")}


@pytest.mark.parametrize(
    ("values", "unmounted"),
    [
        ({"train_metadata": "/mnt/photos/cats,gs://bucket/dogs"}, "build_tfrecords"),
        ({"checkpoint_path": "/mnt/photos/inception.ckpt"}, "resolve"),
        ({"model_dir": "/mnt/photos/runs"}, "train"),
        ({"champion": "/mnt/photos/best"}, "evaluate"),
        ({"champion": "/mnt/photos/best", "checkpoint_path": "champion"}, "train"),
    ],
)
def test_a_path_below_a_claim_needs_its_mount_in_every_step_that_opens_it(values, unmounted):
    template.check_paths(values, "kubeflow", MOUNTED)
    with pytest.raises(FlagError, match=f"a volume that --kubernetes mounts in .*{unmounted}"):
        template.check_paths(values, "kubeflow", MOUNTED | {unmounted: ["/mnt/other"]})
    with pytest.raises(FlagError, match="cannot see"):
        template.check_paths(values, "vertex", MOUNTED)


def test_a_path_that_leads_out_of_a_claim_is_not_below_it():
    template.check_paths({"train_metadata": "/mnt/photos"}, "kubeflow", MOUNTED)
    with pytest.raises(FlagError, match="cannot see"):
        template.check_paths({"train_metadata": "/mnt/photos/../others"}, "kubeflow", MOUNTED)


def test_kubeflow_mounts_no_buckets():
    with pytest.raises(FlagError, match="Kubeflow mounts no bucket: write gs://bucket/photos"):
        template.check_paths({"train_metadata": "/gcs/bucket/photos"}, "kubeflow")
    mounted = {step: ["/gcs/bucket"] for step in MOUNTED}
    template.check_paths({"train_metadata": "/gcs/bucket/photos"}, "kubeflow", mounted)
    with pytest.raises(FlagError, match="--champion"):  # it could not be written on a condition
        template.check_paths({"champion": "/gcs/bucket/best"}, "kubeflow", mounted)
