"""What the images are built on is named by digests, and what is pushed says how it was made and what it holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from images import attested, catalog, pins
from images import base as base_image
from images import build as image_build
from pipelines.compile import image_references
from tests.conftest import REPOSITORY
from tf_image_classification.errors import FlagError

DIGEST = "sha256:" + "1" * 64
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")

# What the docker command says to what is asked of it; it notes each call.
DOCKER = f"""#!/bin/sh
echo docker "$@" >>$CALLED
case "$*" in
  "image inspect --format {{{{.Id}}}} local"*) cat $LOCAL_ID;;
  "image inspect"*|pull*) exit 1;;
  "buildx inspect"*) exit $BUILDER_MISSING;;
  "buildx imagetools inspect"*) echo {DIGEST};;
  "buildx build"*)
    cat >/dev/null
    echo progress
    while [ "$1" != --metadata-file ]; do shift; done
    printf '{{"containerimage.digest": "{DIGEST}"}}' >"$2";;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch) -> Path:
    """A stand-in for the docker command; returns the file of its calls."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "local-id").write_text(DIGEST)
    (tmp_path / "called").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    monkeypatch.setenv("LOCAL_ID", str(tmp_path / "local-id"))
    monkeypatch.setenv("BUILDER_MISSING", "1")
    monkeypatch.delenv("BUILDX_BUILDER", raising=False)
    return tmp_path / "called"


def images(*words: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "images", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_everything_that_images_are_built_on_and_with_is_named_by_its_digest():
    dockerfile = (REPOSITORY / "images" / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    (default,) = re.findall(r"^ARG BASE(.*)$", dockerfile, re.MULTILINE)
    assert PINNED.fullmatch(default.removeprefix("="))
    steps = yaml.safe_load((REPOSITORY / "images" / "cloudbuild.yaml").read_text())["steps"]
    for reference in [attested.BUILDKIT, attested.SBOM_SCANNER, *(step["name"] for step in steps)]:
        assert PINNED.fullmatch(reference), reference
    assert steps[-1]["name"] == base_image.pinned()


def test_nothing_else_is_downloaded_into_an_image_or_its_builder():
    for name in ("Dockerfile", "cloudbuild.yaml"):
        text = (REPOSITORY / "images" / name).read_text()
        assert not re.search(r"\b(apk|apt-get|curl|wget)\b", text), name


def test_another_base_image_makes_other_tags_for_build_and_compile_alike():
    other = f"mirror.test/python:3.11-slim@{DIGEST}"
    answer = images("tags", "--base", other, "--registry", "registry.test/team")
    assert set(image_references("registry.test/team", base=other).values()) == set(answer.stdout.split())
    assert set(image_references("registry.test/team").values()).isdisjoint(answer.stdout.split())


def test_the_tags_on_a_local_base_image_change_when_it_does(docker):
    before = image_references(base="local:1")
    (docker.parent / "local-id").write_text("sha256:" + "2" * 64)
    assert set(image_references(base="local:1").values()).isdisjoint(before.values())


def test_a_base_image_without_a_digest_that_docker_does_not_have_is_refused(docker):
    with pytest.raises(FlagError, match="Base image not found in Docker"):
        image_references(base="elsewhere:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--image_base", "local:1"], "--image_base needs --runner docker"),
        (
            ["compile", "--output", "p.yaml", "--image_tag", "v1", "--image_base", "local:1"],
            "--image_base cannot be given with --image_tag",
        ),
    ],
)
def test_a_base_image_that_makes_no_difference_is_refused(words, message):
    command = [sys.executable, "-m", "pipelines", *words]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert message in " ".join(answer.stderr.split())


def test_a_base_image_that_cannot_be_pulled_fails_the_build_and_nothing_takes_its_place(docker):
    answer = images("build")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "The base image cannot be pulled" in answer.stderr
    assert base_image.pinned() in answer.stderr
    assert "--base python:3.11-slim" in " ".join(answer.stderr.split())
    assert "docker build" not in docker.read_text()


def test_pushed_images_have_an_sbom_and_provenance_and_are_named_by_digest(docker):
    answer = images("build", "--push", "--registry", "registry.test/team")
    assert answer.returncode == 0, answer.stderr
    default = [catalog.IMAGES[name] for name in catalog.DEFAULT]
    # stdout has nothing else, so that it can be piped into `cosign sign`.
    assert answer.stdout.split() == [f"{image.reference('registry.test/team')}@{DIGEST}" for image in default]
    calls = docker.read_text().splitlines()
    created = [call for call in calls if call.startswith("docker buildx create ")]
    assert len(created) == 1
    assert f"image={attested.BUILDKIT}" in created[0]
    builds = [call for call in calls if call.startswith("docker buildx build ")]
    assert len(builds) == len(default)
    for call in builds:
        words = call.split()
        assert {"--push", "--provenance=mode=max", f"--sbom=generator={attested.SBOM_SCANNER}"} <= set(words)
        assert words[words.index("--builder") + 1] in created[0]
        assert f"org.opencontainers.image.base.name={base_image.pinned()}" in call


def test_the_builder_is_created_once_and_another_one_can_be_named(docker, monkeypatch):
    monkeypatch.setenv("BUILDER_MISSING", "0")
    images("build", "vertex", "--push")
    assert "buildx create" not in docker.read_text()
    docker.write_text("")
    monkeypatch.setenv("BUILDX_BUILDER", "ours")
    images("build", "vertex", "--push")
    assert "--builder" not in docker.read_text()
    assert "--push" in docker.read_text()


def test_one_command_renews_every_digest(docker, tmp_path):
    checkout = tmp_path / "checkout"
    for folder in ("images", "requirements", "tf_image_classification"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, checkout / folder, ignore=ignored)
    answer = images("pin", cwd=checkout)
    assert answer.returncode == 0, answer.stderr
    written = "".join((checkout / "images" / path.name).read_text() for path in pins.FILES)
    assert set(re.findall(r"sha256:[0-9a-f]{64}", written)) == {DIGEST}
    assert f"docker:28-cli@{DIGEST}" in answer.stdout.split()
    beam = (checkout / "images" / "Dockerfile.beam").read_text()
    assert re.search(rf"^COPY --from=apache/beam_python3\.11_sdk:[\d.]+@{DIGEST} /opt/apache/beam ", beam, re.MULTILINE)
    assert images("pin", cwd=checkout).stdout == "All digests are those of their tags.\n"


def test_cloud_build_builds_and_pushes_the_images_that_compile_names(docker):
    fetch, build = yaml.safe_load((REPOSITORY / "images" / "cloudbuild.yaml").read_text())["steps"]
    assert fetch["volumes"] == build["volumes"]
    script = build["args"][-1].strip().splitlines()[-1]  # the lines before it say where the docker command is
    for name, value in {"${_REGISTRY}": "registry.test/team", "${_IMAGES}": "", "$COMMIT_SHA": "0123abc"}.items():
        script = script.replace(name, value)
    (docker.parent / "python3").symlink_to(sys.executable)
    answer = subprocess.run(["sh", "-ec", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    pushed = [line.partition("@")[0] for line in answer.stdout.split()]
    assert set(image_references("registry.test/team").values()) <= set(pushed)
    assert "org.opencontainers.image.revision=0123abc" in docker.read_text()


def test_images_are_built_for_amd64_whatever_machine_builds_them(docker):
    docker.with_name("docker").write_text(DOCKER.replace("pull*) exit 1", "pull*) true"))
    for words in (["build", "vertex", "--base", "local:1"], ["build", "vertex", "--push"]):
        docker.write_text("")
        images(*words)
        (build,) = (call for call in docker.read_text().splitlines() if re.match(r"docker (buildx )?build ", call))
        assert "--platform=linux/amd64" in build.split()


def test_another_platform_is_in_the_tag_and_build_and_compile_name_it_alike(docker):
    answer = images("build", "--push", "--registry", "registry.test/team", "--platform", "linux/arm64")
    pushed = {line.partition("@")[0] for line in answer.stdout.split()}
    assert set(image_references("registry.test/team", platform="linux/arm64").values()) == pushed
    assert pushed == {f"{reference}-arm64" for reference in image_references("registry.test/team").values()}
    builds = [call for call in docker.read_text().splitlines() if call.startswith("docker buildx build")]
    assert all("--platform=linux/arm64" in build for build in builds)


def test_the_user_is_an_argument_of_the_build_and_changes_the_tags_of_build_and_compile_alike():
    answer = images("tags", "--user", "0:0", "--registry", "registry.test/team")
    other = image_references("registry.test/team", user="0:0")
    assert set(other.values()) == set(answer.stdout.split())
    assert set(other.values()).isdisjoint(image_references("registry.test/team").values())
    assert image_references(user=image_build.default_user()) == image_references()
    dockerfile = image_build.choose(user="0:0").dockerfile().decode()
    assert re.findall(r"^(?:ARG USER=|USER ).*$", dockerfile, re.MULTILINE) == ["ARG USER=0:0", "USER ${USER}"]


def test_a_base_image_of_another_platform_is_pulled_again(docker):
    # On a machine with an arm64 processor, Docker has the arm64 variant.
    script = DOCKER.replace('"image inspect"*|pull*) exit 1', '"image inspect"*) echo linux/arm64')
    docker.with_name("docker").write_text(script)
    images("build", "vertex", "--base", "local:1")
    assert "docker pull --platform linux/amd64 local:1" in docker.read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tags", "--user", "root"], "UID:GID"),
        (["tags", "--platform", "arm64"], "linux/PROCESSOR"),
    ],
)
def test_a_user_or_platform_that_docker_would_not_take_is_refused(words, message):
    answer = images(*words)
    assert answer.returncode == 2
    assert message in " ".join(answer.stderr.split())
