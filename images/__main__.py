"""`python -m images`: builds the container images of the pipeline, or prints their names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from images import attested, catalog, docker_cli, pins
from images import base as base_image
from images import build as image_build
from images.build import Build
from images.catalog import Image
from tf_image_classification import __version__, command_line
from tf_image_classification.errors import FlagError


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    given, strays = parser.parse_known_intermixed_args(argv)  # names may follow options, as those of `docker build`
    parser.reject(strays)
    catalog.check_tag("tag", given.tag)
    for name in given.images:
        if name not in catalog.IMAGES:
            raise FlagError("Unknown image", received=name, expected=", ".join(catalog.IMAGES))
    if given.command == "pin":
        if given.images:
            raise FlagError("pin takes no IMAGE", received=" ".join(given.images), hint="It renews all digests.")
        print(*pins.renew() or ["All digests are those of their tags."], sep="\n")
        return 0
    names = given.images or catalog.DEFAULT
    if given.command == "build" and given.push:
        _check_pushable(given.base)
        builder = attested.builder()
    elif given.command == "build":
        base_image.obtain(given.base, given.platform)
    build = image_build.choose(given.base, given.user, given.platform)
    for name in names:
        image = catalog.IMAGES[name]
        reference = image.reference(given.registry, given.tag, build)
        if given.command == "build":
            labels = _labels(image, build, given.revision, given.source)
            options = [f"--platform={build.platform}"]
            options += [f"--label=org.opencontainers.image.{key}={value}" for key, value in labels.items()]
            if given.push:
                reference = attested.push(reference, [*builder, *options], image.context(build))
            else:
                docker_cli.call("build", "--tag", reference, *options, "-", context=image.context(build))
        print(reference, flush=True)
    return 0


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "python -m images",
        "Builds the pipeline's container images with Docker. Each is named REGISTRY/IMAGE:TAG.",
        "The GPU images, which `python -m pipelines compile --accelerator` selects, are several GB large\n"
        "and built only when they are named; so is beam, which --build_runner dataflow selects.",
    )
    parser.add_argument(
        "command",
        choices=("build", "tags", "pin"),
        help="build the images, only print their names, or renew the digests of the images that they are built on",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help=f"one of {', '.join(catalog.IMAGES)} (default: {', '.join(catalog.DEFAULT)})",
    )
    parser.add_argument("--registry", default=catalog.REGISTRY, help="prefix of the names (default: %(default)s)")
    parser.add_argument(
        "--tag", default="", help="tag of all images (default: for each a hash of everything that it is built from)"
    )
    parser.add_argument(
        "--base",
        default="",
        help="base image; the default tags change with it (default: the one in images/Dockerfile)",
    )
    parser.add_argument(
        "--platform",
        default=image_build.PLATFORM,
        help="what the images run on, whatever machine builds them; the default tags of others name it (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--user",
        default="",
        metavar="UID:GID",
        help=f"user of the containers; the default tags change with it (default: {image_build.default_user()})",
    )
    parser.add_argument(
        "--revision",
        default="",
        help="commit for the revision label (default: the last one that changed an input of the image)",
    )
    parser.add_argument(
        "--source", default="", metavar="URL", help="address of the code for the source label (default: git's origin)"
    )
    parser.add_argument(
        "--push",
        action="store_true",
        help="push the images, with an SBOM and provenance, and print their digests, which `cosign sign` takes",
    )
    return parser


def _check_pushable(base: str) -> None:
    if base and not base_image.has_digest(base):
        raise FlagError(
            "--push needs a base image by its digest",
            received=base,
            expected="NAME@sha256:DIGEST",
            hint="What others run must say what it is built on; the images of this machine are not known to them.",
        )


def _labels(image: Image, build: Build, revision: str, source: str) -> dict[str, str]:
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
        "base.name": build.base.reference,
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


if __name__ == "__main__":
    command_line.main(_main)
