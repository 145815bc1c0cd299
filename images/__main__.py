"""python -m images: build the images that the pipeline runs in, or say what they are called."""

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
        "Builds the pipeline's container images with Docker. Each is REGISTRY/IMAGE:TAG.",
        "train-gpu and evaluate-gpu are several GB large: what `compile --accelerator` selects is "
        "built only when it is named.",
    )
    parser.add_argument("command", choices=("build", "tags"), help="build them, or only print what they are called")
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help=f"of {', '.join(catalog.IMAGES)} (default: those without a GPU)"
    )
    parser.add_argument("--registry", default=catalog.REGISTRY, help="(default: %(default)s)")
    parser.add_argument(
        "--tag", default="", help="one tag for all (default: for each image a hash of what it is made from)"
    )
    parser.add_argument(
        "--base", default=catalog.BASE, help="image to build on (default: %(default)s; another one needs a --tag)"
    )
    parser.add_argument(
        "--revision",
        default="",
        help="commit to write on the images (default: the last that changed what they are made from)",
    )
    parser.add_argument(
        "--source", default="", metavar="URL", help="address of the code to write on the images (default: git's origin)"
    )
    parser.add_argument("--push", action="store_true", help="push what was built")
    given = parser.parse_args(argv)
    catalog.check_tag("tag", given.tag)
    if given.base != catalog.BASE and not given.tag:
        raise FlagError(
            "--base needs a --tag", received=given.base, hint=f"The default tags stand for images on {catalog.BASE}."
        )
    for name in given.images:
        if name not in catalog.IMAGES:
            raise FlagError("There is no such image", received=name, expected=", ".join(catalog.IMAGES))
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
    written = [
        word for name, value in labels.items() for word in ("--label", f"org.opencontainers.image.{name}={value}")
    ]
    _docker("build", "--tag", reference, "--build-arg", f"BASE={base}", *written, "-", context=image.context())


def _labels(image: Image, revision: str, source: str) -> dict[str, str]:
    """Docker writes them as the last layer, so that they keep nothing from the cache."""
    source = source or re.sub(
        r"//[^/@]*@", "//", _git("remote", "get-url", "origin")
    )  # an address may carry a password
    if os.path.isabs(source):  # a clone of a folder: that is nobody else's address
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
    """The last commit that changed the image; a commit that did not must not make another image of the same tag."""
    paths = [str(path) for path in image.inputs().values()]
    commit = _git("log", "-1", "--format=%H", "--", *paths)
    return f"{commit}-dirty" if commit and _git("status", "--porcelain", "--", *paths) else commit


def _git(*words: str) -> str:
    """What git answers; '' outside of a clone, or without git."""
    if not shutil.which("git"):
        return ""
    return subprocess.run(
        ["git", "-C", str(catalog.ROOT), *words], capture_output=True, text=True, check=False
    ).stdout.strip()


def _docker(*words: str, context: bytes | None = None) -> None:
    if not shutil.which("docker"):
        raise FlagError("Docker is not installed", hint="images/cloudbuild.yaml builds the images without it.")
    done = subprocess.run(["docker", *words], input=context, check=False)
    if done.returncode:
        raise UserError(
            f"`docker {words[0]}` failed",
            received=f"exit code {done.returncode}",
            hint="Docker's own message stands above.",
        )


if __name__ == "__main__":
    command_line.main(_main)
