"""The digests of the images that others publish: where they are written, and how they are renewed."""

from __future__ import annotations

import re
from pathlib import Path

from images import docker_cli
from tf_image_classification.errors import UserError

FILES = tuple(
    Path(__file__).with_name(name) for name in ("Dockerfile", "Dockerfile.beam", "attested.py", "cloudbuild.yaml")
)
_NAME, _DIGEST = r"([\w./-]+:[\w.-]+)", r"(sha256:[0-9a-f]{64})"
_PIN = re.compile(f"{_NAME}@{_DIGEST}")
_UNPINNED = re.compile(f"--from={_NAME} ")  # of an image that no registry was reached for yet


def renew() -> list[str]:
    """Writes the digest that each tag has in its registry now to the files, also where a Dockerfile has none yet.

    Returns:
        `<name>:<tag>@<digest>` of the pins that changed or are new.

    Raises:
        UserError: no registry answers, or buildx is not installed.
    """
    texts = {path: path.read_text() for path in FILES}
    pins = dict.fromkeys((tag for text in texts.values() for tag in _UNPINNED.findall(text)), "")
    pins |= dict(pin for text in texts.values() for pin in _PIN.findall(text))
    renewed = {
        tag: digest for tag in pins if (digest := _digest(tag)) != pins[tag]
    }  # all of them before one is written
    for path, text in texts.items():
        for tag, digest in renewed.items():
            text = text.replace(f"{tag}@{pins[tag]}", f"{tag}@{digest}")
            text = text.replace(f"--from={tag} ", f"--from={tag}@{digest} ")
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
