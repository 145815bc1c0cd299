"""Pipeline runs as the stand-ins carry them out: each in a process of its own, its artifacts copied to the bucket."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.standin import bucket

REPOSITORY = Path(__file__).resolve().parents[2]

Event = dict[str, Any]


class Runner:
    """Carries pipelines out below a folder.

    gs://BUCKET/... is the folder `buckets/BUCKET/...` for the steps, as /gcs/BUCKET/... is in a container of Vertex; with a storage
    emulator, what a task has made is also uploaded there, and steps read gs:// paths from it.

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
        report: Callable[[Event], None],
        finish: Callable[[bool], None],
    ) -> threading.Thread:
        """Runs a pipeline in the background.

        Args:
            report: is told of each change of a task: `task`, `state`, and `outputs` once it has ended.
            finish: is told at the end whether the run succeeded.
        """
        spec = json.loads(json.dumps(pipeline_spec))
        job_file, log = self.folder / "jobs" / f"{run_id}.json", self.folder / "logs" / f"{run_id}.log"
        job_file.write_text(
            json.dumps(
                {
                    "pipeline_spec": self._with_failure(spec),
                    "parameters": whole_numbers(spec, parameters),
                    "pipeline_root": self.local(pipeline_root),
                    "cache": str(self.folder / "cache"),
                }
            )
        )
        reading, writing = os.pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))}
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
                    event = json.loads(line)
                    for artifact in event.get("outputs", {}).values():
                        self._publish(artifact)
                    report(event)
            finish(process.wait() == 0)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread

    def cancel(self, run_id: str) -> None:
        process = self._processes[run_id]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        for run_id in self._processes:
            self.cancel(run_id)

    def local(self, path: str) -> str:
        return str(self.folder / "buckets" / path.removeprefix("gs://")) if path.startswith("gs://") else path

    def _with_failure(self, spec: dict[str, Any]) -> dict[str, Any]:
        tasks = spec["root"]["dag"]["tasks"]
        failing = [name for name in self.fail_once if name in tasks]
        self.fail_once = [name for name in self.fail_once if name not in failing]
        spec = copy.deepcopy(spec)
        for name in failing:
            label = spec["components"][tasks[name]["componentRef"]["name"]]["executorLabel"]
            command = spec["deploymentSpec"]["executors"][label]["container"]["command"]
            command[-1] = 'raise RuntimeError("a failure that was ordered from the stand-in")\n' + command[-1]
        return spec

    def _publish(self, artifact: dict[str, Any]) -> None:
        """Uploads an artifact that lies in a bucket's folder, and gives it its gs:// address."""
        buckets = self.folder / "buckets"
        if "uri" not in artifact or not Path(artifact["uri"]).is_relative_to(buckets):
            return
        made = Path(artifact["uri"])
        name = made.relative_to(buckets).as_posix()
        artifact["uri"] = f"gs://{name}"
        if self.storage_url:
            client = bucket.client(self.storage_url)
            for file in [made] if made.is_file() else sorted(path for path in made.rglob("*") if path.is_file()):
                name, _, blob = file.relative_to(buckets).as_posix().partition("/")
                client.bucket(name).blob(blob).upload_from_filename(str(file))


def whole_numbers(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no integers: the pipeline's signature says which numbers are."""
    types = {name: given["parameterType"] for name, given in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()}
    return {name: int(value) if types.get(name) == "NUMBER_INTEGER" else value for name, value in parameters.items()}
