from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from images import catalog
from tests.conftest import REPOSITORY


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
def built(docker_answers) -> dict[str, str]:
    """The images for machines without a GPU, built from this checkout: name -> reference."""
    answer = subprocess.run(
        [sys.executable, "-m", "images", "build"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    names = [name for name in catalog.IMAGES if not name.endswith(catalog.GPU)]
    return dict(zip(names, answer.stdout.splitlines()[-len(names) :], strict=True))
