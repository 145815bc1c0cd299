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
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.\S*)?")


def read(client: Any) -> str:
    """The service's version as it names it, `2.14.3`; `unknown` for builds of one's own.

    Args:
        client: kfp.Client, whose own answer leaves it out.
    """
    answer = client._healthz_api.healthz_service_get_healthz(_preload_content=False)
    return str(json.loads(answer.data).get("tag_name") or "unknown")


def check(client: Any, spec: Mapping[str, Any]) -> None:
    """Checks that the service can do what the pipeline says, and warns of what it would leave out.

    Args:
        client: kfp.Client.
        spec: the compiled pipeline.

    Raises:
        FlagError: the pipeline has an exit handler that asks how the run ended, which this version cannot say.
    """
    tasks = list(_tasks(spec))
    notifies = any(
        "taskFinalStatus" in value for task in tasks for value in task.get("inputs", {}).get("parameters", {}).values()
    )
    retries = any(task.get("retryPolicy", {}).get("maxRetryCount") for task in tasks)
    if not notifies and not retries:
        return
    found = read(client)
    match = _VERSION.fullmatch(found)
    if not match:
        _log.warning(
            "Kubeflow Pipelines does not name its version (%s): --notify needs 2.14, and --retries 2.5 or newer", found
        )
        return
    version = int(match[1]), int(match[2])
    if notifies and version < _NOTIFIES:
        raise FlagError(
            "--notify does not work on this Kubeflow Pipelines: the step that notifies would fail after the last one",
            received=f"version {found}",
            expected="2.14 or newer",
            hint="Omit --notify, or compile the --template without it.",
        )
    if retries and version < _RETRIES:
        _log.warning("Kubeflow Pipelines %s ignores --retries, which need 2.5 or newer: no step is retried", found)


def _tasks(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All tasks of a pipeline, also those in conditions and exit handlers."""
    for component in [spec.get("root", {}), *spec.get("components", {}).values()]:
        yield from component.get("dag", {}).get("tasks", {}).values()
