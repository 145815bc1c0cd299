"""Calls of the docker command."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tf_image_classification.errors import FlagError, UserError


def call(*arguments: str, context: bytes | None = None) -> None:
    """Runs a docker command whose progress goes to stderr: stdout has the names of the images alone.

    Args:
        context: its standard input.

    Raises:
        FlagError: Docker is not installed.
        UserError: the command fails.
    """
    completed = subprocess.run([_program(), *arguments], input=context, stdout=sys.stderr, check=False)
    if completed.returncode:
        raise UserError(
            f"`docker {arguments[0]}` failed",
            received=f"exit code {completed.returncode}",
            hint="Docker's own message is above.",
        )


def output(*arguments: str) -> str | None:
    """What a docker command prints; None if it fails.

    Raises:
        FlagError: Docker is not installed.
    """
    completed = subprocess.run([_program(), *arguments], capture_output=True, text=True, check=False)
    return None if completed.returncode else completed.stdout.strip()


def _program() -> str:
    program = shutil.which("docker")
    if not program:
        raise FlagError("Docker is not installed", hint="images/cloudbuild.yaml builds the images without it.")
    return program
