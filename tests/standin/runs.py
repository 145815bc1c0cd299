"""Pipeline runs as the stand-ins carry them out: each in a process of its own, its artifacts copied to the bucket."""

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

Event = dict[str, Any]


class Runner:
    """Carries pipelines out below a folder.

    Artifacts of gs://BUCKET/... lie in the folder `buckets/BUCKET/...` for the steps, as they lie in /gcs/BUCKET/... in
    a container; what a task has made is uploaded to the storage emulator before the next one starts. All else on gs://
    the steps reach through the emulator.

    Attributes:
        fail_once: names of tasks that fail in the next run that holds them.
        environment: variables that the steps are given besides this process's own.
    """

    def __init__(self, folder: Path, storage_url: str = "") -> None:
        self.folder, self.storage_url = folder, storage_url
        self.fail_once: list[str] = []
        self.environment: dict[str, str] = {}
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
    ) -> threading.Thread:
        """Runs a pipeline in the background.

        Args:
            placeholders: name -> what the service puts in its place.
            report: is told of each change of a task: `task`, `state`, and `outputs` once it has ended.
            finish: is told at the end whether the run succeeded.
        """
        spec = _filled_in(pipeline_spec, placeholders)
        job_file, log = self.folder / "jobs" / f"{run_id}.json", self.folder / "logs" / f"{run_id}.log"
        job_file.write_text(
            json.dumps(
                {
                    "pipeline_spec": self._as_executed(spec),
                    "parameters": whole_numbers(spec, parameters),
                    "pipeline_root": self.local(pipeline_root),
                    "buckets": str(self.folder / "buckets"),
                    "cache": str(self.folder / "cache"),
                }
            )
        )
        reading, writing = os.pipe()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        }
        environment |= self.environment
        if self.storage_url:
            environment["STORAGE_EMULATOR_HOST"] = self.storage_url
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.standin.execute", str(job_file), str(writing)],
                pass_fds=[writing],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=environment,
                start_new_session=True,
            )
        os.close(writing)
        self._processes[run_id] = process

        def follow() -> None:
            with os.fdopen(reading) as events:
                for line in events:
                    report(json.loads(line))
            finish(process.wait() == 0)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread

    def cancel(self, run_id: str) -> None:
        """Kills a run's process and those that it has started; does nothing if it has ended."""
        kill_group(self._processes[run_id])

    def stop(self) -> None:
        for run_id in self._processes:
            self.cancel(run_id)

    def local(self, path: str) -> str:
        return str(self.folder / "buckets" / path.removeprefix("gs://")) if path.startswith("gs://") else path

    def _as_executed(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The pipeline with what a container would bring, artifacts on gs:// under a local folder, and with the
        failures ordered."""
        labels = {
            name: spec["components"][task["componentRef"]["name"]]["executorLabel"]
            for name, task in leaf_tasks(spec).items()
        }
        failing = {label for name, label in labels.items() if name in self.fail_once}
        self.fail_once = [name for name in self.fail_once if name not in labels]
        spec = json.loads(json.dumps(spec))
        for label, executor in spec["deploymentSpec"]["executors"].items():
            lines = [
                "__import__('kfp').dsl.types.artifact_types._GCS_LOCAL_MOUNT_PREFIX = "
                f"{str(self.folder / 'buckets')!r} + '/'"
            ]
            lines += ["raise RuntimeError('a failure that was ordered from the stand-in')"] if label in failing else []
            command = executor["container"]["command"]
            command[-1] = "\n".join([*lines, command[-1]])
        return spec


def kill_group(process: subprocess.Popen) -> None:
    """Kills the processes of a group by its leader, which was started with `start_new_session`."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended, and is still being waited for
            os.killpg(process.pid, signal.SIGKILL)


def leaf_tasks(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Task name -> task, of a pipeline and what is nested in it, each after those that it depends on; without the
    groups themselves."""

    def of_dag(dag: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        done: set[str] = set()
        while waiting := {name: task for name, task in dag["tasks"].items() if name not in done}:
            for name, task in waiting.items():
                if set(task.get("dependentTasks", [])) <= done:
                    component = spec["components"][task["componentRef"]["name"]]
                    yield from of_dag(component["dag"]) if "dag" in component else [(name, task)]
                    done.add(name)

    return dict(of_dag(spec["root"]["dag"]))


def _filled_in(spec: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The pipeline with the service's placeholders filled in."""
    text = json.dumps(spec)
    for name, value in values.items():
        text = text.replace(f"{{{{$.{name}}}}}", value)
    return json.loads(text)


def whole_numbers(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no integers: the pipeline's signature says which numbers are."""
    types = {
        name: given["parameterType"]
        for name, given in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
    }
    return {name: int(value) if types.get(name) == "NUMBER_INTEGER" else value for name, value in parameters.items()}
