"""`pipelines check` finds what stands between a machine and a first run, and names the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.standin.google_apis import CALLER, TRAINER, GoogleApis
from tests.standin.kubeflow import Kubeflow
from tests.standin.registry import Registry
from tf_image_classification.dataflow.options import DataflowOptions
from tf_image_classification.launch.job import ClusterShape

IMAGES = ("train-gpu", "evaluate", "build_tfrecords", "vertex")


@pytest.fixture
def google(tmp_path, monkeypatch, storage_url) -> Iterator[GoogleApis]:
    """A project in which a run would succeed, and a caller who may start it."""
    with GoogleApis(tmp_path / "key.json") as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def images() -> Iterator[Registry]:
    """A registry with every image."""
    with Registry(has_all=True) as service:
        yield service


@pytest.fixture
def words(images, vertex, tiny_gpu_template) -> list[str]:
    """The options of a first run on Vertex AI."""
    service = ["--project", "my-project", "--location", "europe-west4", "--api_endpoint", vertex.url]
    run = ["--pipeline_root", "gs://bucket/runs", "--service_account", TRAINER]
    return ["check", *service, *run, "--template", str(tiny_gpu_template), "--train_metadata", "gs://bucket/words"]


@pytest.fixture
def tiny_gpu_template(tmp_path, images):
    """A pipeline of one step with a GPU, whose image is in the registry."""
    executor = f"""{{"container": {{"image": "{images.host}/team/train-gpu:1", "resources": {{"accelerator":
        {{"resourceType": "NVIDIA_TESLA_T4", "resourceCount": "1"}}}}}}}}"""
    task = '{"componentRef": {"name": "comp-train"}, "taskInfo": {"name": "train"}}'
    names = ("train_metadata", "eval_metadata")
    inputs = json.dumps({"parameters": {name: {"parameterType": "STRING", "isOptional": True} for name in names}})
    path = tmp_path / "gpu.json"
    path.write_text(
        f"""{{"pipelineInfo": {{"name": "gpu"}}, "deploymentSpec": {{"executors": {{"exec-train": {executor}}}}},
        "components": {{"comp-train": {{"executorLabel": "exec-train"}}}},
        "root": {{"dag": {{"tasks": {{"train": {task}}}}}, "inputDefinitions": {inputs}}}}}"""
    )
    return path


def lines(text: str) -> dict[str, tuple[str, str, str]]:
    """Name of a check -> its verdict, what was found, and what mends it."""
    found: dict[str, tuple[str, str, str]] = {}
    for text_line in text.splitlines():
        verdict, name, rest = text_line[:12].strip(), text_line[13:35].strip(), text_line[36:]
        if verdict in ("OK", "FAIL", "cannot tell"):
            found[name] = verdict, rest, ""
            last = name
        elif not verdict and text_line:
            found[last] = (*found[last][:2], text_line.strip())
    return found


def test_nothing_stands_in_the_way_of_a_run_that_would_succeed(command, words, google, vertex):
    done = command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {verdict for verdict, _, _ in lines(done.stdout).values()} == {"OK"}
    assert lines(done.stdout)["credentials"][1] == CALLER
    assert "\n0 failed, 0 could not be told, " in done.stdout
    assert not google.saw_credentials  # over http://
    asked = [request for request in google.requests if not request.startswith("GET")]
    assert all(request.endswith(("/token", ":testIamPermissions", ":getIamPolicy")) for request in asked)
    assert not [request for request in vertex.requests if not request.startswith("GET")]


def _set(name: str, value: object) -> Callable[[GoogleApis, Registry], None]:
    return lambda google, images: setattr(google, name, value)


def _lose(permission: str) -> Callable[[GoogleApis, Registry], None]:
    return lambda google, images: google.held.remove(permission)


def _no_image(google: GoogleApis, images: Registry) -> None:
    images.has_all = False


@pytest.mark.parametrize(
    ("plant", "name", "mend"),
    [
        (_set("revoked", True), "credentials", "gcloud auth application-default login"),
        (_set("projects", set()), "project", "gcloud projects describe my-project"),
        (_set("billing", False), "billing", "gcloud billing projects link my-project --billing-account ACCOUNT"),
        (
            _set("disabled", {"aiplatform"}),
            "APIs",
            "gcloud services enable aiplatform.googleapis.com --project my-project",
        ),
        (
            _lose("aiplatform.pipelineJobs.create"),
            "permissions",
            f"gcloud projects add-iam-policy-binding my-project --member serviceAccount:{CALLER} "
            "--role roles/aiplatform.user --condition None",
        ),
        (
            _set("quota", {"custom_model_training_nvidia_t4_gpus": 0}),
            "quota",
            "request a higher aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus in europe-west4",
        ),
        (_set("location", "US-CENTRAL1"), "bucket", "gcloud storage buckets create gs://NAME --project my-project"),
        (
            _lose("storage.objects.create"),
            "bucket's permissions",
            f"gcloud storage buckets add-iam-policy-binding gs://bucket --member serviceAccount:{CALLER} "
            "--role roles/storage.objectUser",
        ),
        (_no_image, "images", "make images PUSH=1 REGISTRY=127.0.0.1:"),
        (_set("accounts", set()), "account", "gcloud iam service-accounts create trainer --project my-project"),
        (
            _lose("iam.serviceAccounts.actAs"),
            "acting as it",
            f"gcloud iam service-accounts add-iam-policy-binding {TRAINER} --member serviceAccount:{CALLER} "
            "--role roles/iam.serviceAccountUser",
        ),
        (
            _set("roles", {}),
            "its roles",
            f"gcloud projects add-iam-policy-binding my-project --member serviceAccount:{TRAINER} "
            "--role roles/aiplatform.user --condition None; ",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " not in value else "",
)
def test_a_planted_obstacle_fails_its_line_alone_which_names_what_mends_it(
    command, words, google, images, plant, name, mend
):
    plant(google, images)
    done = command(*words)
    found = lines(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert found[name][0] == "FAIL", done.stdout
    assert mend in found[name][2]
    assert {verdict for other, (verdict, _, _) in found.items() if other != name} == {"OK"}, done.stdout


def _launch(template: Path, image: str, **shape: object) -> None:
    """Makes the training step of a template launch a cluster of three tasks with a T4 each."""
    cluster = ClusterShape(replicas=3, image=image, accelerator="NVIDIA_TESLA_T4:1", **shape)
    content = json.loads(template.read_text())
    constant = {"runtimeValue": {"constant": cluster.to_json()}}
    content["root"]["dag"]["tasks"]["train"]["inputs"] = {"parameters": {"cluster": constant}}
    content["root"]["inputDefinitions"]["parameters"]["batch_size"] = {"parameterType": "NUMBER_INTEGER"}
    template.write_text(json.dumps(content))


def test_spot_machines_have_a_quota_of_their_own(command, words, google, images, tiny_gpu_template):
    _launch(tiny_gpu_template, f"{images.host}/team/train-gpu:1", spot=True)
    google.quota["custom_model_training_preemptible_nvidia_t4_gpus"] = 2
    verdict, found, mend = lines(command(*words, "--batch_size", "3").stdout)["quota"]
    assert (verdict, found.rpartition(", ")[2]) == ("FAIL", "a step of the run has 3")
    assert "request a higher aiplatform.googleapis.com/custom_model_training_preemptible_nvidia_t4_gpus" in mend


def test_the_account_of_a_cluster_has_to_act_as_itself_and_the_quota_is_for_all_machines(
    command, words, google, images, tiny_gpu_template
):
    _launch(tiny_gpu_template, f"{images.host}/team/train-gpu:1")
    words += ["--batch_size", "3"]
    found = lines(command(*words).stdout)
    assert found["its machines"][:2] == ("OK", f"{TRAINER} may start machines that have it")
    assert (found["quota"][0], found["quota"][1].rpartition(", ")[2]) == ("FAIL", "a step of the run has 3")
    google.account_roles = {}
    found = lines(command(*words).stdout)
    assert found["its machines"][0] == "FAIL"
    assert found["its machines"][2].endswith(f"{TRAINER} --role roles/iam.serviceAccountUser")


@pytest.mark.parametrize("account", ["", "builder@my-project.iam.gserviceaccount.com"])
def test_a_build_on_dataflow_needs_its_service_and_roles_of_its_workers_if_they_have_the_same_account(
    command, words, google, images, tiny_gpu_template, account
):
    options = DataflowOptions(f"{images.host}/team/beam:1", service_account=account)
    content = json.loads(tiny_gpu_template.read_text())
    constant = {"runtimeValue": {"constant": options.to_json()}}
    tasks = content["root"]["dag"]["tasks"]
    tasks["build-tfrecords"] = tasks.pop("train") | {"inputs": {"parameters": {"dataflow": constant}}}
    tiny_gpu_template.write_text(json.dumps(content))
    google.disabled = {"dataflow"}
    found = lines(command(*words).stdout)
    assert found["APIs"][2] == "gcloud services enable dataflow.googleapis.com --project my-project"
    lacking = ["roles/dataflow.developer", *([] if account else ["roles/dataflow.worker"])]
    assert found["its roles"][:2] == ("FAIL", f"{TRAINER} lacks {', '.join(lacking)}")
    assert ("its machines" in found) == (not account)
    google.disabled = set()
    google.roles |= {role: [f"serviceAccount:{TRAINER}"] for role in lacking}
    found = lines(command(*words).stdout)
    assert (found["APIs"][0], found["its roles"][0]) == ("OK", "OK")


def test_data_that_is_not_there_fails_and_a_bucket_that_does_not_exist(command, words, google):
    words[words.index("gs://bucket/words")] = "gs://bucket/wrods"
    google.bucket_roles = {}
    words += ["--eval_metadata", "gs://bucket/{date}/words"]
    found = lines(command(*words).stdout)
    assert found["--train_metadata"][:2] == ("FAIL", "gs://bucket/wrods is not found")
    assert found["--eval_metadata"][:2] == (
        "FAIL",
        "No data of today or an earlier date found: gs://bucket/{date}/words",
    )
    assert found["bucket"][2].startswith(
        "gcloud storage buckets create gs://bucket --project my-project --location europe-west4"
    )


@pytest.mark.parametrize(("location", "covers"), [("EU", True), ("EUR4", True), ("EUR5", False), ("US", False)])
def test_a_bucket_of_several_regions_covers_those_in_it(command, words, google, location, covers):
    google.location = location
    assert lines(command(*words).stdout)["bucket"][0] == ("OK" if covers else "FAIL")


def test_what_this_account_may_not_see_is_not_called_a_failure(command, words, google):
    google.hidden = ("quota", "bucket")
    google.roles = {"projects/my-project/roles/trainer": [f"serviceAccount:{TRAINER}"]}
    done = command(*words)
    assert done.returncode == 0
    found = lines(done.stdout)
    for name in ("quota", "bucket", "its roles"):
        assert found[name][0] == "cannot tell"
        assert found[name][2]
    assert "--role roles/serviceusage.serviceUsageConsumer" in found["quota"][2]


def test_roles_on_a_bucket_that_are_not_shown_hide_no_missing_role_on_the_project(command, words, google):
    google.hidden = ("bucket's policy",)
    assert lines(command(*words).stdout)["its roles"][0] == "cannot tell"
    google.roles = {}
    assert lines(command(*words).stdout)["its roles"][0] == "FAIL"


def test_without_credentials_what_needs_them_cannot_be_told(command, words, google, monkeypatch):
    google.revoked = True
    words.remove("--service_account")
    words.remove(TRAINER)
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER")  # an address of Google's wants them
    done = command(*words)
    found = lines(done.stdout)
    assert found["credentials"][0] == "FAIL"
    assert {name for name, (verdict, _, _) in found.items() if verdict == "cannot tell"} == {
        "project",
        "permissions",
        "account",
    }
    assert len([request for request in google.requests if request == "POST /token"]) <= 3  # google-auth's own attempts


def test_what_submit_would_refuse_of_the_options_and_the_parameters_is_refused(command, tmp_path, words):
    (tmp_path / "params.yaml").write_text("train_steq: 3\n")
    assert command(*words, "--labels", "Team=x").returncode == 2
    place = ["--project", "p", "--location", "l"]
    for more in (
        ["--namespace", "team"],
        ["--params", str(tmp_path / "params.yaml")],
        [*place, "--packages", "gs://bucket/own.whl"],
        [*place, "--endpoint", "42"],
    ):
        assert command("check", *more).returncode == 2


def test_only_what_is_given_is_checked_and_the_rest_is_named(command, google):
    done = command("check", "--project", "my-project")
    assert done.returncode == 1  # the Compute Engine account, as runs would have, does not exist here
    assert "account" in lines(done.stdout)
    assert not {"bucket", "quota", "images", "Vertex AI"} & lines(done.stdout).keys()
    missing = done.stdout.partition("Not given, and so not checked: ")[2].splitlines()[0]
    options = ("pipeline_root", "train_metadata", "location", "image_registry", "service_account", "accelerator")
    assert missing == ", ".join(f"--{option}" for option in options)


@pytest.fixture
def kubeflow(tmp_path, storage_url) -> Iterator[Kubeflow]:
    service = Kubeflow(tmp_path / "kubeflow", storage_url)
    service.start()
    yield service
    service.stop()


def test_a_cluster_is_checked_for_address_sign_in_version_experiment_bucket_and_images(
    command, kubeflow, tiny_template, registry
):
    words = ["check", "--backend", "kubeflow", "--template", str(tiny_template), "--pipeline_root", "gs://bucket/runs"]
    done = command(*words, "--host", kubeflow.url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = lines(done.stdout)
    assert set(found) == {"options", "address", "sign-in", "version", "experiment", "bucket", "images"}
    assert {verdict for verdict, _, _ in found.values()} == {"OK"}
    assert not [request for request in kubeflow.requests if not request.startswith("GET")]

    other = lines(command(*words, "--host", kubeflow.url, "--experiment", "missing", "--failure_policy", "fast").stdout)
    assert (other["experiment"][0], other["options"][0]) == ("FAIL", "FAIL")
    closed = command(*words, "--host", "http://127.0.0.1:9")
    assert closed.returncode == 1
    assert "kubectl port-forward" in lines(closed.stdout)["address"][2]


def test_an_old_kubeflow_is_named_with_what_it_cannot_do(command, kubeflow, tiny_template):
    words = ["check", "--backend", "kubeflow", "--template", str(tiny_template), "--host", kubeflow.url]
    kubeflow.version = "2.4.1"
    verdict, found, _ = lines(command(*words).stdout)["version"]
    assert (verdict, found) == ("OK", "Kubeflow Pipelines 2.4.1; not for --retries (from 2.5), --notify (from 2.14)")
    kubeflow.version = "1.8.22"
    assert lines(command(*words).stdout)["version"][0] == "FAIL"
