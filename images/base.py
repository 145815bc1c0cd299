"""The base image: the Dockerfile's, which is pinned by its digest, or another one that the user names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from images import docker_cli
from tf_image_classification.errors import FlagError, UserError

DOCKERFILE = Path(__file__).with_name("Dockerfile")
_ARGUMENT = re.compile(r"^ARG BASE=(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Base:
    """What the Dockerfile builds on.

    Attributes:
        reference: of the image.
        image_id: which image a reference without a digest names in this machine's Docker; '' with a digest.
    """

    reference: str
    image_id: str = ""

    def dockerfile(self) -> bytes:
        """The Dockerfile with this base. Tags are hashes of it, so they change with the base."""
        which = f"# {self.image_id}\n" if self.image_id else ""
        return _ARGUMENT.sub(f"{which}ARG BASE={self.reference}", DOCKERFILE.read_text()).encode()


def pinned() -> str:
    """The reference of the Dockerfile's own base image, with its digest."""
    (reference,) = _ARGUMENT.findall(DOCKERFILE.read_text())
    return str(reference)


def choose(reference: str) -> Base:
    """The base for a reference, '' for the Dockerfile's own. One without a digest must be in this machine's Docker.

    Raises:
        FlagError: it has no digest, and Docker does not have it.
    """
    reference = reference or pinned()
    if has_digest(reference):
        return Base(reference)
    image_id = docker_cli.output("image", "inspect", "--format", "{{.Id}}", reference)
    if not image_id:
        raise FlagError(
            "Base image not found in Docker",
            received=reference,
            expected="an image of this machine, or NAME@sha256:DIGEST",
            hint="Without a digest the tags of the images hold the ID of the base image on this machine.",
        )
    return Base(reference, image_id)


def obtain(reference: str, platform: str) -> None:
    """Pulls the base image for a reference, '' for the Dockerfile's own, unless Docker has it for the platform.

    Raises:
        UserError: it cannot be pulled; nothing else is built on in its place.
    """
    reference = reference or pinned()
    found = docker_cli.output("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", reference)
    if not found or not platform.startswith(found):  # Docker keeps one platform of an image
        try:
            docker_cli.call("pull", "--platform", platform, reference)
        except UserError as error:
            raise UserError(
                "The base image cannot be pulled",
                received=f"{reference} for {platform}",
                expected="a registry that serves this very image",
                hint="`--base python:3.11-slim` (`make images BASE=..`) builds on an image of this machine or of a "
                "mirror instead. The tags are others then: give compile and run the same with --image_base.",
            ) from error


def has_digest(reference: str) -> bool:
    """Whether a reference names one image for ever."""
    return "@sha256:" in reference
