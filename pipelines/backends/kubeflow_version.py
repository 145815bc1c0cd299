"""Versions of Kubeflow Pipelines that accept a pipeline and then do not do what it says."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)

_NOTIFIES = (2, 14)  # the first driver that knows PipelineTaskFinalStatus; the one before fails after the last step
_RETRIES = (2, 5)  # the first compiler that reads retryPolicy
_LIMITS = (2, 3)  # the first API server that knows resourceCpuLimit and its like
_SETTINGS = (2, 5)  # the first driver that knows secretNameParameter and its like, which kfp-kubernetes writes
_SUB_PATHS = (2, 16)  # the first driver that knows subPath of a claim, and optional of a variable
_ORPHANS = (2, 16)  # the first API server that reads propagation_policy
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.\S*)?")


def read(client: Any) -> str:
    """The service's version as it names it, `2.14.3`; `unknown` for builds of one's own.

    Args:
        client: kfp.Client, whose own answer leaves it out.
    """
    answer = client._healthz_api.healthz_service_get_healthz(_preload_content=False)
    told = json.loads(answer.data)
    return str(told.get("tag_name") or told.get("apiServerTagName") or "unknown")  # the UI's server renames it


def orphans_runs(client: Any) -> bool:
    """Whether the active runs of a recurring run can outlive it; before, Kubernetes removes them with their owner.

    Args:
        client: kfp.Client.
    """
    match = _VERSION.fullmatch(read(client))
    return match is not None and (int(match[1]), int(match[2])) >= _ORPHANS


def check(client: Any, spec: Mapping[str, Any], platforms: Mapping[str, Any]) -> None:
    """Checks that the service can do what the pipeline says, and warns of what it would leave out.

    Args:
        client: kfp.Client.
        spec: the compiled pipeline.
        platforms: of its platform spec, by name.

    Raises:
        FlagError: the pipeline has an exit handler that asks how the run ended, which this version cannot say, or
            limits or Kubernetes settings that it cannot read.
    """
    needs = list(_needs(spec, platforms))
    retries = any(task.get("retryPolicy", {}).get("maxRetryCount") for task in _tasks(spec))
    if not needs and not retries:
        return
    found = read(client)
    match = _VERSION.fullmatch(found)
    if not match:
        minima = [(option, minimum) for option, minimum, _ in needs] + ([("--retries", _RETRIES)] if retries else [])
        needed = "; ".join(f"{option} needs {major}.{minor}" for option, (major, minor) in dict(minima).items())
        _log.warning("Kubeflow Pipelines does not name its version (%s): %s or newer", found, needed)
        return
    version = int(match[1]), int(match[2])
    for option, minimum, outcome in needs:
        if version < minimum:
            raise FlagError(
                f"{option} does not work on this Kubeflow Pipelines: {outcome}",
                received=f"version {found}",
                expected=f"{minimum[0]}.{minimum[1]} or newer",
                hint=f"Omit {option}, or compile the --template without it.",
            )
    if retries and version < _RETRIES:
        _log.warning("Kubeflow Pipelines %s ignores --retries, which need 2.5 or newer: no step is retried", found)


def _needs(spec: Mapping[str, Any], platforms: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, int], str]]:
    """What a pipeline has that needs a version: its option, the version, and what an older one does."""
    parameters = [task.get("inputs", {}).get("parameters", {}) for task in _tasks(spec)]
    if any("taskFinalStatus" in value for given in parameters for value in given.values()):
        yield "--notify", _NOTIFIES, "the step that notifies would fail after the last one"
    executors = spec.get("deploymentSpec", {}).get("executors", {}).values()
    limits = {name for executor in executors for name in executor.get("container", {}).get("resources", {})}
    if limits & {"resourceCpuLimit", "resourceMemoryLimit", "accelerator"}:
        yield "--cpu, --memory or --accelerator", _LIMITS, "it does not know the field of the limit"
    for settings in platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {}).values():
        if any("subPath" in mount for mount in settings.get("pvcMount", ())):
            yield "subPath in --kubernetes", _SUB_PATHS, "the whole volume would be mounted, or the step would fail"
        if any("optional" in reference for reference in settings.get("secretAsEnv", ())):
            yield "optional in env of --kubernetes", _SUB_PATHS, "a step without the Secret would not start"
        if settings:
            yield "--kubernetes", _SETTINGS, "its drivers do not know the fields of the settings"


def _tasks(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All tasks of a pipeline, also those in conditions and exit handlers."""
    for component in [spec.get("root", {}), *spec.get("components", {}).values()]:
        yield from component.get("dag", {}).get("tasks", {}).values()
