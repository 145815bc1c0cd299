"""Clusters of real processes on loopback: started with TF_CONFIG, killed, and restarted as a platform would.

with clusters.Cluster([sys.executable, "-m", "my.module"], tmp_path, worker=2) as cluster:
    cluster.start()
    assert cluster.wait(60) == {"worker:0": 0, "worker:1": 0}, cluster.outputs()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tf_image_classification.launch.processes import free_ports

# Four processes on two cores: each with one thread for its operations, and none with a GPU.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONFAULTHANDLER": "1",  # SIGABRT prints where a process hangs
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_NUM_INTRAOP_THREADS": "1",
}
_RETRYABLE = (
    128  # exit codes from here on: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow/
)
_POLL_SECONDS = 0.05
_TAIL = 4000  # characters of each task's output in an error


class Cluster:
    """One process for each task of a cluster; on leaving the `with` block, those that still run are killed.

    Args:
        command: of every task, or a function that returns the command of a task such as "worker:1".
        folder: of the outputs: one file per task, which its restarts continue.
        chief, worker, ps, evaluator: how many of each. An evaluator is a task, but no member of TF_CONFIG's cluster, as
            the training operator has it.
        env: environment variables in addition to this process's and `ENVIRONMENT`; None removes one.

    Attributes:
        tasks: all of them, as "role:index".
        starts: how often each was started.
    """

    def __init__(
        self,
        command: Sequence[str] | Callable[[str], Sequence[str]],
        folder: Path,
        *,
        chief: int = 0,
        worker: int = 0,
        ps: int = 0,
        evaluator: int = 0,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        counts = {"chief": chief, "worker": worker, "ps": ps, "evaluator": evaluator}
        self.tasks = tuple(f"{role}:{index}" for role, count in counts.items() for index in range(count))
        self._command, self._folder = command, folder
        self._env = {key: value for key, value in {**os.environ, **ENVIRONMENT, **(env or {})}.items() if value}
        ports = iter(free_ports(chief + worker + ps))
        members = {role: counts[role] for role in ("chief", "worker", "ps") if counts[role]}
        self.members = {role: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for role, count in members.items()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.starts = dict.fromkeys(self.tasks, 0)
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()

    def start(self, *tasks: str) -> None:
        """Starts tasks, by default all; one that has ended is started again, at the same address."""
        for task in tasks or self.tasks:
            role, _, index = task.partition(":")
            config = {"cluster": self.members, "task": {"type": role, "index": int(index)}}
            self.starts[task] += 1
            command = self._command(task) if callable(self._command) else self._command
            with self.output_file(task).open("ab") as output:
                self._processes[task] = subprocess.Popen(
                    command,
                    env=self._env | {"TF_CONFIG": json.dumps(config)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def kill(self, task: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a task's process, if it still runs."""
        self._processes[task].send_signal(number)

    def code(self, task: str) -> int | None:
        """The exit code of a task's latest process, as a shell gives it (137 after SIGKILL); None while it runs."""
        code = self._processes[task].poll()
        return 128 - code if code is not None and code < 0 else code

    def codes(self) -> dict[str, int | None]:
        """`code` of every task that was started."""
        return {task: self.code(task) for task in self._processes}

    def wait(self, limit: float, *tasks: str) -> dict[str, int]:
        """Waits until tasks, by default all that were started, have ended.

        Args:
            limit: seconds. Exceeding it prints the stacks of the processes' threads into their outputs, kills all, and
                fails.

        Returns:
            Their exit codes, as of `code`.

        Raises:
            TimeoutError: with the end of each task's output.
        """
        self.wait_for(lambda: all(self.code(task) is not None for task in tasks or self._processes), limit)
        return {task: self.code(task) or 0 for task in tasks or self._processes}

    def wait_for(self, condition: Callable[[], bool], limit: float) -> None:
        """Waits until a condition holds; otherwise as `wait`."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                self._abort()
                raise TimeoutError(f"not done within {limit:g} s: {self.codes()}\n{self.outputs()}")
            time.sleep(_POLL_SECONDS)

    def output_file(self, task: str) -> Path:
        """What a task has printed, to stdout and stderr, in all its processes."""
        return self._folder / f"{task.replace(':', '-')}.log"

    def output(self, task: str) -> str:
        """The text of `output_file`."""
        return self.output_file(task).read_text(errors="replace")

    def outputs(self) -> str:
        """The end of each task's output, for the message of an assertion."""
        return "\n".join(f"==== {task}\n{self.output(task)[-_TAIL:]}" for task in self._processes)

    def _abort(self) -> None:
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGABRT)
        for process in running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of one process of a task.

    Attributes:
        task: such as "worker:1".
        code: as of `Cluster.code`.
        seconds: since the start of the job.
    """

    task: str
    code: int
    seconds: float


class Restarter:
    """Stands in for the platform: restarts what ends with an exit code of 128 or more; other codes are final.

    The training operator, with its restart policy ExitCode, restarts such a task alone, while the others run. Vertex
    AI, with restart_job_on_worker_restart, restarts all tasks. The job succeeds once its chief (without one, worker 0)
    has; tasks that then still run after `grace` seconds are ended, as parameter servers have to be.

    Args:
        cluster: not started yet.
        restarts: how many processes may end with a retryable code before the job fails.
        together: restart all tasks, as Vertex AI does, instead of the one that ended.
        grace: seconds.

    Attributes:
        exits: the history, in order; of tasks that were ended only because the job was restarted or had succeeded,
            there is none.
    """

    def __init__(self, cluster: Cluster, restarts: int = 20, *, together: bool = False, grace: float = 60) -> None:
        self._cluster, self._restarts, self._together, self._grace = cluster, restarts, together, grace
        self.exits: list[Exit] = []
        self._started = self._changed = time.monotonic()
        self._printed = 0  # bytes

    def run(self, limit: float, meanwhile: Callable[[], None] = lambda: None) -> list[Exit]:
        """Starts the job and runs it until it has succeeded or failed.

        Args:
            limit: seconds in which nothing ends, and nothing is printed, after which the job counts as hanging.
            meanwhile: called about every 50 ms, for instance to kill a task.

        Returns:
            `exits`. The last one is a final code, or retryable if there were too many.

        Raises:
            TimeoutError: with the end of each task's output.
        """
        cluster = self._cluster
        self._started = self._changed = time.monotonic()
        cluster.start()
        lead = "chief:0" if "chief:0" in cluster.tasks else "worker:0"
        done: set[str] = set()
        while lead not in done:
            meanwhile()
            ended = [task for task in cluster.tasks if task not in done and cluster.code(task) is not None]
            for task in ended:
                code = cluster.code(task) or 0
                self._record(task, code)
                if 0 < code < _RETRYABLE or (code and self._restarts < 0):
                    return self.exits
                if code == 0:
                    done.add(task)
            failed = [task for task in ended if task not in done]
            if failed:
                self._restart(failed, done)
            if self._seconds_without_change() > limit:
                cluster.wait_for(lambda: False, 0)  # prints the stacks, and raises
            time.sleep(_POLL_SECONDS)
        self._finish(done)
        return self.exits

    def _seconds_without_change(self) -> float:
        printed = sum(self._cluster.output_file(task).stat().st_size for task in self._cluster.tasks)
        if printed > self._printed:
            self._printed, self._changed = printed, time.monotonic()
        return time.monotonic() - self._changed

    def _record(self, task: str, code: int) -> None:
        self._changed = time.monotonic()
        self.exits.append(Exit(task, code, self._changed - self._started))
        self._restarts -= code >= _RETRYABLE

    def _restart(self, failed: list[str], done: set[str]) -> None:
        if self._together:
            done.clear()
            for task in self._cluster.tasks:
                self._cluster.kill(task)
            self._cluster.wait(30)
        self._cluster.start(*(self._cluster.tasks if self._together else failed))

    def _finish(self, done: set[str]) -> None:
        """Waits for the tasks beside the chief, and ends those that go on: parameter servers serve until then."""
        cluster, end = self._cluster, time.monotonic() + self._grace
        while time.monotonic() < end and any(cluster.code(task) is None for task in cluster.tasks):
            time.sleep(_POLL_SECONDS)
        for task in cluster.tasks:
            if cluster.code(task) is None:
                cluster.kill(task, signal.SIGTERM)
            elif task not in done:
                self._record(task, cluster.code(task) or 0)
