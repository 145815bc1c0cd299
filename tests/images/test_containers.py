"""The images in Docker: what they contain, and that the pipeline gives the same results in containers as outside."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from images import base as base_image
from images import build as image_build
from images import catalog
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

# What a strict cluster allows a container: no writing but to /tmp, no user that the image knows, no network.
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--user", "12345", "--cap-drop", "ALL", "--network", "none"]  # noqa: S108
TINY = [
    "--image_size", "16", "--batch_size", "8", "--train_steps", "4", "--learning_rate", "0.1", "--seed", "1",
    "--eval_fraction", "0.25",
]  # fmt: skip


def docker(*words: str) -> str:
    answer = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def pipeline(
    *words: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    command = [sys.executable, "-m", "pipelines", "run", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def size(image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def test_an_image_has_labels_and_does_not_run_as_root(built):
    for name, reference in built.items():
        (facts,) = json.loads(docker("image", "inspect", reference))
        labels = facts["Config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == name
        assert labels["org.opencontainers.image.version"]
        assert facts["Config"]["User"] not in ("", "0", "root")
        assert "PYTHONDONTWRITEBYTECODE" not in " ".join(facts["Config"]["Env"])


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("build_tfrecords", "tf_image_classification.build_tfrecords"),
        ("train", "tf_image_classification.train_estimator"),
        ("evaluate", "tf_image_classification.evaluate"),
    ],
)
def test_its_command_answers_in_a_container_that_may_do_nothing(built, name, module):
    assert "--help" in docker("run", "--rm", *HARDENED, built[name], "python", "-m", module, "--help")


def test_the_steps_work_in_containers_that_may_write_to_their_outputs_only(built, image_folder, tmp_path):
    """The calling user is nobody that the image knows, and not the owner of the photos."""
    shutil.copytree(image_folder, tmp_path / "photos")
    (tmp_path / "photos").chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    mounts = ["--volume", f"{tmp_path / 'photos'}:/photos:ro", "--volume", f"{tmp_path / 'out'}:/out"]
    step = ["run", "--rm", *HARDENED, *mounts]
    module = "tf_image_classification"
    training = ["--image_size", "16", "--batch_size", "8", "--train_steps", "4"]
    docker(
        *step,
        built["build_tfrecords"],
        "python",
        "-m",
        f"{module}.build_tfrecords",
        "--train_metadata",
        "/photos",
        "--output_dir",
        "/out/data",
    )
    data = ["--train_metadata", "/out/data", "--eval_metadata", "/out/data"]
    docker(
        *step,
        built["train"],
        "python",
        "-m",
        f"{module}.train_estimator",
        *data,
        "--model_dir",
        "/out/model",
        *training,
    )
    arguments = ["--model", "/out/model/export", "--eval_metadata", "/out/data", "--output_dir", "/out/evaluation"]
    docker(*step, built["evaluate"], "python", "-m", f"{module}.evaluate", *arguments)
    assert (tmp_path / "out" / "evaluation" / "report.html").stat().st_uid == 12345


def test_the_first_image_is_small(built, base):
    # NumPy, which simplejpeg needs, and the codecs of HEIC are 110 MB of it.
    assert size(built["build_tfrecords"]) - size(base or base_image.pinned()) < 220e6
    code = (
        "import importlib.util as u; print([name for name in ('tensorflow', 'keras', 'matplotlib', 'pip') "
        "if u.find_spec(name)])"
    )
    assert docker("run", "--rm", built["build_tfrecords"], "python", "-c", code).strip() == "[]"


def test_train_and_evaluate_share_everything_but_their_last_layers(built):
    layers = [
        json.loads(docker("image", "inspect", built[name]))[0]["RootFS"]["Layers"] for name in ("train", "evaluate")
    ]
    assert layers[0][:-1] == layers[1][:-1]


@pytest.mark.parametrize("name", ["build_tfrecords", "train", "evaluate"])
def test_every_module_has_byte_code_that_is_never_compared_with_its_source(built, name):
    code = (
        "import importlib.util, pathlib, sys\n"
        "files = [f for f in pathlib.Path('/opt/venv/lib').rglob('*.py')]\n"
        "print(len(files))\n"
        "for f in files:\n"
        "    made = pathlib.Path(importlib.util.cache_from_source(str(f)))\n"
        "    if not made.exists() or made.read_bytes()[4:8] != b'\\x01\\0\\0\\0': print(f)\n"
    )
    count, *without = docker("run", "--rm", built[name], "python", "-c", code).splitlines()
    assert int(count) > 500
    assert without == []


def test_an_image_is_for_amd64_and_its_user_is_not_root(built):
    for reference in built.values():
        inspected = docker("image", "inspect", "--format", "{{.Os}}/{{.Architecture}} {{.Config.User}}", reference)
        assert inspected.split() == [image_build.PLATFORM, "65532:65532"]


def test_two_builds_contain_the_same_files(built, base):
    image = catalog.IMAGES["build_tfrecords"]
    again = "tf-image-classification/build_tfrecords:built-again"
    answer = subprocess.run(
        ["docker", "build", "--no-cache", "--tag", again, "-"],
        input=image.context(image_build.choose(base)),
        capture_output=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr.decode()
    try:
        assert files_of(again) == files_of(built["build_tfrecords"])
    finally:
        docker("image", "rm", again)


def files_of(image: str) -> dict[str, tuple]:
    """Path -> what it is, of everything that the image adds to the base."""
    container = docker("create", image).strip()
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        docker("rm", container)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        for member in tar:
            if member.name.startswith("opt/venv/") and not member.isdir():
                content = tar.extractfile(member) if member.isfile() else None
                digest = hashlib.sha256(content.read()).hexdigest() if content else member.linkname
                found[member.name] = (digest, member.mtime, member.mode, member.uid, member.gid)
    assert len(found) > 1000
    return found


@pytest.fixture(scope="module")
def in_containers(built, in_docker, image_folder, tmp_path_factory) -> tuple[Path, str]:
    runs = tmp_path_factory.mktemp("runs")
    answer = pipeline(*in_docker, "--runs_dir", str(runs), "--train_metadata", str(image_folder), *TINY)
    assert answer.returncode == 0, answer.stdout
    return runs, answer.stdout


def test_the_pipeline_predicts_in_containers_what_it_predicts_in_processes(in_containers, image_folder, tmp_path):
    runs, _ = in_containers
    assert images_of(runs) == {
        "resolve": "vertex",
        "build-tfrecords": "build_tfrecords",
        "train": "train",
        "evaluate": "evaluate",
        "gate": "vertex",
    }
    answer = pipeline("--runs_dir", str(tmp_path), "--train_metadata", str(image_folder), *TINY)
    assert answer.returncode == 0, answer.stdout
    contained, plain = (
        (folder / "latest" / "evaluation" / "predictions.csv").read_bytes() for folder in (runs, tmp_path)
    )
    assert contained == plain
    assert len(contained.splitlines()) > 10


def images_of(runs: Path) -> dict[str, str]:
    """The image in which the latest run ran each step, by the steps' logs."""
    logs = {path.stem: path.read_text() for path in (runs / "latest" / "logs").iterdir()}
    first_line = re.compile("Running image tf-image-classification/([a-z_]+):")
    return {step: match[1] for step, log in logs.items() if (match := first_line.match(log))}


def test_the_screen_of_a_run_in_containers_shows_the_steps_and_no_output_of_libraries(in_containers):
    _, output = in_containers
    assert len(output.splitlines()) <= 40, output
    assert len(re.findall(r"^[a-z-]+ +done in [\d.]+ s$", output, re.MULTILINE)) == 5
    assert not re.search(r"executor_input|PipInstallManager|[{}]|\x1b", output), output


def test_everything_that_containers_leave_is_the_callers(in_containers):
    runs, _ = in_containers
    assert {path.lstat().st_uid for path in runs.rglob("*")} == {os.getuid()}


def test_a_second_run_in_containers_does_only_the_cheap_steps_and_promotes_the_model(
    in_containers, in_docker, image_folder, tmp_path
):
    runs, _ = in_containers
    words = ["--train_metadata", str(image_folder), *TINY, "--champion", str(tmp_path / "service")]
    answer = pipeline(*in_docker, "--runs_dir", str(runs), *words)
    assert answer.returncode == 0, answer.stdout
    assert images_of(runs) == dict.fromkeys(("resolve", "gate", "register"), "vertex")
    pointer = json.loads((tmp_path / "service" / "champion.json").read_text())
    assert (tmp_path / "service" / pointer["model"] / "saved_model" / "saved_model.pb").is_file()
    assert {path.lstat().st_uid for path in tmp_path.rglob("*")} == {os.getuid()}


def test_paths_mean_in_a_container_what_they_mean_outside(built, in_docker, image_folder, tmp_path):
    """A relative CSV that names its images by absolute paths, links among them, and class names from a file
    elsewhere."""
    (tmp_path / "links").mkdir()
    rows = []
    for path in sorted(image_folder.glob("*/*")):
        link = tmp_path / "links" / f"{path.parent.name}-{path.name}"
        link.symlink_to(path)
        rows.append((str(link if path.stem < "15" else path), path.parent.name))
    (tmp_path / "here").mkdir()
    with (tmp_path / "here" / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (tmp_path / "labels.txt").write_text("dark\nbright\n")
    root = os.path.commonpath([tmp_path, image_folder])
    words = ["--runs_dir", "runs", "--train_metadata", "here/photos.csv", "--labels_file", "labels.txt", *TINY]
    words += ["--image_root", os.path.relpath(root, tmp_path)]
    answer = pipeline(*in_docker, *words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout
    manifest = json.loads((tmp_path / "runs" / "latest" / "data" / "manifest.json").read_text())
    assert sum(split["examples"] for split in manifest["splits"].values()) == len(rows)
    assert (tmp_path / "runs" / "latest" / "data" / "labels.txt").read_text().split() == ["dark", "bright"]


def start_until_training(words: list[str]) -> tuple[subprocess.Popen[str], list[str]]:
    """A run whose training container has just started, and what it has printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Checkpoints: " in line:
            break
    return process, lines


def containers_of(runs: Path) -> list[str]:
    return docker("ps", "--quiet", "--filter", f"label=tf-image-classification.runs={runs}").split()


def test_a_container_that_vanishes_has_not_done_its_step(built, in_docker, image_folder, tmp_path):
    words = [*in_docker, "--runs_dir", str(tmp_path / "runs"), "--train_metadata", str(image_folder), *TINY]
    process, lines = start_until_training(words)
    docker("rm", "--force", *containers_of(tmp_path / "runs"))
    rest, _ = process.communicate()
    assert process.returncode == 1, "".join(lines) + rest
    answer = pipeline(*words)
    assert answer.returncode == 0, answer.stdout
    assert images_of(tmp_path / "runs")["train"] == "train"


def test_what_a_killed_run_left_in_docker_does_not_write_beside_the_next_run(built, in_docker, image_folder, tmp_path):
    words = [*in_docker, "--runs_dir", str(tmp_path / "runs"), "--train_metadata", str(image_folder), *TINY]
    process, _ = start_until_training([*words, "--train_steps", "100000"])
    process.kill()
    process.communicate()
    assert len(containers_of(tmp_path / "runs")) == 1
    answer = pipeline(*words)
    assert answer.returncode == 0, answer.stdout
    assert containers_of(tmp_path / "runs") == []


def test_an_image_that_was_not_built_is_an_error_before_anything_starts(docker_answers):
    from pipelines.local import docker_runner as docker_run
    from tf_image_classification.errors import FlagError

    with pytest.raises(FlagError, match="make images"):
        docker_run.check(["tf-image-classification/train:never-built"])


def test_without_docker_there_is_a_clear_error_and_nothing_starts(image_folder, tmp_path):
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    answer = pipeline(
        "--runner",
        "docker",
        "--runs_dir",
        str(tmp_path / "runs"),
        "--train_metadata",
        str(image_folder),
        *TINY,
        env=nowhere,
    )
    assert answer.returncode == 2
    assert "Docker does not answer" in answer.stdout
    assert "make images" in " ".join(answer.stdout.split())
    assert not (tmp_path / "runs").exists()


def test_an_estimator_is_installed_in_a_container_from_packages(built, in_docker, image_folder, tmp_path):
    words = [
        *in_docker,
        "--runs_dir",
        str(tmp_path / "runs"),
        "--train_metadata",
        str(image_folder),
        "--estimator",
        "mine:Mine",
    ]
    answer = pipeline(*words)
    assert answer.returncode == 2
    assert "--packages" in answer.stdout
