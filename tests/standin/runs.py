"""The execution of pipelines for the stand-ins: a process for each run, with its artifacts copied to the bucket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
UNKNOWN = "unknown-placeholder"  # of a service that leaves it as it is, which kfp.local does not
_GRACE_SECS = 30.0

Event = dict[str, Any]


class Runner:
    """Executes pipelines below a folder.

    Steps see an artifact of gs://BUCKET/... at `buckets/BUCKET/...`, as they see it at /gcs/BUCKET/... in a container;
    a task's artifacts are uploaded to the storage emulator before the next one starts. Steps access all other gs://
    paths through the emulator. Images and resources of the steps are not used.

    Attributes:
        folder: with the sub-folders buckets, cache, jobs and logs.
        storage_url: of the storage emulator; '' for none.
        fail_once: names of tasks that fail in the next run that has them.
        environment: variables of the steps, besides those of this process.
        first_lines: Python that each step executes first.
    """

    def __init__(self, folder: Path, storage_url: str = "") -> None:
        self.folder, self.storage_url = folder, storage_url
        self.fail_once: list[str] = []
        self.environment: dict[str, str] = {}
        self.first_lines: list[str] = []
        self._processes: dict[str, subprocess.Popen] = {}
        for name in ("buckets", "cache", "jobs", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def start(
        self,
        run_id: str,
        pipeline_spec: Mapping[str, Any],
        parameters: Mapping[str, Any],
        pipeline_root: str,
        placeholders: Mapping[str, str],
        report: Callable[[Event], None],
        finish: Callable[[bool], None],
        run_folder: str = "",
    ) -> threading.Thread:
        """Runs a pipeline in the background.

        Args:
            run_id: unique.
            pipeline_spec: as compiled by kfp.
            parameters: of the run.
            pipeline_root: in a bucket, or local.
            placeholders: {{$.NAME}} placeholders of the service: NAME -> value.
            report: called for each change of a task, with `task`, `state`, and `outputs` once it has ended.
            finish: called at the end; True if the run succeeded.
            run_folder: where Kubeflow has the artifacts of the run; '' for the folders of kfp.local.

        Returns:
            The thread that calls `report` and `finish`.
        """
        spec = _fill_placeholders(pipeline_spec, placeholders)
        job_file, log = self.folder / "jobs" / f"{run_id}.json", self.folder / "logs" / f"{run_id}.log"
        job_file.write_text(
            json.dumps(
                {
                    "pipeline_spec": self._for_local_execution(spec),
                    "parameters": as_integers(spec, parameters),
                    "pipeline_root": self.local_path(pipeline_root),
                    "run_folder": run_folder,
                    "buckets": str(self.folder / "buckets"),
                    "cache": str(self.folder / "cache"),
                    "retries": {
                        name: int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
                        for name, task in leaf_tasks(spec).items()
                    },
                }
            )
        )
        events_read, events_write = os.pipe()
        process = self._execute(job_file, log, events_write)
        os.close(events_write)
        self._processes[run_id] = process

        def follow() -> None:
            with os.fdopen(events_read) as events:
                for line in events:
                    report(json.loads(line))
            finish(process.wait() == 0)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread

    def _execute(self, job_file: Path, log: Path, events: int) -> subprocess.Popen:
        """Starts the process of a run, which writes its events to a file descriptor."""
        with log.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.standin.execute", str(job_file), str(events)],
                pass_fds=[events],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=self._environment(),
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": python_path} | self.environment
        if self.storage_url:
            environment["STORAGE_EMULATOR_HOST"] = self.storage_url
        return environment

    def cancel(self, run_id: str) -> None:
        """Kills a run's process and those that it has started; does nothing if it has ended."""
        kill_group(self._processes[run_id])

    def terminate(self, run_id: str, grace_secs: float = _GRACE_SECS) -> None:
        """Ends a run as a service does that cancels it: its step gets SIGTERM, and is killed after a while."""
        process = self._processes[run_id]
        signal_group(process, signal.SIGTERM)
        killing = threading.Timer(grace_secs, signal_group, [process, signal.SIGKILL])
        killing.daemon = True
        killing.start()

    def stop(self) -> None:
        """Kills the processes of all runs."""
        for run_id in self._processes:
            self.cancel(run_id)

    def local_path(self, path: str) -> str:
        """Where steps see a path of a bucket; a local path unchanged."""
        scheme, _, name = path.rpartition("://")
        return str(self.folder / "buckets" / name) if scheme else path

    def _for_local_execution(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The pipeline, changed so that artifacts on gs:// are local, and that the tasks in `fail_once` fail.

        Removes those tasks from `fail_once`.
        """
        labels = {
            name: spec["components"][task["componentRef"]["name"]]["executorLabel"]
            for name, task in leaf_tasks(spec).items()
        }
        failing = {label for name, label in labels.items() if name in self.fail_once}
        self.fail_once = [name for name in self.fail_once if name not in labels]
        spec = json.loads(json.dumps(spec))
        for label, executor in spec["deploymentSpec"]["executors"].items():
            lines = [
                *(
                    f"__import__('kfp').dsl.types.artifact_types._{scheme}_LOCAL_MOUNT_PREFIX = "
                    f"{str(self.folder / 'buckets')!r} + '/'"
                    for scheme in ("GCS", "MINIO", "S3")
                ),
                *self.first_lines,
            ]
            lines += ["raise RuntimeError('injected by the stand-in')"] if label in failing else []
            command = executor["container"]["command"]
            command[-1] = "\n".join([*lines, command[-1]])
        return spec


def kill_group(process: subprocess.Popen) -> None:
    """Kills the processes of a group by its leader, which was started with `start_new_session`."""
    if process.poll() is None:
        signal_group(process, signal.SIGKILL)


def signal_group(process: subprocess.Popen, number: int) -> None:
    """Sends a signal to the processes of a group by its leader, which may have ended before them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def leaf_tasks(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Task name -> task, of a pipeline and its nested DAGs (conditions, exit handlers), in order of execution.

    The tasks of the nested DAGs themselves are left out.
    """

    def walk(dag: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        done: set[str] = set()
        while waiting := {name: task for name, task in dag["tasks"].items() if name not in done}:
            for name, task in waiting.items():
                if set(task.get("dependentTasks", [])) <= done:
                    component = spec["components"][task["componentRef"]["name"]]
                    yield from walk(component["dag"]) if "dag" in component else [(name, task)]
                    done.add(name)

    return dict(walk(spec["root"]["dag"]))


def _fill_placeholders(spec: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The pipeline with the values of the service's placeholders."""
    text = json.dumps(spec)
    for name, value in values.items():
        text = text.replace(f"{{{{$.{name}}}}}", value)
    return json.loads(text)


def as_integers(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with those that the pipeline declares as integers converted: in JSON all numbers are doubles."""
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    types = {name: definition["parameterType"] for name, definition in inputs.items()}
    return {name: int(value) if types.get(name) == "NUMBER_INTEGER" else value for name, value in parameters.items()}
