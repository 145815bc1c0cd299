"""A schedule's pipeline, compiled anew with other options of the compilation."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from images import catalog
from pipelines import build_runner, clusters, template
from pipelines.commands import build_options, compile_options
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import BUILD_STEP

_PLATFORM_TAG = re.compile(r"[0-9a-f]{12}-([a-z0-9]+(?:-v[0-9]+)?)")
_RESOURCES = {"cpu": "resourceCpuLimit", "memory": "resourceMemoryLimit"}

_log = logging.getLogger(__name__)


def recompile(arguments: argparse.Namespace, pipeline: template.Pipeline) -> template.Pipeline:
    """This checkout's pipeline, compiled with the options that are given, and otherwise with those of `pipeline`.

    Args:
        pipeline: one that a version of this project has compiled.

    Raises:
        FlagError: it is another pipeline, its images do not tell their registry, or an option has an invalid value.
    """
    from pipelines import definition

    given, spec = compile_options.given(arguments), pipeline.spec
    name = template.pipeline_name(spec) if spec else "none that the service has"
    if name != definition.NAME:
        raise FlagError(
            f"--{next(iter(given))} cannot change the pipeline of this schedule",
            received=name,
            expected=definition.NAME,
            hint="Compile it with other options, and give the file as --template.",
        )
    containers = _containers(spec)
    compiled = compile_options.compile_checkout(arguments, _inherited(spec, containers, given))
    changed, images = [], _images(spec)
    for step, after in _images(compiled.spec).items():
        before = images.get(step, after)
        if before != after:
            changed.append(f"{step} {before} -> {after}")
    if changed:
        _log.warning(
            "The pipeline is compiled from this checkout; images change: %s%s", ", ".join(changed), _not_kept(given)
        )
    if "kubernetes" in given:
        return compiled
    for step, compiled_container in _containers(compiled.spec).items():
        if variables := containers.get(step, {}).get("env"):  # the texts of --kubernetes, which are in no platform spec
            compiled_container["env"] = variables
    return compiled._replace(platforms=pipeline.platforms)


def _inherited(
    spec: Mapping[str, Any], containers: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that are given, and otherwise those that `spec` was compiled with, as a command line has them."""
    options: dict[str, Any] = dict(given)
    cluster, images = clusters.of_spec(spec), _images(spec)
    if "image_registry" not in given:
        options["image_registry"] = _registry(images)
    tags = {image.rpartition(":")[2] for image in images.values()}
    if len(tags) == 1 and not [name for name in given if name.startswith("image_") and name != "image_registry"]:
        options["image_tag"] = tags.pop()  # otherwise they are hashes of each image's content
    elif not {"image_tag", "image_platform"} & given.keys():
        options["image_platform"] = _platform(tags)
    limits: dict[str, dict[str, str]] = {option: {} for option in (*_RESOURCES, "accelerator")}
    for step, container in containers.items():
        resources = _resources(container)
        for option, limit in _RESOURCES.items():
            if limit in resources:
                limits[option][step] = resources[limit]
        if found := resources.get("accelerator"):
            limits["accelerator"][step] = f"{found['resourceType']}:{found['resourceCount']}"
    for option, by_step in limits.items():
        if cluster and (of_tasks := getattr(cluster, option)):
            by_step[flag_table.TRAIN_STEP] = of_tasks
        options[option] = _merged(by_step, given.get(option, ()))
    if cluster and given.get("replicas") != 1:  # with which training is on one machine again
        for option in ("replicas", "parameter_servers", "evaluator", "spot", "tensorboard"):
            options.setdefault(option, getattr(cluster, option))
    if (dataflow := build_runner.of_spec(spec)) and given.get("build_runner") != build_options.LOCAL:
        for option, value in build_options.as_options(dataflow).items():
            options.setdefault(option, value)
    policies = [task["retryPolicy"] for _, task in template.tasks(spec) if "retryPolicy" in task]
    options.setdefault("retries", int(max((policy.get("maxRetryCount", 0) for policy in policies), default=0)))
    if "notify" not in given:
        inputs = spec["root"]["dag"]["tasks"].get("notify", {}).get("inputs", {}).get("parameters", {})
        for option, parameter in (("notify", "destination"), ("notify_insecure", "insecure")):
            if parameter in inputs:
                options[option] = inputs[parameter]["runtimeValue"]["constant"]
    return options


def _not_kept(given: Mapping[str, Any]) -> str:
    """What a user has to give again, since the hashes in the tags do not tell it; '' where they say which images."""
    missing = [f"--{name}" for name in ("image_base", "image_user") if name not in given]
    if "image_tag" in given or not missing:
        return ""
    return f". If the schedule has images with another {' or '.join(missing)}, give that again: their tags do not tell"


def _platform(tags: Collection[str]) -> str:
    """The platform that default tags end with, see `images.build.Build.tag`; '' for the default one."""
    found = {match[1] for tag in tags if (match := _PLATFORM_TAG.fullmatch(tag))}
    return f"linux/{found.pop().replace('-', '/')}" if len(found) == 1 else ""


def _merged(inherited: Mapping[str, str], given: Sequence[str]) -> list[str]:
    """STEP=VALUE texts, in which those given win; an empty value removes what a step has."""
    values = dict(inherited)
    for text in given:
        step, _, value = text.rpartition("=")
        step = step or flag_table.TRAIN_STEP
        values[step] = value
        if not value and step in flag_table.STEPS:
            del values[step]
    return [f"{step}={value}" for step, value in values.items()]


def _containers(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The container of each step that the pipeline has."""
    executors = spec["deploymentSpec"]["executors"]
    found = {}
    for step in catalog.OF_STEP:
        executor = executors.get(f"exec-{step.replace('_', '-')}")
        if executor:
            found[step] = executor["container"]
    return found


def _images(spec: Mapping[str, Any]) -> dict[str, str]:
    """The image of each step that the pipeline has; of a training on a cluster, that of its tasks."""
    images = {step: str(container["image"]) for step, container in _containers(spec).items()}
    cluster = clusters.of_spec(spec)
    return images | ({flag_table.TRAIN_STEP: cluster.image} if cluster else {})


def _resources(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return container.get("resources", {})


def _registry(images: Mapping[str, str]) -> str:
    registries = set()
    for step, reference in images.items():
        registry, _, image = reference.rpartition("/")
        name = image.partition(":")[0].removesuffix(catalog.GPU)
        is_ours = name == catalog.OF_STEP[step] or (step == BUILD_STEP and name == build_runner.IMAGE)
        registries.add(registry if is_ours else "")
    if len(registries) != 1 or "" in registries:
        raise FlagError(
            "--image_registry is required: the images of this schedule's pipeline do not tell it",
            received=", ".join(sorted(set(images.values()))),
        )
    return registries.pop()
