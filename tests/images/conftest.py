from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from images import base as base_image
from images import build as image_build
from images import catalog
from tests.conftest import REPOSITORY
from tf_image_classification.errors import UserError


@pytest.fixture(scope="session")
def docker_answers() -> None:
    """Docker answers. Where it does not, tests are skipped; in CI that is a failure."""
    if not shutil.which("docker"):
        reason = "Docker is not installed"
    elif subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        reason = "no Docker daemon answers"
    else:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI the images must be tested")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def base(docker_answers) -> str:
    """'' for the pinned base image; a local one where no registry serves it."""
    try:
        base_image.obtain("", image_build.PLATFORM)
    except UserError:
        base_image.choose("python:3.11-slim")
        return "python:3.11-slim"
    return ""


@pytest.fixture(scope="session")
def in_docker(base) -> list[str]:
    """The options of `pipelines run` that run the steps in the images that were built."""
    return ["--runner", "docker", *(["--image_base", base] if base else [])]


@pytest.fixture(scope="session")
def built(base) -> dict[str, str]:
    """The images for machines without a GPU, built from this checkout: name -> reference."""
    answer = subprocess.run(
        [sys.executable, "-m", "images", "build", *(["--base", base] if base else [])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(zip(catalog.DEFAULT, answer.stdout.splitlines(), strict=True))
