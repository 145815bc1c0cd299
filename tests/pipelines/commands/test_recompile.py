"""Options of the compilation, of caching and of labels, given to a schedule that has others already."""

from __future__ import annotations

import json

import pytest

from pipelines import template
from pipelines.commands import parameters
from tests.standin.vertex_messages import to_json

_CREATE = ("schedule", "create", "weekly", "--cron", "0 3 * * 1", "--pipeline_root", "gs://bucket/root")
_UPDATE = ("schedule", "update", "weekly")
_MODEL, _ENDPOINT = "projects/p/locations/l/models/pets", "projects/p/locations/l/endpoints/42"
_OURS = ("--train_metadata", "gs://bucket/photos")


def _job(vertex):
    (schedule,) = vertex.schedules.values()
    return schedule.create_pipeline_job_request.pipeline_job


def _spec(vertex):
    return to_json(_job(vertex))["pipelineSpec"]


def _container(spec, step):
    return spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]


def _changed(pipelines, *words: str) -> str:
    done = pipelines(*_UPDATE, *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_one_option_of_the_compilation_leaves_the_others_and_the_parameters_as_they_are(pipelines, vertex):
    hardware = ("--cpu", "8", "--cpu", "evaluate=2", "--memory", "32G", "--accelerator", "NVIDIA_TESLA_T4:1")
    others = ("--retries", "2", "--notify", "https://example.com/hook", "--notify_insecure", "--caching", "false")
    assert pipelines(*_CREATE, *_OURS, *hardware, *others, "--train_steps", "7").returncode == 0
    before = _spec(vertex)
    assert not _changed(pipelines, "--cpu", "evaluate=4")
    after = _spec(vertex)
    assert _container(after, "evaluate")["resources"]["resourceCpuLimit"] == "4"
    _container(after, "evaluate")["resources"] = _container(before, "evaluate")["resources"]
    assert after == before
    assert dict(_job(vertex).runtime_config.parameter_values)["train_steps"] == 7


def test_what_a_step_has_is_taken_back_and_changed_images_are_said(pipelines, vertex, registry):
    hardware = ("--accelerator", "NVIDIA_TESLA_T4:1", "--cpu", "8")
    assert pipelines(*_CREATE, *_OURS, "--image_tag", "v1", *hardware).returncode == 0
    said = _changed(pipelines, "--accelerator", "", "--cpu", "train=")
    team = f"{registry.host}/team"
    assert f"train {team}/train-gpu:v1 -> {team}/train:v1" in " ".join(said.split())
    assert "resources" not in _container(_spec(vertex), "train")
    said = _changed(pipelines, "--image_tag", "v2")
    assert f"resolve {team}/vertex:v1 -> {team}/vertex:v2" in " ".join(said.split())
    assert "give that again" not in said


def test_the_platform_of_images_stays_and_a_user_or_base_that_tags_do_not_tell_is_asked_for(pipelines, vertex):
    assert pipelines(*_CREATE, *_OURS, "--image_user", "0:0", "--image_platform", "linux/arm/v7").returncode == 0
    before = _spec(vertex)
    said = " ".join(_changed(pipelines, "--retries", "2").split())
    assert "images with another --image_base or --image_user, give that again" in said
    assert _container(_spec(vertex), "train")["image"].endswith("-arm-v7")
    _changed(pipelines, "--image_user", "0:0")
    assert _container(_spec(vertex), "train") == _container(before, "train")


def test_a_pipeline_of_others_is_not_compiled_by_this_checkout(pipelines, vertex, tiny_template):
    words = ("--template", str(tiny_template), "--folder", "gs://bucket/words")
    assert pipelines(*_CREATE, *words).returncode == 0
    refused = pipelines(*_UPDATE, "--memory", "32G")
    assert refused.returncode == 2 and "--memory cannot change" in refused.stderr and "--template" in refused.stderr
    for option, value in (("--image_registry", "eu.pkg.dev/p/r"), ("--retries", "0")):
        refused = pipelines(*_UPDATE, *words[:2], option, value)
        assert refused.returncode == 2 and f"{option} cannot be given with --template" in refused.stderr


def test_caching_comes_back_where_it_was(pipelines, vertex, tiny_template):
    words = ("--template", str(tiny_template), "--folder", "gs://bucket/words")
    assert pipelines(*_CREATE, *words).returncode == 0
    compiled = _spec(vertex)
    _changed(pipelines, "--caching", "false")
    assert not [one for _, one in template.tasks(_spec(vertex)) if one["cachingOptions"].get("enableCache")]
    _changed(pipelines, *words[:2])
    assert template.is_without_caching(_spec(vertex)), "another template keeps it"
    _changed(pipelines, "--caching", "true")
    assert _spec(vertex) == compiled


def test_a_step_that_this_project_never_caches_stays_so_in_what_an_earlier_version_sent(pipelines, vertex):
    assert pipelines(*_CREATE, *_OURS).returncode == 0
    compiled = _spec(vertex)
    earlier = json.loads(json.dumps(compiled))
    for _, task in template.tasks(earlier):
        task["cachingOptions"] = {"enableCache": False}
    _job(vertex).pipeline_spec = earlier
    _changed(pipelines, "--caching", "true")
    cached = {name for name, task in template.tasks(_spec(vertex)) if task["cachingOptions"].get("enableCache")}
    assert cached == {"build-tfrecords", "train", "evaluate"}


def test_labels_add_up_and_are_taken_back(pipelines, vertex, tiny_template):
    words = ("--template", str(tiny_template), "--folder", "gs://bucket/words")
    assert pipelines(*_CREATE, *words, "--labels", "team=vision", "a=b", "--labels", "c=d").returncode == 0
    assert dict(_job(vertex).labels) == {"team": "vision", "a": "b", "c": "d"}
    _changed(pipelines, "--labels", "")
    assert not _job(vertex).labels


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"endpoint": _ENDPOINT, "champion": _MODEL, "promote": False}, "--endpoint has no effect"),
        ({"estimator": "my.module:Net"}, "--estimator my.module:Net without --packages"),
        ({"estimator": "my.module:Net", "packages": "gs://bucket/net.whl"}, ""),
        ({"endpoint": _ENDPOINT, "champion": _MODEL}, ""),
    ],
)
def test_a_flag_that_another_one_leaves_without_effect_is_warned_of(values, message, caplog):
    parameters.check_together(values, in_images=True)
    assert message in caplog.text and bool(message) == bool(caplog.text)


def test_a_flag_or_an_option_that_has_no_effect_is_refused(command):
    vertex = ("--project", "p", "--location", "l")
    for words, message in (
        (["submit", *vertex, *_OURS, "--packages", "gs://bucket/a.whl"], "--packages needs an --estimator"),
        (["run", "--packages", __file__], "--packages needs an --estimator"),
        (["run", "--train_metadata", "/nowhere"], "--train_metadata is not found"),
        (["run", "--checkpoint_path", "/nowhere/model.ckpt"], "--checkpoint_path is not found"),
        (["runs", "list", *vertex, "--namespace", "team"], "--namespace does nothing with --backend vertex"),
        (["runs", "list", *vertex, "--backend", "kubeflow"], "--project does nothing with --backend kubeflow"),
    ):
        done = command(*words)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr


def test_settings_for_kubernetes_stay(command, registry, storage_url, tmp_path):
    from tests.standin.kubeflow import Kubeflow

    settings = tmp_path / "kubernetes.yaml"
    settings.write_text("nodeSelector: {disk: ssd}\nenv: [{name: REGION, value: europe}]\n")
    service = Kubeflow(tmp_path / "kubeflow", storage_url)
    service.start()
    connection = ("--backend", "kubeflow", "--host", service.url)

    def sent(*words: str) -> str:
        done = command(*words, *connection)
        assert done.returncode == 0, done.stderr
        return str(next(iter(service.recurring.values()))["pipeline_spec"])

    try:
        images = ("--image_registry", f"{registry.host}/team")
        assert "'disk': 'ssd'" in sent(*_CREATE, *_OURS, *images, "--kubernetes", str(settings))
        changed = sent(*_UPDATE, "--memory", "32Gi")
        assert "'disk': 'ssd'" in changed and "32Gi" in changed
        assert changed.count("'REGION'") == 6  # in the container of each step, not in the platform spec
    finally:
        service.stop()
