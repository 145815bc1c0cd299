"""The process that executes one pipeline for a stand-in, with kfp.local.

It writes each change of a task as a line of JSON to a file descriptor.

python -m tests.standin.execute JOB.json EVENTS_FD
"""

from __future__ import annotations

import json
import os
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import components, dsl, local
from kfp.local import executor_input_utils, placeholder_utils
from kfp.local.cache import LocalCache
from kfp.local.orchestrator import task_executor
from kfp.local.status import Status

from tests.standin import bucket, s3
from tests.standin.runs import UNKNOWN


def main(job_file: str, events_fd: str) -> int:
    """Executes the pipeline of a job file, as written by runs.Runner; returns the exit code."""
    job = json.loads(Path(job_file).read_text())
    with os.fdopen(int(events_fd), "w", buffering=1) as events:
        _report_tasks(lambda event: print(json.dumps(event), file=events), Path(job["buckets"]), job["retries"])
        if job["run_folder"]:
            _behave_as_kubeflow(job["run_folder"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about image names, which mean nothing here
            local.init(
                local.SubprocessRunner(use_venv=False),
                pipeline_root=job["pipeline_root"],
                enable_caching=True,
                cache_root=job["cache"],
            )
            try:
                components.load_component_from_text(json.dumps(job["pipeline_spec"]))(**job["parameters"])
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
    return 0


def _report_tasks(report: Callable[[dict[str, Any]], None], buckets: Path, retries: dict[str, int]) -> None:
    """Calls `report` for each change of a task, and uploads the artifacts of each.

    kfp.local only logs the states of tasks, so this patches the two functions by which both of its orchestrators look
    up the cache and execute a task. As a container's launcher does, it uploads a task's artifacts to the bucket and
    sets their URIs to their gs:// addresses.
    """
    execute, look_up = _with_retries(task_executor.execute_single_task, retries), LocalCache.get
    hits: list[bool] = []

    def get(cache: LocalCache, key: str) -> dict[str, Any] | None:
        found = look_up(cache, key)
        hits.append(found is not None)
        return found

    def observed(*, task_name: str, **arguments: Any) -> tuple[dict[str, Any], Status]:
        hits.clear()
        report({"task": task_name, "state": "RUNNING"})
        outputs, status = execute(task_name=task_name, **arguments)
        for artifact in outputs.values():
            if isinstance(artifact, dsl.Artifact):
                _publish(artifact, buckets, upload=not any(hits))
        done = "SKIPPED" if any(hits) else "SUCCEEDED"  # Vertex AI's state of a cache hit
        report(
            {
                "task": task_name,
                "state": done if status == Status.SUCCESS else "FAILED",
                "outputs": {name: _as_json(value) for name, value in outputs.items()},
            }
        )
        return outputs, status

    LocalCache.get = get
    task_executor.execute_single_task = observed


def _with_retries(execute: Callable[..., tuple[dict[str, Any], Status]], retries: dict[str, int]) -> Callable[..., Any]:
    """kfp.local's function that executes a task, which it does not retry; how often it may be is by its name."""

    def retried(*, task_name: str, **arguments: Any) -> tuple[dict[str, Any], Status]:
        for _ in range(retries.get(task_name, 0)):
            outputs, status = execute(task_name=task_name, **arguments)
            if status == Status.SUCCESS:
                return outputs, status
        return execute(task_name=task_name, **arguments)

    return retried


def _behave_as_kubeflow(run_folder: str) -> None:
    """Gives the artifacts the URIs that Kubeflow's driver gives them, and leaves {{$.pipeline_root}} as it is.

    The URI of an output is RUN_FOLDER/TASK/ID/OUTPUT, where ID is made anew for each task.
    """
    make_artifacts = executor_input_utils.artifact_type_schema_to_artifact_list
    replace = placeholder_utils.replace_placeholders
    root = uuid.uuid4().hex  # kfp.local reads the placeholder itself as one of an input

    def artifacts(name: str, artifact_type: Any, task_root: str) -> Any:
        made = make_artifacts(name, artifact_type, task_root)
        task_id = uuid.uuid5(uuid.NAMESPACE_URL, task_root)
        made.artifacts[0].uri = f"{run_folder}/{Path(task_root).name}/{task_id}/{name}"
        return made

    def replaced(**arguments: Any) -> list[str]:
        words = replace(**arguments | {"pipeline_root": root})
        known = {root: dsl.PIPELINE_ROOT_PLACEHOLDER, UNKNOWN: "{{$.unknown}}"}
        for text, placeholder in known.items():
            words = [word.replace(text, placeholder) for word in words]
        return words

    executor_input_utils.artifact_type_schema_to_artifact_list = artifacts
    placeholder_utils.replace_placeholders = replaced


def _publish(artifact: dsl.Artifact, buckets: Path, upload: bool) -> None:
    """Sets an artifact's URI to its gs:// address if it is local, and uploads its files."""
    scheme, _, name = artifact.uri.rpartition("://")
    local = buckets / name
    if not local.is_relative_to(buckets):
        return
    if not scheme:
        scheme, artifact.uri = "gs", f"gs://{local.relative_to(buckets).as_posix()}"
    service, url = (bucket, os.environ.get("STORAGE_EMULATOR_HOST"))
    if scheme != "gs":
        service, url = (s3, os.environ.get("AWS_ENDPOINT_URL_S3"))
    if upload and url:
        name, _, prefix = local.relative_to(buckets).as_posix().partition("/")
        service.fill(url, name, prefix, local)


def _as_json(value: Any) -> Any:
    if isinstance(value, dsl.Artifact):
        return {"uri": value.uri, "schema_title": value.schema_title, "metadata": value.metadata}
    return {"value": value}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
