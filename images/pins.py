"""The digests of the images that others publish: where they are written, and how they are renewed."""

from __future__ import annotations

import re
from pathlib import Path

from images import docker_cli
from tf_image_classification.errors import UserError

FILES = tuple(Path(__file__).with_name(name) for name in ("Dockerfile", "attested.py", "cloudbuild.yaml"))
_PIN = re.compile(r"([\w./-]+:[\w.-]+)@(sha256:[0-9a-f]{64})")


def renew() -> list[str]:
    """Writes the digest that each pinned tag has in its registry now to the files.

    Returns:
        `<name>:<tag>@<digest>` of the pins that changed.

    Raises:
        UserError: no registry answers, or buildx is not installed.
    """
    texts = {path: path.read_text() for path in FILES}
    pins = dict(pin for text in texts.values() for pin in _PIN.findall(text))
    renewed = {
        tag: digest for tag in pins if (digest := _digest(tag)) != pins[tag]
    }  # all of them before one is written
    for path, text in texts.items():
        for tag, digest in renewed.items():
            text = text.replace(f"{tag}@{pins[tag]}", f"{tag}@{digest}")
        path.write_text(text)
    return [f"{tag}@{digest}" for tag, digest in renewed.items()]


def _digest(tag: str) -> str:
    """The digest of a tag's manifest, or of its index where it has one for several platforms."""
    digest = docker_cli.output("buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", tag)
    if not digest:
        raise UserError(
            "Cannot look up the digest of an image",
            received=tag,
            expected="Docker with buildx, and a registry that answers",
            hint=f"`docker buildx imagetools inspect {tag}` says why.",
        )
    return digest
