"""The pipeline on this machine, called as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TINY = [
    *("--image_size", "16", "--batch_size", "8", "--train_steps", "4", "--learning_rate", "0.1"),
    *("--seed", "1", "--eval_fraction", "0.25"),
]


def command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", "run", "--runs_dir", str(runs), *arguments]


def run(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(runs, *arguments),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory, image_folder):
    """A folder of runs with one run on tiny images, and what that printed."""
    runs = tmp_path_factory.mktemp("runs")
    answer = run(runs, "--train_metadata", str(image_folder), *TINY)
    assert answer.returncode == 0, answer.stdout
    return runs, answer.stdout
