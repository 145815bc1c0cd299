"""Whether a service can pull the images of a pipeline, as far as this machine can tell, and what to do if not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from images import build, catalog
from pipelines import registry
from tf_image_classification.errors import FlagError

_EXAMPLE = "europe-docker.pkg.dev/PROJECT/REPOSITORY"
_OF_MAKE = {"tag": "TAG", "base": "BASE", "user": "RUN_AS", "platform": "PLATFORM"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why images may not be pulled.

    Attributes:
        references: of the images.
        certain: False if the registry did not say, since the service may see what this machine does not.
        mend: a command.
    """

    references: tuple[str, ...]
    what: str
    certain: bool
    mend: str


def check(references: Iterable[str], backend: str, built_with: Mapping[str, str]) -> None:
    """Checks the images of a pipeline before it is sent.

    What the registry does not say is warned about. On Kubeflow all is: nodes may have images that no registry has.

    Args:
        references: of the images.
        backend: vertex or kubeflow.
        built_with: see `find_problems`.

    Raises:
        FlagError: on Vertex AI, an image does not exist, is for another platform, or has a name of this machine.
    """
    problems = find_problems(references, backend, built_with)
    certain = [problem for problem in problems if problem.certain]
    if certain and backend == "vertex":
        raise FlagError(
            "Vertex AI cannot pull the images",
            received="; ".join(f"{', '.join(problem.references)}: {problem.what}" for problem in certain),
            hint="; ".join(dict.fromkeys(problem.mend for problem in certain)),
        )
    for problem in problems:
        names = ", ".join(problem.references)
        _log.warning("Images %s: %s. If they are missing: %s", names, problem.what, problem.mend)


def find_problems(references: Iterable[str], backend: str, built_with: Mapping[str, str]) -> list[Problem]:
    """The problems of images, which are looked up in their registries.

    Args:
        references: of the images.
        backend: vertex, whose machines are linux/amd64, or kubeflow, whose nodes may be others.
        built_with: tag, base, user and platform that `images build` was given, for the command that mends.
    """
    listed = sorted(set(references))
    local = [reference for reference in listed if reference.startswith(f"{catalog.REGISTRY}/")]
    asked = [reference for reference in listed if reference not in local]
    found_of: dict[tuple[str, bool, str], list[str]] = {}
    after = ""
    if backend == "vertex":
        if built_with.get("platform") not in (None, "", build.PLATFORM):  # which Vertex AI does not run
            after = f", and give no --image_platform {built_with['platform']}"
        built_with = {**built_with, "platform": ""}

    def add(reference: str, what: str, mend: str, *, certain: bool) -> None:
        found_of.setdefault((what, certain, mend), []).append(reference)

    for reference in local:
        what, mend = _local_problem(reference, backend, built_with)
        add(reference, what, mend, certain=backend == "vertex")
    with ThreadPoolExecutor() as pool:
        for reference, found in zip(asked, pool.map(registry.look_up, asked), strict=True):
            if found.exists is None:
                mend = make_command(reference, built_with) + after
                add(reference, f"not checked: {found.reason}", mend, certain=False)
            elif not found.exists:
                add(reference, "not found", make_command(reference, built_with) + after, certain=True)
            elif backend == "vertex" and build.PLATFORM not in found.platforms:
                what = f"for {', '.join(sorted(found.platforms))}, not for {build.PLATFORM}"
                add(reference, what, make_command(reference, built_with) + after, certain=True)
    return [Problem(tuple(names), what, certain, mend) for (what, certain, mend), names in found_of.items()]


def make_command(reference: str, built_with: Mapping[str, str]) -> str:
    """The command that builds and pushes an image of this project; for others, the one that pushes it."""
    prefix, _, last = reference.partition("@")[0].rpartition("/")
    name = last.partition(":")[0]
    if name not in catalog.IMAGES:
        return f"docker push {reference}"
    options = [f"{_OF_MAKE[option]}={value}" for option, value in built_with.items() if value]
    options += [f"IMAGES={name}"] if catalog.IMAGES[name].on_demand else []
    return " ".join([f"make images PUSH=1 REGISTRY={prefix}", *options])


def _local_problem(reference: str, backend: str, built_with: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with a name that no registry has, and what mends it."""
    if backend == "vertex":
        name = reference.rpartition("/")[2]
        mend = f"{make_command(f'{_EXAMPLE}/{name}', built_with)}, and give the same as --image_registry"
        return "only this machine's Docker has images of this name", mend
    mend = f"kind load docker-image {reference}, or minikube image load {reference}"
    return "no registry has images of this name, so each node must", mend
