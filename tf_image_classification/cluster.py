"""The cluster that this process is a task of, as TF_CONFIG describes it. No TensorFlow.

Vertex AI and Kubeflow's training operator set the environment variable in every container of a job:
https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tf_image_classification.errors import FlagError, UserError, abridged

# 128 + SIGUSR1: what the training operator restarts under `restartPolicy: ExitCode`; it takes 1 and 2 as permanent.
EXIT_RETRYABLE = 138

JOIN_SECONDS_VARIABLE = "CLUSTER_JOIN_SECONDS"
_JOIN_SECONDS = 300.0  # machines of one job start minutes apart: they pull images, and spot machines are waited for


class Role(StrEnum):
    """What a task does. TF_CONFIG's older name `master` means the chief."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"
    EVALUATOR = "evaluator"


# Flag -> why it does not go together with parameter servers.
_WITHOUT_PARAMETER_SERVERS = {
    "sync_replicas": "It aggregates gradients over workers, none of which waits for another.",
    "sync_batch_norm": "It normalises by the batches of all workers, none of which waits for another.",
    "jit_compile": "XLA reads no variables of other machines.",
    "profile": "It records what the chief does, and the chief computes no updates there.",
}


def check_asynchronous(flags: Mapping[str, object], source: str) -> None:
    """Checks that flags go together with parameter servers.

    Args:
        flags: flag -> value.
        source: of the parameter servers, for the error.

    Raises:
        FlagError: one of them does not.
    """
    for name, reason in _WITHOUT_PARAMETER_SERVERS.items():
        if flags.get(name):
            raise FlagError(
                f"--{name} does not go together with parameter servers",
                received=f"--{name}, and {source}",
                expected="a cluster without parameter servers, or the flag not set",
                hint=reason,
            )


class PeerError(UserError):
    """Another task of the cluster was lost, or did not come: the platform restarts the job."""

    exit_code = EXIT_RETRYABLE


@dataclass(frozen=True, slots=True)
class Task:
    """This process's place in its cluster.

    Attributes:
        role: what it does; the chief of a process that has no cluster.
        index: among the tasks of its role.
        cluster: role -> HOST:PORT of its tasks, by index; empty without a cluster. An evaluator need not be listed.
        trial: of hyperparameter tuning; '' without.
    """

    role: Role
    index: int
    cluster: Mapping[str, tuple[str, ...]]
    trial: str = ""

    @property
    def is_chief(self) -> bool:
        """Whether this task decides and writes. Without a chief or master in the cluster, worker 0 does."""
        return self.role == Role.CHIEF or (
            self.role == Role.WORKER and self.index == 0 and not self.cluster.get(Role.CHIEF)
        )

    @property
    def worker_addresses(self) -> tuple[str, ...]:
        """HOST:PORT of the chief, then of the workers: those that train together in a synchronous cluster."""
        return self.cluster.get(Role.CHIEF, ()) + self.cluster.get(Role.WORKER, ())

    @property
    def num_workers(self) -> int:
        """The number of tasks that train together, the chief among them; 1 without a cluster."""
        return len(self.worker_addresses) or 1

    @property
    def worker_index(self) -> int:
        """The place of a chief or worker among them; the chief's is 0."""
        is_after_chief = self.role == Role.WORKER and Role.CHIEF in self.cluster
        return self.index + is_after_chief

    @property
    def has_parameter_servers(self) -> bool:
        """Whether the cluster trains asynchronously."""
        return bool(self.cluster.get(Role.PS))

    @property
    def is_synchronous(self) -> bool:
        """Whether this task makes its steps together with other workers."""
        return self.num_workers > 1 and not self.has_parameter_servers and self.role in (Role.CHIEF, Role.WORKER)

    @property
    def is_alone(self) -> bool:
        """Whether this process trains by itself."""
        return self.num_workers == 1 and not self.has_parameter_servers and self.role != Role.EVALUATOR

    def __str__(self) -> str:
        return f"{self.role} {self.index}"


def current() -> Task:
    """This process's task, from the environment variable TF_CONFIG as it is now.

    What Vertex AI says in CLUSTER_SPEC alone is taken from there: who evaluates, and the trial of a job of one machine.

    Raises:
        FlagError: TF_CONFIG is malformed: not JSON, an unknown role, an index without an address, an address without a
            port or of two tasks.
    """
    text = os.environ.get("TF_CONFIG", "").strip() or "{}"
    try:
        config = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise _invalid("is not a JSON object", text, "{'cluster': {...}, 'task': {...}}") from None
    cluster, task = config.get("cluster") or {}, config.get("task") or {}
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _invalid("has a cluster or a task that is no object", text, "{'cluster': {...}, 'task': {...}}")
    evaluators, trial = _of_vertex_ai()
    addresses = _addresses(evaluators | cluster) if cluster else {}
    trial = str(task.get("trial") or trial)
    if not addresses:  # a single machine
        return Task(Role.CHIEF, 0, {}, trial)
    if "type" not in task:
        raise _invalid("does not say which task this process is", task, "task: {'type': ROLE, 'index': NUMBER}")
    role, index = _role(task["type"]), _index(task)
    if index >= len(addresses.get(role, ())) and role != Role.EVALUATOR:
        raise _invalid(
            "names a task that is not in its cluster",
            f"{task['type']} {index}",
            ", ".join(f"{name} 0 to {len(tasks) - 1}" for name, tasks in addresses.items()),
        )
    return Task(role, index, addresses, trial)


@contextlib.contextmanager
def failing_at_once() -> Iterator[None]:
    """Ends a task that trains with others without the interpreter's clean-up, if its exit code is not 0 in the block.

    A worker's clean-up would wait for the other tasks to end, which wait for this one. With parameter servers, it would
    take from TensorFlow's threads what they compute with, which can end in SIGSEGV.
    """
    try:
        yield
    except SystemExit as end:
        with contextlib.suppress(FlagError):
            if isinstance(end.code, int) and end.code and not current().is_alone:
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
        raise


def join_seconds() -> float:
    """How long tasks wait for each other at the start: 300 s, or CLUSTER_JOIN_SECONDS of the environment.

    Raises:
        FlagError: the variable is not a positive number.
    """
    text = os.environ.get(JOIN_SECONDS_VARIABLE, "")
    try:
        seconds = float(text) if text else _JOIN_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise FlagError(
            f"The environment variable {JOIN_SECONDS_VARIABLE} is not a number of seconds",
            received=text,
            expected="a positive number",
        )
    return seconds


def _of_vertex_ai() -> tuple[dict[str, Any], str]:
    """The evaluators and the trial in CLUSTER_SPEC. There TF_CONFIG never lists evaluators, and one machine has none:
    https://docs.cloud.google.com/vertex-ai/docs/training/distributed-training#cluster-variables."""
    try:
        spec = dict(json.loads(os.environ.get("CLUSTER_SPEC") or "{}"))
        evaluators, trial = spec.get("cluster", {}).get("workerpool3"), spec.get("task", {}).get("trial")
    except (ValueError, TypeError, AttributeError, RecursionError):  # it is not Vertex AI's
        return {}, ""
    return {Role.EVALUATOR.value: evaluators} if evaluators else {}, str(trial or "")


def _addresses(cluster: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Role -> addresses, of the roles that have any; in the order chief, worker, ps, evaluator."""
    found: dict[str, tuple[str, ...]] = {}
    for name, listed in cluster.items():
        role = _role(name)
        if not isinstance(listed, list):
            raise _invalid(f"has no list of addresses for {name}", listed, "['HOST:PORT', ...]")
        for address in listed:
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise _invalid(f"has an invalid address for {name}", address, "HOST:PORT")
        if role in found and listed:
            raise _invalid("has both a chief and a master", ", ".join(cluster), "one of them")
        if listed:
            found[role] = tuple(map(str, listed))
    if len(found.get(Role.CHIEF, ())) > 1:
        raise _invalid("has several chiefs", abridged(found[Role.CHIEF]), "one")
    every = [address for addresses in found.values() for address in addresses]
    if duplicates := sorted({address for address in every if every.count(address) > 1}):
        raise _invalid("has the same address for several tasks", abridged(duplicates), "an address for each")
    return {role: found[role] for role in Role if role in found}


def _role(name: object) -> Role:
    try:
        return Role.CHIEF if name == "master" else Role(str(name))
    except ValueError:
        raise _invalid("has an unknown role", name, "one of master, " + ", ".join(Role)) from None


def _index(task: Mapping[str, Any]) -> int:
    index = task.get("index", 0)
    if isinstance(index, bool) or not str(index).isdecimal():
        raise _invalid("has an invalid index of the task", index, "0 or more")
    return int(index)


def _invalid(problem: str, received: object, expected: str) -> FlagError:
    return FlagError(f"The environment variable TF_CONFIG {problem}", received=received, expected=expected)
