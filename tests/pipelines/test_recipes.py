"""The commands of README.md and docs/, as written: against the stand-ins, or on this machine with small data.

A page's bash blocks run one after the other in one shell, in a checkout with a folder of photos that the bucket holds,
too. Only what would take hours is replaced: numbers of steps, networks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

from tests import documents
from tests.conftest import REPOSITORY
from tests.parity.support import V1, V2, save_by_name
from tests.standin import bucket
from tests.standin.google_apis import GoogleApis
from tests.standin.kubeflow import Kubeflow
from tests.standin.registry import Registry
from tests.standin.vertex import Vertex
from tf_image_classification import flags as flag_table

# The first line of a block that is not run -> why not.
NOT_RUN = {
    "docs/finetuning.md": {
        ".venv/bin/python -m benchmarks.finetuning --images photos/ --checkpoint_path mobilenet_v1_1.0_224.ckpt \\": (
            "trains 24 models: tests/benchmarks/test_finetuning.py trains small ones"
        ),
    },
    "docs/checkpoints.md": {
        ".venv/bin/python -m pipelines run --train_metadata photos/ --model_name EfficientNetV2B0 "
        "--image_size 224 \\": "downloads: tests/checkpoints/test_published.py downloads from this machine",
    },
    "docs/distributed.md": {
        ".venv/bin/python -m pipelines submit $VERTEX $RUN --replicas 4 --spot \\": "test_vertex_cluster submits one",
        "gcloud iam service-accounts add-iam-policy-binding $TRAINER \\": "gcloud",
        "kubectl apply --server-side \\": "needs a cluster",
    },
    "docs/images.md": {
        "make images": "needs Docker: tests/images builds the images and runs the pipeline in them",
        "make images REGISTRY=europe-docker.pkg.dev/PROJECT/REPOSITORY PUSH=1": "needs Docker and a registry",
        "gcloud builds submit --config images/cloudbuild.yaml --substitutions "
        "_REGISTRY=europe-docker.pkg.dev/PROJECT/REPOSITORY": "gcloud",
        'docker buildx imagetools inspect IMAGE@sha256:DIGEST --format "{{ json .SBOM }}"': "needs a registry",
        ".venv/bin/python -m images build --push --registry europe-docker.pkg.dev/PROJECT/REPOSITORY "
        "| xargs cosign sign --yes --recursive": "needs a registry and cosign: tests/images tests what it is given",
        "cosign verify --certificate-identity you@example.com --certificate-oidc-issuer "
        "https://accounts.google.com IMAGE@sha256:DIGEST": "needs a registry and cosign",
        "make images BASE=python:3.11-slim": "needs Docker: tests/images does it where no registry answers",
        "make images PLATFORM=linux/arm64": "needs Docker, and an arm64 processor or emulation",
    },
    "docs/kubeflow.md": {
        "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80": "needs a cluster",
        "gcloud iam service-accounts add-iam-policy-binding trainer@my-project.iam.gserviceaccount.com "
        "--role roles/iam.workloadIdentityUser \\": "gcloud, and a cluster",
        "kubectl create secret generic trainer-key --namespace kubeflow --from-file=key.json": "needs a cluster",
        ".venv/bin/python -m tf_image_classification.vertex.promote --champion gs://my-service-bucket/pets "
        "--model $MODEL --evaluation $EVALUATION": "tests/vertex/test_promote.py runs it",
    },
    "docs/migrating.md": {"# before": "gcloud, and a service that is gone"},
    "docs/vertex.md": {
        "gcloud config set project $PROJECT": "gcloud",
        "gcloud storage buckets create gs://$BUCKET --location $REGION --uniform-bucket-level-access": "gcloud",
        "gcloud artifacts repositories create training --repository-format docker --location $REGION": "gcloud, Docker",
        "gcloud iam service-accounts create trainer": "gcloud",
        "make images REGISTRY=$REGISTRY PUSH=1 RUN_AS=0:0": "Docker",
        "docker pull us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest": (
            "needs Docker: tests/vertex/test_infra_validation.py runs the command"
        ),
        "DEPLOYER=deployer@$PROJECT.iam.gserviceaccount.com": "gcloud",
        ".venv/bin/python -m tf_image_classification.vertex.promote --champion "
        "projects/$PROJECT/locations/$REGION/models/pets \\": "tests/vertex/test_promote.py runs it",
        "gcloud iam service-accounts add-iam-policy-binding $TRAINER --member user:you@example.com "
        "--role roles/iam.serviceAccountUser": "gcloud",
        "gcloud ai endpoints create --region $REGION --display-name pets    # prints the endpoint's id": "gcloud",
        "gcloud pubsub topics create failures": "gcloud",
        "gcloud storage rm --recursive gs://$BUCKET/runs": "gcloud",
        "make demo-schedule": "tests/pipelines/test_demo_schedule.py runs it",
    },
}
# Pages that a test of their own follows.
FOLLOWED = {"docs/beam.md": "tests/build_tfrecords/test_beam.py", "docs/extending.md": "tests/test_extending.py"}
WITH_CHECKS = [
    "README.md",
    "docs/finetuning.md",
    "docs/flags.md",
    "docs/kubeflow.md",
    "docs/migrating.md",
    "docs/serving.md",
    "docs/vertex.md",
]
OTHERS = [
    page
    for page in documents.PAGES
    if page.startswith("docs/") and page not in (*WITH_CHECKS, *FOLLOWED)
    if documents.blocks(documents.read(page), "bash")
]
# Pages whose Python block is a file that their commands name; other Python blocks run as they are.
SCRIPTS = {"README.md": "my_estimator.py", "docs/migrating.md": "myEstimator.py"}
SMALL = "--image_size 16 --batch_size 8 --train_steps 4 --seed 7"


class Workspace:
    """A checkout, and the services that its commands talk to.

    Attributes:
        folder: the checkout, in which the commands run.
        environment: further variables of theirs.
    """

    def __init__(self, folder: Path, storage_url: str, vertex: Vertex, kubeflow: Kubeflow, registry: Registry) -> None:
        self.folder, self.storage_url, self.vertex, self.kubeflow = folder, storage_url, vertex, kubeflow
        self.registry = registry
        self.environment: dict[str, str] = {}

    def follow(self, page: str, replace: Mapping[str, str], *, before: str = "") -> None:
        """Runs a page's blocks.

        Args:
            replace: what the page's commands hold -> what they hold here.
            before: commands that run first.
        """
        text = documents.read(page)
        if page in SCRIPTS:
            (script,) = documents.blocks(text, "python")
            (self.folder / SCRIPTS[page]).write_text(script)
        commands = before + "\n".join(_commands(page, text))
        for old, new in replace.items():
            assert old in commands, f"{page} does not hold what is replaced here: {old}"
            commands = commands.replace(old, new)
        environment = os.environ | {
            **self.environment,
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "PYTHONPATH": str(self.folder),
            "PATH": f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        shell = ["bash", "-c", f"set -ex\n{commands}"]
        done = subprocess.run(shell, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _commands(page: str, text: str) -> Iterator[str]:
    """What a shell runs of a page, block by block."""
    for language, block in documents.blocks_of_any_language(text):
        if language == "bash" and block.splitlines()[0] not in NOT_RUN.get(page, {}):
            yield block
        elif language == "python" and page not in SCRIPTS:
            yield f"cat > snippet.py <<'END'\n{block}END\npython snippet.py"


@pytest.fixture
def workspace(tmp_path, image_folder) -> Iterator[Workspace]:
    folder = documents.copy_of_the_checkout(tmp_path / "checkout")
    shutil.copytree(image_folder, folder / "photos")
    shutil.copy(image_folder / "bright" / "01.jpg", folder / "photo.jpg")
    (folder / "flags.yaml").write_text("image_size: 16\nbatch_size: 8\ntrain_steps: 4\nseed: 7\n")
    with bucket.serving("my-bucket", "bucket") as storage_url, Registry(has_all=True) as registry:
        bucket.fill(storage_url, "my-bucket", "photos", image_folder)
        vertex, kubeflow = Vertex(tmp_path / "vertex", storage_url), Kubeflow(tmp_path / "kubeflow", storage_url)
        vertex.start()
        kubeflow.start()
        try:
            yield Workspace(folder, storage_url, vertex, kubeflow, registry)
        finally:
            vertex.stop()
            kubeflow.stop()


@pytest.fixture
def google(tmp_path) -> Iterator[GoogleApis]:
    with GoogleApis(tmp_path / "key.json") as service:
        yield service


def test_every_block_is_run_or_has_a_reason_why_it_is_not():
    for page, blocks in NOT_RUN.items():
        first_lines = [block.splitlines()[0] for block in documents.blocks(documents.read(page), "bash")]
        assert set(blocks) <= set(first_lines), f"{page} has no block that begins so"
    for page, test in FOLLOWED.items():
        assert (REPOSITORY / page).exists() and (REPOSITORY / test).exists()


def test_the_file_of_flags_holds_flags():
    (content,) = documents.blocks(documents.read("README.md"), "yaml")
    names = [flag.name for flag in flag_table.of_pipeline()]
    flags = flag_table.validate(yaml.safe_load(content), names)
    assert flags.checkpoint_path and flags.train_steps > 1


@pytest.mark.slow
def test_the_readmes_commands_run_as_written(workspace):
    _write_checkpoint("inception_v3", workspace.folder / "inception_v3.ckpt", V1)
    workspace.follow(
        "README.md",
        {
            "--recipe finetune\n": "--recipe finetune --batch_size 2 --train_steps 5 --image_size 80\n",
            "--batch_size 64 --train_steps 10000": SMALL,
            'europe-west4"': f'europe-west4 --api_endpoint {workspace.vertex.url}"',
            "europe-west4-docker.pkg.dev/": f"{workspace.registry.host}/",
        },
    )
    assert (workspace.folder / "build" / "image_classification.yaml").exists()
    facts = json.loads((workspace.folder / "models" / "export" / "model.json").read_text())
    assert facts["metrics"]["global_step"] == 4
    facts = json.loads((workspace.folder / "runs" / "latest" / "model" / "model.json").read_text())
    assert facts["estimator"] == "my_estimator:MyEstimator"
    assert list(workspace.vertex.jobs) == ["first", "second"]
    assert {job.state.name for job in workspace.vertex.jobs.values()} == {"PIPELINE_STATE_SUCCEEDED"}
    (weekly,) = workspace.vertex.schedules.values()
    scheduled = dict(weekly.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values)
    assert scheduled["champion"] == "projects/my-project/locations/europe-west4/models/pets"
    assert weekly.state.name == "ACTIVE"


@pytest.mark.slow
def test_the_commands_for_vertex_run_as_written(workspace, google):
    workspace.environment = google.environment()
    _make_endpoint(workspace.vertex, "1234567890")
    workspace.follow(
        "docs/vertex.md",
        {
            "$REGION-docker.pkg.dev/": f"{workspace.registry.host}/",
            '--location $REGION"': f'--location $REGION --api_endpoint {workspace.vertex.url}"',
            "--image_size 96 --batch_size 32 --train_steps 500": SMALL,
        },
    )
    assert list(workspace.vertex.jobs) == ["first", "second", "third", "fourth"]
    assert {job.state.name for job in workspace.vertex.jobs.values()} == {"PIPELINE_STATE_SUCCEEDED"}
    versions = workspace.vertex.models.versions["pets"].values()
    assert [list(version.version_aliases) for version in versions] == [["default"]]
    (deployed,) = workspace.vertex.endpoints.all["1234567890"].deployed_models
    assert deployed.model.endswith("/models/pets")
    (weekly,) = workspace.vertex.schedules.values()
    scheduled = dict(weekly.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values)
    pets = "projects/my-project/locations/europe-west4/models/pets"
    assert (scheduled["train_steps"], scheduled["champion"], scheduled["checkpoint_path"]) == (1000, pets, "champion")
    assert weekly.state.name == "ACTIVE"


@pytest.mark.slow
def test_the_commands_for_kubeflow_run_as_written(workspace):
    section = documents.section(documents.read("docs/kubeflow.md"), "Credentials, volumes and nodes of the steps")
    (settings,) = documents.blocks(section, "yaml")
    (workspace.folder / "kubernetes.yaml").write_text(settings)
    registry = {"europe-west4-docker.pkg.dev/": f"{workspace.registry.host}/"}
    workspace.follow("docs/kubeflow.md", {"http://127.0.0.1:8080": workspace.kubeflow.url, **registry})
    assert [run["state"] for run in workspace.kubeflow.runs.values()] == ["SUCCEEDED"] * 3
    assert [recurring["display_name"] for recurring in workspace.kubeflow.recurring.values()] == ["nightly"]


@pytest.mark.slow
def test_the_steps_run_by_themselves_as_written(workspace):
    workspace.follow("docs/flags.md", {"--image_size 96 --batch_size 32 --train_steps 1000": SMALL})
    assert json.loads((workspace.folder / "evaluation" / "metrics.json").read_text())["num_examples"] > 0


@pytest.mark.slow
def test_the_model_is_called_evaluated_and_promoted_as_written(workspace):
    workspace.follow(
        "docs/serving.md",
        {"--champion service/digits": f"--champion service/digits --train_metadata photos {SMALL}"},
        before=f".venv/bin/python -m pipelines run --train_metadata photos {SMALL}\n",
    )
    assert (workspace.folder / "evaluation" / "report.html").exists()
    assert (workspace.folder / "service" / "digits" / "champion.json").exists()


@pytest.mark.slow
def test_the_commands_for_fine_tuning_run_as_written(workspace):
    _write_checkpoint("mobilenet_v1", workspace.folder / "mobilenet_v1_1.0_224.ckpt", V2)
    few = "--batch_size 8 --train_steps 4"
    workspace.follow(
        "docs/finetuning.md",
        {
            "--recipe finetune": f"--recipe finetune {few}",
            "--image_size 224": "--image_size 32",
            "--batch_size 32 --train_steps 150": few,
        },
    )
    facts = json.loads((workspace.folder / "runs" / "latest" / "model" / "model.json").read_text())
    assert facts["warm_start"]["not_loaded"] == [
        "MobilenetV1/Logits/Conv2d_1c_1x1/biases",
        "MobilenetV1/Logits/Conv2d_1c_1x1/weights",
    ]


@pytest.mark.slow
def test_the_commands_of_the_migration_page_run_as_written(workspace, mini_mnist):
    records = mini_mnist / "dataset" / "tf_records"
    (workspace.folder / "tfrecords_path").symlink_to(records)
    bucket.fill(workspace.storage_url, "bucket", "tfrecords", records)
    for folder, name in (("checkpoint_path", "pretrained_ckpt"), ("pretrained_checkpoints", "pretrained_model")):
        (workspace.folder / folder).mkdir()
        convolution = {"MiniMNIST/conv1/weights": np.ones((3, 3, 3, 16), np.float32)}
        save_by_name(convolution, workspace.folder / folder / f"{name}.ckpt", V1)
    bucket.fill(workspace.storage_url, "bucket", "pretrained_checkpoints", workspace.folder / "pretrained_checkpoints")
    few = "--train_steps 3 --image_size 28"
    workspace.follow(
        "docs/migrating.md", {"--train_steps 10000": few, "--train_steps 1000": few}, before=_PACKAGE_OF_THE_ESTIMATOR
    )
    assert (workspace.folder / "pipeline.yaml").exists()
    facts = json.loads((workspace.folder / "runs" / "latest" / "model" / "model.json").read_text())
    assert facts["estimator"] == "myEstimatorPkg.myEstimator:MyEstimator"
    assert facts["warm_start"]["checkpoint"] == "gs://bucket/pretrained_checkpoints/pretrained_model.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS)
def test_the_commands_of_other_pages_run_as_written(page, workspace):
    workspace.follow(page, {})


# Makes myEstimator.tar.gz of the page's estimator, under the names that the page's commands give it.
_PACKAGE_OF_THE_ESTIMATOR = """
mkdir -p package/myEstimatorPkg
sed 's/MiniMNIST(EstimatorSpec)/MyEstimator(EstimatorSpec)/; s/run(MiniMNIST)/run(MyEstimator)/' myEstimator.py \\
    > package/myEstimatorPkg/myEstimator.py
touch package/myEstimatorPkg/__init__.py
(cd package && printf '[project]\\nname = "myEstimator"\\nversion = "1"\\n' > pyproject.toml
 python -c 'import setuptools.build_meta as build; build.build_sdist("..")')
mv myestimator-1.tar.gz myEstimator.tar.gz
"""


def _write_checkpoint(network: str, path: Path, version: int) -> None:
    """A checkpoint with slim's variables, of values with which the network computes finite numbers."""
    manifest = REPOSITORY / "tests" / "parity" / "manifests" / f"{network}.json"
    random = np.random.default_rng(0)
    values = {}
    for name, shape, *_ in json.loads(manifest.read_text())["variables"]:
        spread = 0.0 if name.endswith(("beta", "moving_mean", "moving_variance")) else 0.05
        center = 1.0 if name.endswith("moving_variance") else 0.0
        values[name] = random.normal(center, spread, shape).astype(np.float32)
    save_by_name(values, path, version)


def _make_endpoint(vertex: Vertex, name: str) -> None:
    url = f"{vertex.url}/v1/projects/my-project/locations/europe-west4/endpoints?endpointId={name}"
    requests.post(url, json={"displayName": "pets"}, timeout=10).raise_for_status()
    while name not in vertex.endpoints.all:
        time.sleep(0.1)
