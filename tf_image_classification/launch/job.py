"""A training on a cluster: what the launching step asks a platform for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from tf_image_classification import flags as flag_table
from tf_image_classification.cluster import check_asynchronous
from tf_image_classification.errors import FlagError


@dataclass(frozen=True, slots=True)
class ClusterShape:
    """The tasks of a cluster and what each of them gets; '' for the platform's default.

    Attributes:
        replicas: tasks that compute gradients.
        parameter_servers: tasks that hold the variables of an asynchronous training; 0 for a synchronous one.
        evaluator: whether a task of its own evaluates the checkpoints.
        image: reference of the image that has TensorFlow; '' where the tasks are processes of the launching step.
        cpu, memory, accelerator: of each task, as the pipeline's options write them ('8', '32G', 'nvidia.com/gpu:1').
        spot: machines that the platform may take back at any time.
        service_account, network, encryption_key, tensorboard: as the platform names them.
    """

    replicas: int
    parameter_servers: int = 0
    evaluator: bool = False
    image: str = ""
    cpu: str = ""
    memory: str = ""
    accelerator: str = ""
    spot: bool = False
    service_account: str = ""
    network: str = ""
    encryption_key: str = ""
    tensorboard: str = ""

    @classmethod
    def from_json(cls, text: str) -> ClusterShape:
        """The shape that `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The shape as a constant of a compiled pipeline: what is not at its default."""
        default = asdict(ClusterShape(replicas=0))
        return json.dumps({name: value for name, value in asdict(self).items() if value != default[name]})

    @property
    def tasks(self) -> Mapping[str, int]:
        """Role in TF_CONFIG -> number of its tasks, for chief, worker, ps and evaluator, in this order.

        A chief computes as the workers do, unless there are parameter servers: then it only coordinates.
        """
        workers = self.replicas if self.parameter_servers else self.replicas - 1
        return {"chief": 1, "worker": workers, "ps": self.parameter_servers, "evaluator": int(self.evaluator)}

    def check_flags(self, flags: Mapping[str, object]) -> None:
        """Checks, before anything is started, that such a cluster can train with the flags.

        Args:
            flags: flag -> value; what is missing is at its default.

        Raises:
            FlagError: the devices of a synchronous cluster cannot share a batch, or a flag does not go together with
                parameter servers.
        """
        if self.parameter_servers:
            check_asynchronous(flags, "--parameter_servers")
        batch_size = int(str(flags.get("batch_size") or flag_table.BY_NAME["batch_size"].default))
        devices = self.replicas * int(self.accelerator.partition(":")[2] or 1)
        if not self.parameter_servers and batch_size % devices:
            raise FlagError(
                "--batch_size cannot be divided among the replicas",
                received=f"{batch_size} examples for {devices} devices in {self.replicas} replicas",
                expected="a multiple of the number of devices",
            )


@dataclass(frozen=True, slots=True)
class Job:
    """A cluster to start.

    Attributes:
        name: identifies the training in its run: a retried step finds the job that an earlier attempt has started. At
            most 40 lower-case letters, digits and hyphens, a letter first.
        command: of each task; the platform tells it its role by TF_CONFIG.
        shape: of the cluster.
        folder: that all tasks can reach; each keeps the end of its log there, see `task_log`.
    """

    name: str
    command: list[str]
    shape: ClusterShape
    folder: str


class Launcher(Protocol):
    """A platform that runs clusters."""

    def run(self, job: Job) -> None:
        """Starts a job, or re-attaches to the one of this name, and waits for its end.

        Logs the job's page and the end of its logs. A job that failed since a task was lost, which exits with
        `cluster.EXIT_RETRYABLE` or by a signal, is started again, up to a bound.

        Raises:
            TrainingError: the job failed.
            ServiceError: the platform refuses the job, or somebody else cancelled it.
            SystemExit: after SIGTERM or SIGINT, with 128 + its number; the job is cancelled then, and has ended.
        """
