"""`python -m images`: builds the container images of the pipeline, or prints their names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from images import catalog
from images.catalog import Image
from tf_image_classification import __version__, command_line
from tf_image_classification.errors import FlagError, UserError


def _main(argv: Sequence[str] | None) -> int:
    parser = command_line.Parser(
        "python -m images",
        "Builds the pipeline's container images with Docker. Each is named REGISTRY/IMAGE:TAG.",
        "The GPU images, which `python -m pipelines compile --accelerator` selects, are several GB large\n"
        "and built only when they are named.",
    )
    parser.add_argument("command", choices=("build", "tags"), help="build the images, or only print their names")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help=f"one of {', '.join(catalog.IMAGES)} (default: all but the GPU images)",
    )
    parser.add_argument("--registry", default=catalog.REGISTRY, help="prefix of the names (default: %(default)s)")
    parser.add_argument(
        "--tag", default="", help="tag of all images (default: for each a hash of everything that it is built from)"
    )
    parser.add_argument(
        "--base", default=catalog.BASE_IMAGE, help="base image (default: %(default)s; another one needs a --tag)"
    )
    parser.add_argument(
        "--revision",
        default="",
        help="commit for the revision label (default: the last one that changed an input of the image)",
    )
    parser.add_argument(
        "--source", default="", metavar="URL", help="address of the code for the source label (default: git's origin)"
    )
    parser.add_argument("--push", action="store_true", help="push the images after building")
    given = parser.parse_args(argv)
    catalog.check_tag("tag", given.tag)
    if given.base != catalog.BASE_IMAGE and not given.tag:
        raise FlagError(
            "--base needs a --tag",
            received=given.base,
            hint=f"The default tags identify images on {catalog.BASE_IMAGE}.",
        )
    for name in given.images:
        if name not in catalog.IMAGES:
            raise FlagError("Unknown image", received=name, expected=", ".join(catalog.IMAGES))
    names = given.images or [name for name in catalog.IMAGES if not name.endswith(catalog.GPU)]
    references = {name: catalog.IMAGES[name].reference(given.registry, given.tag) for name in names}
    if given.command == "build":
        for name, reference in references.items():
            image = catalog.IMAGES[name]
            _build(image, reference, given.base, _labels(image, given.revision, given.source))
        for reference in references.values() if given.push else ():
            _docker("push", reference)
    print(*references.values(), sep="\n")
    return 0


def _build(image: Image, reference: str, base: str, labels: dict[str, str]) -> None:
    options = [f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()]
    _docker("build", "--tag", reference, "--build-arg", f"BASE={base}", *options, "-", context=image.context())


def _labels(image: Image, revision: str, source: str) -> dict[str, str]:
    """OCI image labels, without the prefix org.opencontainers.image; they invalidate no cached layer."""
    if not source:
        origin = _git("remote", "get-url", "origin")
        source = re.sub(r"//[^/@]*@", "//", origin)  # without user and password
    if os.path.isabs(source):  # the clone of a local folder has no address for others
        source = ""
    labels = {
        "title": image.name,
        "version": __version__,
        "revision": revision or _revision(image),
        "source": source,
        "licenses": "MIT",
    }
    return {name: value for name, value in labels.items() if value}


def _revision(image: Image) -> str:
    """The last commit that changed an input of the image: a later one would make another image with the same tag."""
    paths = [str(path) for path in image.inputs().values()]
    commit = _git("log", "-1", "--format=%H", "--", *paths)
    return f"{commit}-dirty" if commit and _git("status", "--porcelain", "--", *paths) else commit


def _git(*arguments: str) -> str:
    """The output of a git command; '' outside of a clone, or without git."""
    if not shutil.which("git"):
        return ""
    return subprocess.run(
        ["git", "-C", str(catalog.ROOT), *arguments], capture_output=True, text=True, check=False
    ).stdout.strip()


def _docker(*arguments: str, context: bytes | None = None) -> None:
    if not shutil.which("docker"):
        raise FlagError("Docker is not installed", hint="images/cloudbuild.yaml builds the images without it.")
    completed = subprocess.run(["docker", *arguments], input=context, check=False)
    if completed.returncode:
        raise UserError(
            f"`docker {arguments[0]}` failed",
            received=f"exit code {completed.returncode}",
            hint="Docker's own message is above.",
        )


if __name__ == "__main__":
    command_line.main(_main)
