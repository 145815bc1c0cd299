"""The compiled pipeline: one YAML document that Kubeflow and Vertex both load."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from images import catalog
from pipelines.definition import Options, make_pipeline
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_FORMS = {
    "cpu": (re.compile(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?m?"), "a number of cores, as 8"),
    "memory": (re.compile(r"[1-9][0-9]*(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?"), "a whole number and a unit, as 32G"),
    "accelerator": (re.compile(r"[A-Za-z0-9_.\-/]+:[1-9][0-9]*"), "TYPE:COUNT, as NVIDIA_TESLA_T4:1"),
}


def compile_pipeline(output: str, options: Options) -> None:
    """Compiles to `output`, which appears whole.

    Raises:
        FlagError: `output` cannot be written.
    """
    from kfp import compiler

    if not output.endswith((".yaml", ".yml")):
        raise FlagError("Invalid value for --output", received=output, expected="a file name that ends in .yaml")
    with storage.temporary_dir() as folder:
        made = os.path.join(folder, "pipeline.yaml")
        compiler.Compiler().compile(make_pipeline(options), made)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
            storage.write_bytes(output, Path(made).read_bytes())
        except OSError as error:
            raise FlagError(
                f"Cannot write {output}", received=error.strerror, expected="a file that can be written"
            ) from error


def by_step(option: str, values: Sequence[str]) -> dict[str, str]:
    """What --cpu, --memory or --accelerator says: each of its values is VALUE, for the training step, or STEP=VALUE.

    Raises:
        FlagError: there is no such step, or a value has a form that KFP does not take.
    """
    form, expected = _FORMS[option]
    chosen = {}
    for text in values:
        step, _, value = text.rpartition("=")
        step = step or flag_table.TRAIN_STEP
        if step not in flag_table.STEPS:
            raise FlagError(
                f"--{option} names a step that there is not", received=step, expected=", ".join(flag_table.STEPS)
            )
        if not form.fullmatch(value):
            raise FlagError(f"Invalid value for --{option}", received=value, expected=expected)
        chosen[step] = value
    return chosen


def image_references(
    registry: str = catalog.REGISTRY, tag: str = "", accelerator: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The image of each step, by its name; a step with an accelerator takes the GPU variant.

    Args:
        tag: one for all; by default each image has its own, a hash of what it is made from.

    Raises:
        FlagError: the tag is none, or one that moves; or the image of a step that is to have an accelerator has no GPU
            variant.
    """
    catalog.check_tag("image_tag", tag)
    names = dict(catalog.OF_STEP)
    for step in accelerator or ():
        names[step] += catalog.GPU
        if names[step] not in catalog.IMAGES:
            able = [name for name, image in catalog.OF_STEP.items() if image + catalog.GPU in catalog.IMAGES]
            raise FlagError("--accelerator names a step that cannot use one", received=step, expected=" or ".join(able))
    return {step: catalog.IMAGES[name].reference(registry, tag) for step, name in names.items()}
