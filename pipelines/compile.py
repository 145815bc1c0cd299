"""The pipeline and its components, compiled to YAML that Kubeflow and Vertex both load, unless an option is for one."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from images import build as image_build
from images import catalog
from pipelines import backend_limits
from pipelines.definition import COMPONENTS, Options, make_pipeline
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import BUILD_STEP

_FORMS = {
    "cpu": (re.compile(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?m?"), "a number of cores, as 8"),
    "memory": (
        re.compile(r"[1-9][0-9]*(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?"),
        "a whole number and a unit, as 32G on Vertex AI and 32Gi on Kubeflow",
    ),
    "accelerator": (
        re.compile(r"[A-Za-z0-9_.\-/]+:[1-9][0-9]*"),
        "TYPE:COUNT, as NVIDIA_TESLA_T4:1 on Vertex AI and nvidia.com/gpu:1 on Kubeflow",
    ),
}


def compile_pipeline(output: str, options: Options, backend: str = "") -> str:
    """Compiles the pipeline to the YAML file `output`, which is written atomically.

    Args:
        backend: that the pipeline must be for, vertex or kubeflow; '' for any.

    Returns:
        A sentence that says which backend alone takes the pipeline, which is in the file too; '' when both do.

    Raises:
        FlagError: `output` cannot be written, or the backend, or no backend, takes the options.
    """
    if not output.endswith((".yaml", ".yml")):
        raise FlagError("Invalid value for --output", received=output, expected="a file name that ends in .yaml")
    pipeline = make_pipeline(options)
    spec, platforms = _as_data(pipeline)
    if backend:
        backend_limits.check(spec, platforms, backend)
    only = backend_limits.only_backend(spec, platforms)
    _compile(pipeline, output, only)
    return only


def compile_components(folder: str, images: Mapping[str, str]) -> list[str]:
    """Compiles each step to `<folder>/<step>.yaml`, for `kfp.components.load_component_from_file`.

    Args:
        images: image reference of each step.

    Returns:
        The paths of the files.

    Raises:
        FlagError: a file cannot be written.
    """
    paths = []
    for step, component in _with_images(images):
        paths.append(os.path.join(folder, f"{step}.yaml"))
        _compile(component, paths[-1])
    return paths


def parse_by_step(option: str, values: Sequence[str]) -> dict[str, str]:
    """Parses --cpu, --memory or --accelerator, whose values are VALUE, for the training step, or STEP=VALUE.

    Returns:
        Step -> value.

    Raises:
        FlagError: a step is unknown, or a value has a form that KFP does not accept.
    """
    form, expected = _FORMS[option]
    parsed = {}
    for text in values:
        step, _, value = text.rpartition("=")
        step = step or flag_table.TRAIN_STEP
        if step not in flag_table.STEPS:
            raise FlagError(f"Unknown step in --{option}", received=step, expected=", ".join(flag_table.STEPS))
        if not form.fullmatch(value):
            raise FlagError(f"Invalid value for --{option}", received=value, expected=expected)
        parsed[step] = value
    return parsed


def image_references(
    registry: str = catalog.REGISTRY,
    tag: str = "",
    accelerator: Mapping[str, str] | None = None,
    base: str = "",
    user: str = "",
    platform: str = "",
    build_image: str = "",
) -> dict[str, str]:
    """The image reference of each step; a step with an accelerator has the GPU variant of its image.

    Args:
        tag: one for all images; by default each image's tag is a hash of its content.
        base, user, platform: what they were built with, as in `images.build`; '' for the default of each.
        build_image: name of the build step's image; '' for the one of a build on its own machine.

    Raises:
        FlagError: the tag is invalid, or one that moves; the image of a step with an accelerator has no GPU variant; or
            the base image has no digest, and this machine's Docker does not have it.
    """
    catalog.check_tag("image_tag", tag)
    for option, value in (("base", base), ("user", user), ("platform", platform)):
        if tag and value:
            raise FlagError(
                f"--image_{option} cannot be given with --image_tag", hint="It matters to the default tags alone."
            )
    names = catalog.OF_STEP | ({BUILD_STEP: build_image} if build_image else {})
    for step in accelerator or ():
        names[step] += catalog.GPU
        if names[step] not in catalog.IMAGES:
            able = [name for name, image in catalog.OF_STEP.items() if image + catalog.GPU in catalog.IMAGES]
            raise FlagError("A step in --accelerator has no GPU image", received=step, expected=" or ".join(able))
    build = image_build.choose(base, user, platform)
    return {step: catalog.IMAGES[name].reference(registry, tag, build) for step, name in names.items()}


def _with_images(images: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Each step and a copy of its component with its image; KFP sets an image otherwise on a pipeline's tasks only."""
    for step, component in COMPONENTS.items():
        pinned = copy.copy(component)
        pinned.component_spec = copy.deepcopy(component.component_spec)
        pinned.component_spec.implementation.container.image = images[step]
        yield step, pinned


def _as_data(pipeline: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The spec of a pipeline and its platforms by name."""
    from google.protobuf import json_format

    platforms = json_format.MessageToDict(pipeline.platform_spec).get("platforms", {})
    return json_format.MessageToDict(pipeline.pipeline_spec), platforms


def _compile(component: Any, output: str, comment: str = "") -> None:
    """Writes a component or pipeline, with a comment in the first line."""
    from kfp import compiler

    with storage.temporary_dir() as folder:
        compiled = os.path.join(folder, "compiled.yaml")
        compiler.Compiler().compile(component, compiled)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
            first = f"# {comment}\n" if comment else ""
            storage.write_bytes(output, first.encode() + Path(compiled).read_bytes())
        except OSError as error:
            raise FlagError(
                f"Cannot write {output}", received=error.strerror, expected="a file that can be written"
            ) from error
