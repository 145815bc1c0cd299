"""Images that are pushed: with an SBOM and SLSA provenance, which the registry keeps beside each (BuildKit attests)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from images import docker_cli
from tf_image_classification.errors import FlagError

# The builder and the SBOM scanner see everything that goes into an image; `make pin` renews their digests too.
BUILDKIT = "moby/buildkit:buildx-stable-1@sha256:cec9f139f45e93c5c69c60f8b07cfad9f43f4ef6b6a6cd917527fea5ff2e3dea"
SBOM_SCANNER = (
    "docker/buildkit-syft-scanner:stable-1@sha256:ae4f3b554449e7e25548e7d8ccc029d17357348e30c6e3df01b92bc93654d6a9"
)


def builder() -> list[str]:
    """The options that select a builder which can attest. Creates it, with the pinned BuildKit, if it does not exist.

    Docker's own builder cannot attest. The variable BUILDX_BUILDER, Docker's, names another builder.

    Raises:
        FlagError: Docker or buildx is not installed.
        UserError: the builder cannot be created.
    """
    if docker_cli.output("buildx", "version") is None:
        raise FlagError(
            "docker buildx is not installed",
            expected="Docker with the buildx plugin, which attests what is pushed",
            hint="Install it (Debian: docker-buildx, Docker's packages: docker-buildx-plugin); images/cloudbuild.yaml "
            "builds and pushes without it.",
        )
    if os.environ.get("BUILDX_BUILDER"):
        return []
    name = f"tf-image-classification-{BUILDKIT[-12:]}"
    if docker_cli.output("buildx", "inspect", name) is None:
        container = ["--driver", "docker-container", "--driver-opt", f"image={BUILDKIT}"]
        docker_cli.call("buildx", "create", "--name", name, *container)
    return ["--builder", name]


def push(reference: str, options: Sequence[str], context: bytes) -> str:
    """Builds an image and pushes it with its attestations.

    Args:
        options: of `docker buildx build`, the builder among them.
        context: the build context.

    Returns:
        `<reference>@sha256:<digest>`: what a signature is for.

    Raises:
        UserError: the image cannot be built or pushed.
    """
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder, "metadata.json")
        attestations = ["--provenance=mode=max", f"--sbom=generator={SBOM_SCANNER}"]
        words = [*options, "--push", *attestations, "--metadata-file", str(metadata), "--tag", reference, "-"]
        docker_cli.call("buildx", "build", *words, context=context)
        return f"{reference}@{json.loads(metadata.read_text())['containerimage.digest']}"
